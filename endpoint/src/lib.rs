//! The bundle endpoint: it publishes what the trust domains of a cluster publish (SPIFFE Federation, section 5; OpenID Connect
//! Discovery 1.0). It has no rights in Kubernetes and makes no calls: everything that it serves comes from the files of the agent
//! in its pod, and from mounted certificates.
//!
//! Files are read into an immutable [`Publication`](publication::Publication); each request is answered from the current one.

pub mod certificate_files;
pub mod documents;
pub mod host_names;
pub mod metrics;
pub mod publication;
pub mod request;
pub mod servers;
pub mod set_reader;
#[cfg(test)]
mod test_set;
pub mod web_certificates;
