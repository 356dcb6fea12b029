//! Tests between two clusters, one at a time.

mod consents;
mod polled;
mod rotation;
