//! Ports, and the names in serving certificates.

use crate::objects::{ISSUER_SERVICE, OPERATOR};

/// Ports, as containers listen on them.
pub mod port {
    /// The Issuer API, also the port of its Service.
    pub const ISSUER: u16 = 8443;
    /// The Inspect API, between replicas of the operator; no Service leads to it.
    pub const INSPECT: u16 = 8444;
    /// Metrics and probes of operator, webhook and bundle endpoint, without TLS.
    pub const HTTP: u16 = 8080;
    /// Admission; the webhook's Service has [`ADMISSION_SERVICE`].
    pub const ADMISSION: u16 = 9443;
    /// The port of the webhook's Service.
    pub const ADMISSION_SERVICE: u16 = 443;
    /// The bundle endpoint by the profile `https_spiffe`, also on its Service.
    pub const ENDPOINT_SPIFFE: u16 = 8443;
    /// The bundle endpoint by the profile `https_web`; its Service has [`ENDPOINT_WEB_SERVICE`].
    pub const ENDPOINT_WEB: u16 = 9443;
    /// The port of the bundle endpoint's Service for `https_web`: the URL of an issuer has no port where relying parties
    /// refuse one.
    pub const ENDPOINT_WEB_SERVICE: u16 = 443;
}

/// The name in the issuer's serving certificate, which agents ask for.
#[must_use]
pub fn issuer_name(namespace: &str) -> String {
    service_name(ISSUER_SERVICE, namespace)
}

/// The name in every replica's certificate, by which replicas of the operator know each other. There is no such Service.
#[must_use]
pub fn replica_name(namespace: &str) -> String {
    service_name(OPERATOR, namespace)
}

/// The name by which a Service is called inside the cluster.
#[must_use]
pub fn service_name(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}
