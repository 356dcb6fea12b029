//! What an authenticator accepts.

use std::sync::Arc;

use countersign_core::wimse::{Audience, MemoryReplayCache};

use super::{Authenticator, Bundles, SharedReplayCache, authenticator::Config, refusal::missing_proof};
use crate::Authorizer;

/// The most proofs that are remembered in memory: about 64 MiB.
const MAX_REMEMBERED: usize = 256 * 1024;
/// The most proofs of one key that are remembered in memory: with proofs that are valid for a minute, a thousand a second.
const MAX_REMEMBERED_OF_SENDER: usize = 64 * 1024;

/// Fields that no `oth` of a Workload Proof Token binds: they have claims of their own, or are the proof.
const RESERVED_FIELDS: [&str; 3] = ["authorization", "txn-token", "workload-identity-token"];

/// Options of an [`Authenticator`]. Nothing is accepted that is not named here.
#[must_use = "an authenticator is made by build"]
pub struct AuthenticatorBuilder {
    bundles: Box<dyn Bundles>,
    mtls: bool,
    jwt_audience: Option<String>,
    wpt: bool,
    http_signature: bool,
    audiences: Vec<Audience>,
    callers: Option<Authorizer>,
    limit: Authorizer,
    via: Authorizer,
    context_fields: Vec<String>,
    replays: Option<Arc<dyn SharedReplayCache>>,
}

/// Why no authenticator was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticatorError {
    /// No way to authenticate is accepted.
    #[error("no way to authenticate is accepted: add mtls(), jwt_svid(audience), wpt() or http_signature()")]
    NoMethod,
    /// It is not said who may call.
    #[error(
        "it is not said who may call: add callers(authorizer), with Authorizer::anybody() for all whose proof verifies"
    )]
    NoCallers,
    /// WPT and signatures are for somebody, and it is not said for whom.
    #[error(
        "Workload Proof Tokens and HTTP signatures need an audience: add audience(Audience::targets_of(origin)), for example"
    )]
    NoAudience,
    /// JWT-SVIDs for everybody are not accepted.
    #[error("the audience of JWT-SVIDs is empty: name this service")]
    EmptyJwtAudience,
    /// Not the name of a field in lower case, or of one that a proof binds by other means.
    #[error("{name:?} is not the name of a field in lower case that a Workload Proof Token can bind in oth")]
    ContextField {
        /// What was given.
        name: String,
    },
}

impl AuthenticatorBuilder {
    pub(super) fn new(bundles: impl Bundles + 'static) -> Self {
        Self {
            bundles: Box::new(bundles),
            mtls: false,
            jwt_audience: None,
            wpt: false,
            http_signature: false,
            audiences: Vec::new(),
            callers: None,
            limit: Authorizer::anybody(),
            via: Authorizer::anybody(),
            context_fields: Vec::new(),
            replays: None,
        }
    }

    /// Accepts the mTLS peer as the caller of a request without a proof.
    pub fn mtls(mut self) -> Self {
        self.mtls = true;
        self
    }

    /// Accepts JWT-SVIDs for `audience`, which identifies this service, as `Authorization: Bearer`. A token that is seen on the way or in
    /// a log can be used by others until it expires: for connections with TLS alone.
    pub fn jwt_svid(mut self, audience: impl Into<String>) -> Self {
        self.jwt_audience = Some(audience.into());
        self
    }

    /// Accepts Workload Proof Tokens (draft-ietf-wimse-wpt-02). They bind neither method nor query nor body.
    pub fn wpt(mut self) -> Self {
        self.wpt = true;
        self
    }

    /// Accepts HTTP message signatures (draft-ietf-wimse-http-signature-08).
    pub fn http_signature(mut self) -> Self {
        self.http_signature = true;
        self
    }

    /// A value by which Workload Proof Tokens and signatures address this service, beside those that were added before. It comes from
    /// configuration, never from a request.
    pub fn audience(mut self, audience: Audience) -> Self {
        self.audiences.push(audience);
        self
    }

    /// Who may call.
    pub fn callers(mut self, callers: Authorizer) -> Self {
        self.callers = Some(callers);
        self
    }

