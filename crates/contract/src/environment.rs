//! Environment variables.

/// The log filter of every component.
pub const LOG: &str = "COUNTERSIGN_LOG";

/// Variables of application containers, set by the webhook.
pub mod application {
    /// The address of the SPIFFE Workload API (SPIFFE Workload Endpoint, section 4).
    pub const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
    /// The directory of the default identity's files.
    pub const CREDENTIAL_FOLDER: &str = "SPIFFE_CREDENTIAL_FOLDER";
    /// The address of the socket on which the agent makes and verifies proofs.
    pub const PROOF_SOCKET: &str = "COUNTERSIGN_PROOF_SOCKET";
}

/// Variables of the agent, set by the webhook.
pub mod agent {
    /// The issuer's `host:port`.
    pub const ISSUER: &str = "COUNTERSIGN_ISSUER";
    /// The name in the issuer's certificate.
    pub const ISSUER_NAME: &str = "COUNTERSIGN_ISSUER_NAME";
    /// The control plane's roots, PEM.
    pub const ROOTS: &str = "COUNTERSIGN_ROOTS";
    /// The file of the service account token.
    pub const TOKEN_FILE: &str = "COUNTERSIGN_TOKEN_FILE";
    /// `name=directory` of each session, separated by commas; the session of the whole pod has the empty name.
    pub const SESSIONS: &str = "COUNTERSIGN_SESSIONS";
    /// The agent's own directory.
    pub const PRIVATE: &str = "COUNTERSIGN_PRIVATE";
    /// The mode of the credential files, octal.
    pub const FILE_MODE: &str = "COUNTERSIGN_FILE_MODE";
    /// `true`: bundle documents and issuer URLs are written too.
    pub const BUNDLE_DOCUMENTS: &str = "COUNTERSIGN_BUNDLE_DOCUMENTS";
}

/// Variables of the operator, the webhook and the bundle endpoint, for flags.
pub mod component {
    /// Their namespace.
    pub const NAMESPACE: &str = "COUNTERSIGN_NAMESPACE";
    /// The namespace of the journals.
    pub const AUTHORITIES_NAMESPACE: &str = "COUNTERSIGN_AUTHORITIES_NAMESPACE";
    /// The namespace of what is kept of remote trust domains.
    pub const FEDERATION_NAMESPACE: &str = "COUNTERSIGN_FEDERATION_NAMESPACE";
    /// Networks beyond the public ones in which bundle endpoints may be.
    pub const FEDERATION_NETWORKS: &str = "COUNTERSIGN_FEDERATION_NETWORKS";
    /// The value of `{cluster}` in paths.
    pub const CLUSTER_NAME: &str = "COUNTERSIGN_CLUSTER_NAME";
    /// The longest accepted life of a service account token.
    pub const MAX_TOKEN_LIFE: &str = "COUNTERSIGN_MAX_TOKEN_LIFE";
    /// The format in which journals are written.
    pub const JOURNAL_FORMAT: &str = "COUNTERSIGN_JOURNAL_FORMAT";
    /// The address of the Issuer API.
    pub const LISTEN_ISSUER: &str = "COUNTERSIGN_LISTEN_ISSUER";
    /// The address of the Inspect API.
    pub const LISTEN_INSPECT: &str = "COUNTERSIGN_LISTEN_INSPECT";
    /// The address of the bundle endpoint, profile `https_spiffe`.
    pub const LISTEN_SPIFFE: &str = "COUNTERSIGN_LISTEN_SPIFFE";
    /// The address of the bundle endpoint, profile `https_web`.
    pub const LISTEN_WEB: &str = "COUNTERSIGN_LISTEN_WEB";
    /// The directory of credentials that the bundle endpoint publishes.
    pub const IDENTITY_DIR: &str = "COUNTERSIGN_IDENTITY_DIR";
    /// The directory of the bundle endpoint's web certificates.
    pub const WEB_CERTIFICATES: &str = "COUNTERSIGN_WEB_CERTIFICATES";
    /// The names by which the bundle endpoint is called, for trust domains.
    pub const HOSTS: &str = "COUNTERSIGN_HOSTS";
    /// The address of metrics and probes.
    pub const LISTEN_HTTP: &str = "COUNTERSIGN_LISTEN_HTTP";
    /// The name of a replica's pod.
    pub const POD_NAME: &str = "POD_NAME";
    /// The image of the agent.
    pub const AGENT_IMAGE: &str = "COUNTERSIGN_AGENT_IMAGE";
    /// The log filter of agents.
    pub const AGENT_LOG: &str = "COUNTERSIGN_AGENT_LOG";
}

/// Variables by which `cargo xtask` and the end-to-end tests know a cluster.
pub mod test {
    /// The kubeconfig of a second cluster, for the tests of federation.
    pub const PEER: &str = "COUNTERSIGN_PEER_KUBECONFIG";
    /// The command that loads an image archive into a cluster that `cargo xtask` did not make.
    pub const LOAD: &str = "COUNTERSIGN_LOAD";
    /// The command that breaks the cluster.
    pub const FAULT: &str = "COUNTERSIGN_FAULT";
    /// As [`FAULT`], of the second cluster.
    pub const PEER_FAULT: &str = "COUNTERSIGN_PEER_FAULT";
    /// The program that validates tokens with the npm package `jose`.
    pub const JOSE: &str = "COUNTERSIGN_JOSE";
    /// The program that validates tokens with the Python package `authlib`.
    pub const AUTHLIB: &str = "COUNTERSIGN_AUTHLIB";
    /// The harness that the conformance suite examines, instead of ours: a program and its arguments.
    pub const HARNESS: &str = "COUNTERSIGN_CONFORMANCE_HARNESS";
    /// The harness of go-spiffe.
    pub const GO_HARNESS: &str = "COUNTERSIGN_GO_HARNESS";
    /// The program that says what go-spiffe makes of an input.
    pub const GO_ORACLE: &str = "COUNTERSIGN_GO_ORACLE";
    /// For how long inputs are compared, in seconds.
    pub const DIFFERENCES_SECONDS: &str = "COUNTERSIGN_DIFFERENCES_SECONDS";
    /// The seed of a comparison that is repeated.
    pub const DIFFERENCES_SEED: &str = "COUNTERSIGN_DIFFERENCES_SEED";
    /// The API server's audit log.
    pub const AUDIT_LOG: &str = "COUNTERSIGN_AUDIT_LOG";
    /// The file for the counts of faults.
    pub const COUNTS: &str = "COUNTERSIGN_COUNTS";
    /// The length of the long tests.
    pub const SOAK_MINUTES: &str = "COUNTERSIGN_SOAK_MINUTES";
    /// If set, the namespace of a failed test stays.
    pub const KEEP: &str = "COUNTERSIGN_E2E_KEEP";
}
