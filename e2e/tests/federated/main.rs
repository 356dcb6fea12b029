//! Tests between two clusters, one at a time.

mod consents;
mod discovery;
mod endings;
mod hostile;
mod interop;
mod many;
mod polled;
mod probe;
mod rotation;
mod verify;
