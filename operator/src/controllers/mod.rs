//! The controllers: each observes, decides, and applies. They run at every replica and write at the one that leads; what
//! they write is fenced by resourceVersion, should a leader write that is none any more.

pub mod conditions;
pub mod control_plane;
mod leader_gate;
pub mod trust_domain;
pub mod workload_identity;
