//! Kubernetes service account tokens, verified locally against the cluster's keys: who a pod is,
//! without an API call.

mod jwks;
mod token;

pub use jwks::{ClusterJwks, JwksError, MAX_JWKS_LENGTH};
pub use token::{Expected, Node, PodToken, TokenError, verify_token};
