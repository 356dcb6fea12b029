//! What an injected pod consists of, beside [files](crate::files) and [variables](crate::environment).

use std::time::Duration;

/// The agent's container.
pub const AGENT: &str = "countersign-agent";
/// The volume of the projected token.
pub const TOKEN_VOLUME: &str = "countersign-token";
/// The volume of the pod's session; that of a container's session has its name after a hyphen.
pub const IDENTITY_VOLUME: &str = "countersign-identity";
/// The agent's own volume.
pub const PRIVATE_VOLUME: &str = "countersign-private";
/// The volume that hides the API token from the agent.
pub const NO_API_TOKEN_VOLUME: &str = "countersign-no-api-token";

/// The longest name of a container with its own session: a volume's name has at most 63 characters.
pub const LONGEST_SESSION_NAME: usize = 63 - IDENTITY_VOLUME.len() - 1;

/// The life of the projected token that the webhook requests; the issuer must accept tokens that live as long.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
