//! Names that follow from those of the contract.

use countersign_contract::{
    environment::application,
    files,
    pod::{IDENTITY_VOLUME, NO_API_TOKEN_VOLUME, PRIVATE_VOLUME, TOKEN_VOLUME},
};

/// Environment variables added to each application container that does not set them itself: names and values.
pub(super) const APPLICATION_ENV: [(&str, &str); 3] = [
    (application::ENDPOINT_SOCKET, files::ENDPOINT_SOCKET),
    (application::CREDENTIAL_FOLDER, files::CREDENTIAL_FOLDER),
    (application::PROOF_SOCKET, files::PROOF_ENDPOINT),
];

/// Whether a volume's name is one that injection uses.
pub(super) fn is_injected_volume(volume: &str) -> bool {
    let identity = volume.strip_prefix(IDENTITY_VOLUME).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    identity || [TOKEN_VOLUME, PRIVATE_VOLUME, NO_API_TOKEN_VOLUME].contains(&volume)
}
