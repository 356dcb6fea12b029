//! The controllers: each observes, decides, and applies. What they write is fenced by resourceVersion or applied by field
//! manager, so several replicas may run them at the same time.

pub mod conditions;
pub mod control_plane;
pub mod trust_domain;
pub mod workload_identity;