    /// Those whom [`Self::callers`] admits must be permitted by this as well: for example by what is accepted of foreign trust domains,
    /// in addition to who may call.
    pub fn limit(mut self, limit: Authorizer) -> Self {
        self.limit = limit;
        self
    }

    /// Who may carry requests of others: the mTLS peer, where a proof names another caller. Everybody whose connection was accepted,
    /// unless this is set.
    pub fn via(mut self, via: Authorizer) -> Self {
        self.via = via;
        self
    }

    /// Names in lower case of the fields whose tokens this service uses: a Workload Proof Token must bind those that the request has
    /// ([`Policy::context_fields`](countersign_core::wimse::Policy::context_fields)).
    pub fn context_fields(mut self, names: &[&str]) -> Self {
        self.context_fields = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Where proofs are remembered; in the memory of this process otherwise, at most 262,144 of them, of which 65,536 are of one
    /// key.
    pub fn replay_cache(mut self, replays: Arc<dyn SharedReplayCache>) -> Self {
        self.replays = Some(replays);
        self
    }

    /// The authenticator.
    ///
    /// # Errors
    /// When it could accept nobody, or would not know what proofs are for.
    pub fn build(self) -> Result<Authenticator, AuthenticatorError> {
        let Self { bundles, mtls, jwt_audience, wpt, http_signature, audiences, limit, via, context_fields, .. } = self;
        if !(mtls || jwt_audience.is_some() || wpt || http_signature) {
            return Err(AuthenticatorError::NoMethod);
        }
        if (wpt || http_signature) && audiences.is_empty() {
            return Err(AuthenticatorError::NoAudience);
        }
        if jwt_audience.as_deref() == Some("") {
            return Err(AuthenticatorError::EmptyJwtAudience);
        }
        if let Some(name) = context_fields.iter().find(|name| !can_be_bound(name)) {
            return Err(AuthenticatorError::ContextField { name: name.clone() });
        }
        let callers = self.callers.ok_or(AuthenticatorError::NoCallers)?;
        let missing = missing_proof(wpt, jwt_audience.is_some(), http_signature);
        let in_memory = || Arc::new(MemoryReplayCache::new(MAX_REMEMBERED, MAX_REMEMBERED_OF_SENDER)) as Arc<_>;
        let replays = self.replays.unwrap_or_else(in_memory);
        Ok(Authenticator::new(Config {
            bundles,
            mtls,
            jwt_audience,
            wpt,
            http_signature,
            audiences,
            callers,
            limit,
            via,
            context_fields,
            replays,
            missing,
        }))
    }
}

/// Whether it is the name of a field (RFC 9110, section 5.1), in lower case.
fn can_be_bound(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token) && !RESERVED_FIELDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::Authenticator;

    fn builder() -> AuthenticatorBuilder {
        Authenticator::builder(|| None)
    }

    #[test]
    fn what_could_accept_nobody_or_everything_is_an_error() {
        use AuthenticatorError::{ContextField, EmptyJwtAudience, NoAudience, NoCallers, NoMethod};
        let (anybody, audience) = (Authorizer::anybody, || Audience::exactly("orders"));
        for (builder, error) in [
            (builder().callers(anybody()), NoMethod),
            (builder().mtls(), NoCallers),
            (builder().wpt().callers(anybody()), NoAudience),
            (builder().http_signature().callers(anybody()), NoAudience),
            (builder().jwt_svid("").callers(anybody()), EmptyJwtAudience),
            (
                builder().wpt().audience(audience()).callers(anybody()).context_fields(&["Txn"]),
                ContextField { name: "Txn".to_owned() },
            ),
            (
                builder().wpt().audience(audience()).callers(anybody()).context_fields(&["txn-token"]),
                ContextField { name: "txn-token".to_owned() },
            ),
        ] {
            assert_eq!(builder.build().map(drop), Err(error));
        }
        assert!(builder().mtls().callers(anybody()).build().is_ok());
        assert!(builder().wpt().audience(audience()).callers(anybody()).context_fields(&["x-context"]).build().is_ok());
    }
}
