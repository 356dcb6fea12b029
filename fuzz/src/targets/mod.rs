//! The fuzz targets. If a target has several kinds of input, the first byte selects the kind.

pub(crate) mod admission;
pub(crate) mod certificates;
pub(crate) mod endpoint_request;
pub(crate) mod ids;
pub(crate) mod journal;
pub(crate) mod key_sets;
pub(crate) mod keys;
pub(crate) mod messages;
pub(crate) mod patterns;
pub(crate) mod proofs;
pub(crate) mod remote;
pub(crate) mod tokens;
pub(crate) mod uds_authority_rewrite;
pub(crate) mod watched_pods;
