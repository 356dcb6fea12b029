//! Directories and files, in the application's containers and in the agent's.

/// The directory of a session in the application: socket and credentials.
pub const IDENTITY: &str = "/run/countersign";
/// The socket of the SPIFFE Workload API, in a session's directory.
pub const WORKLOAD_SOCKET: &str = "workload.sock";
/// The socket on which the agent makes and verifies proofs of possession, in a session's directory.
pub const PROOF_SOCKET: &str = "proof.sock";
/// The directory of the default identity's files, in a session's directory.
pub const CREDENTIALS: &str = "credentials";

/// Key and chain in one file (SPIFFE Filesystem Delivery).
pub const CREDENTIAL_BUNDLE: &str = "credential-bundle.private-key.x509.pem";
/// The trust anchors of a trust domain, after its name (SPIFFE Filesystem Delivery).
pub const TRUST_BUNDLE_SUFFIX: &str = ".spiffe-trust-bundle.x509.pem";
/// The former name of [`CREDENTIAL_BUNDLE`], a link for one release (`docs/adr/0001-file-names.md`).
pub const FORMER_CREDENTIAL_BUNDLE: &str = "credential-bundle.pem";
/// The former name of [`TRUST_BUNDLE_SUFFIX`], a link for one release (`docs/adr/0001-file-names.md`).
pub const FORMER_TRUST_BUNDLE_SUFFIX: &str = ".trust-bundle.pem";
/// The bundle document of a trust domain, after its name: as it is published, with sequence and refresh hint.
pub const BUNDLE_DOCUMENT_SUFFIX: &str = ".spiffe-bundle.json";
/// The URL of the issuer of a trust domain's JWT-SVIDs, after its name: the text alone.
pub const JWT_ISSUER_SUFFIX: &str = ".jwt-issuer";
/// The chain alone, leaf first.
pub const CHAIN: &str = "tls.crt";
/// The key alone.
pub const KEY: &str = "tls.key";
/// The trust anchors of the identity's own trust domain.
pub const TRUST_ANCHORS: &str = "ca.crt";

/// The directory of the agent's token.
pub const TOKEN_DIRECTORY: &str = "/var/run/secrets/countersign.dev";
/// The file in [`TOKEN_DIRECTORY`].
pub const TOKEN: &str = "token";
/// The agent's own directory.
pub const PRIVATE: &str = "/private";
/// The directory in the agent that holds the sessions of single containers.
pub const SESSIONS: &str = "/sessions";

/// The health of the controller of the webhook's CA, for its probes.
pub const WEBHOOK_CA_HEALTH: &str = "/run/countersign-webhook-ca/health";

/// The address of the Workload API in the application.
pub const ENDPOINT_SOCKET: &str = "unix:///run/countersign/workload.sock";
/// The address of the agent's proofs in the application.
pub const PROOF_ENDPOINT: &str = "unix:///run/countersign/proof.sock";
/// The directory of the default identity's files in the application.
pub const CREDENTIAL_FOLDER: &str = "/run/countersign/credentials";
/// The agent's token.
pub const TOKEN_FILE: &str = "/var/run/secrets/countersign.dev/token";

/// The directory of the bundle endpoint's web certificates: in it a directory for each, with [`CHAIN`] and [`KEY`].
pub const WEB_CERTIFICATES: &str = "/web";

#[cfg(test)]
mod tests {
    use super::{
        CREDENTIAL_FOLDER, CREDENTIALS, ENDPOINT_SOCKET, IDENTITY, PROOF_ENDPOINT, PROOF_SOCKET, TOKEN,
        TOKEN_DIRECTORY, TOKEN_FILE, WORKLOAD_SOCKET,
    };

    #[test]
    fn whole_paths_are_those_of_directories_and_files() {
        assert_eq!(ENDPOINT_SOCKET, format!("unix://{IDENTITY}/{WORKLOAD_SOCKET}"));
        assert_eq!(PROOF_ENDPOINT, format!("unix://{IDENTITY}/{PROOF_SOCKET}"));
        assert_eq!(CREDENTIAL_FOLDER, format!("{IDENTITY}/{CREDENTIALS}"));
        assert_eq!(TOKEN_FILE, format!("{TOKEN_DIRECTORY}/{TOKEN}"));
    }
}
