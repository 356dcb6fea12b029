//! Names, paths and variables of everything that is injected. They are part of the contract in `docs/reference.md`.

/// The label on pods and namespaces that requests injection.
pub const INJECT_LABEL: &str = "countersign.dev/inject";

/// The agent's container.
pub(super) const AGENT: &str = "countersign-agent";
/// The volume of the projected token.
pub(super) const TOKEN: &str = "countersign-token";
/// The volume of the pod's session.
pub(super) const IDENTITY: &str = "countersign-identity";
/// The agent's own volume.
pub(super) const PRIVATE: &str = "countersign-private";
/// The volume that hides the API token.
pub(super) const NO_API_TOKEN: &str = "countersign-no-api-token";
/// The mount path of the identity in application containers.
pub(super) const IDENTITY_PATH: &str = "/run/countersign";
/// The longest name of a container with its own session: a volume's name has at most 63 characters.
pub(super) const LONGEST_SESSION_NAME: usize = 63 - IDENTITY.len() - 1;

/// Environment variables added to each application container that does not set them itself: names and values.
pub(super) const APPLICATION_ENV: [(&str, &str); 2] = [
    ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/countersign/workload.sock"),
    ("SPIFFE_CREDENTIAL_FOLDER", "/run/countersign/credentials"),
];

/// Whether a volume's name is one that injection uses.
pub(super) fn is_injected_volume(volume: &str) -> bool {
    let identity = volume.strip_prefix(IDENTITY).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    identity || [TOKEN, PRIVATE, NO_API_TOKEN].contains(&volume)
}
