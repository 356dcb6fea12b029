//! Tests between two clusters, one at a time.

mod consents;
mod interop;
mod polled;
mod rotation;
