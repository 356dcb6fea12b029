//! The protocols: the SPIFFE Workload API, the Issuer API and the Inspect API, generated from `crates/proto/proto` by `cargo xtask codegen`.
//! Messages that hold a key or a token have a `Debug` written by hand, which shows neither.

pub mod codec;
mod redact;

/// The SPIFFE Workload API (SPIFFE Workload API, sections 5 and 6); its service is `/SpiffeWorkloadAPI` on the wire.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod workload {
    include!("generated/workload.rs");
}

/// The Inspect API, between replicas of the operator.
pub mod inspect {
    /// Version 1, which changes by addition only.
    #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    pub mod v1 {
        include!("generated/inspect_v1.rs");
    }
}

/// The Issuer API, between agents and the operator.
pub mod issuer {
    /// The capability of agents that acknowledge States.
    pub const ACK: &str = "ack";

    /// The capability of agents that send receipts.
    pub const RECEIPT: &str = "receipt";

    /// The most sequences in one `Ack`: with the longest names of trust domains it is shorter than the longest message that
    /// an operator reads.
    pub const MAX_ACK_SEQUENCES: usize = 200;

    /// Version 1, which changes by addition only.
    #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    pub mod v1 {
        include!("generated/issuer_v1.rs");
    }
}
