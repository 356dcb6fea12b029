//! Who sent a request.

use std::{fmt, sync::Arc};

use countersign_core::{
    bundle::BundleSet,
    id::SpiffeId,
    jwt::verify_jwt_svid,
    wimse::{
        Answer, Audience, Field, Policy, Proven, ReplayKey, Request, Seen,
        signature::{SignatureError, verify_request},
        wpt::{WptError, verify_wpt},
    },
};
use jiff::Timestamp;

use super::{
    AuthenticatorBuilder, Bundles, Caller, Method, Refusal, RefusalReason, SharedReplayCache, presented::Presented,
    replay::Pending,
};
use crate::Authorizer;

/// Decides who sent a request. Cheap to clone; clones remember the same proofs.
#[derive(Clone)]
pub struct Authenticator(Arc<Config>);

/// See [`AuthenticatorBuilder`].
pub(super) struct Config {
    pub(super) bundles: Box<dyn Bundles>,
    pub(super) mtls: bool,
    pub(super) jwt_audience: Option<String>,
    pub(super) wpt: bool,
    pub(super) http_signature: bool,
    pub(super) audiences: Vec<Audience>,
    pub(super) callers: Authorizer,
    pub(super) limit: Authorizer,
    pub(super) via: Authorizer,
    pub(super) context_fields: Vec<String>,
    pub(super) replays: Arc<dyn SharedReplayCache>,
    /// For the sender of a request without an acceptable proof.
    pub(super) missing: Answer,
}

/// A request whose caller is authenticated and may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticatedRequest {
    /// Who sent it.
    pub caller: Caller,
    /// What a response to a signed request is signed with; `None` of a request that is not signed.
    pub signature: Option<SignedRequest>,
}

/// The signature of a request, as far as the response needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// The value of `nonce`, which a signed response repeats.
    pub nonce: String,
    /// Whether the caller accepts nothing but a signed response: one that cannot be signed must not be successful
    /// (draft-ietf-wimse-http-signature-08, section 3.6).
    pub sign_response: bool,
}

/// A request that is verified, but for whether its proof was used before.
pub(crate) struct Verified {
    request: AuthenticatedRequest,
    /// What identifies the proof, and when it ends.
    proof: Option<(ReplayKey, Timestamp)>,
}

impl Authenticator {
    /// Options, before it is made. Proofs are verified by `bundles`.
    pub fn builder(bundles: impl Bundles + 'static) -> AuthenticatorBuilder {
        AuthenticatorBuilder::new(bundles)
    }

    pub(super) fn new(config: Config) -> Self {
        Self(Arc::new(config))
    }

    /// Decides who sent `request`, at `now`; `peer` is the mTLS peer whose connection it came by. Where the bundles of a kind are absent,
    /// or it is not known whether the proof is new, the answer is 503, since the caller can do nothing about it; a trust domain that has
    /// no bundle is one that is not trusted, and its workloads are refused.
    ///
    /// # Errors
    /// With the first rule that the request breaks. It must not be processed, and its sender gets [`Refusal::answer`].
    pub async fn authenticate(
        &self,
        request: &Request<'_>,
        peer: Option<&SpiffeId>,
        now: Timestamp,
    ) -> Result<AuthenticatedRequest, Refusal> {
        self.remember(self.verify_unremembered(request, peer, now)?, now).await
    }

    /// As [`Self::authenticate`], but for the memory of proofs: nothing may be done with the request before [`Self::remember`].
    pub(crate) fn verify_unremembered(
        &self,
        request: &Request<'_>,
        peer: Option<&SpiffeId>,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        self.verify(request, peer, now).map_err(|reason| self.refusal(reason))
    }

    /// The request, unless its proof was used before or has ended since it was verified: it is remembered until it ends.
    pub(crate) async fn remember(&self, verified: Verified, now: Timestamp) -> Result<AuthenticatedRequest, Refusal> {
        let Verified { request, proof } = verified;
        let Some((key, until)) = proof else { return Ok(request) };
        if until <= now {
            return Err(self.refusal(SignatureError::Expired(until).into()));
        }
        match self.0.replays.remember(&key, until, now).await {
            Ok(Seen::First) => Ok(request),
            Ok(Seen::Again) => Err(self.refusal(replayed(request.caller.method))),
            Err(error) => Err(self.refusal(error.into())),
        }
    }

    pub(crate) fn refusal(&self, reason: RefusalReason) -> Refusal {
        Refusal::new(reason, self.0.missing)
    }

    /// Whether the body of a request with these fields is needed to decide who sent it: [`Self::authenticate`] ignores that of any
    /// other.
    #[must_use]
    pub fn needs_body(&self, fields: &[Field<'_>]) -> bool {
        self.0.http_signature && matches!(Presented::of(fields), Ok(Presented::HttpSignature))
    }

    /// Everything but the memory of proofs, which only those reach who may call.
    fn verify(
        &self,
        request: &Request<'_>,
        peer: Option<&SpiffeId>,
        now: Timestamp,
    ) -> Result<Verified, RefusalReason> {
        let verified = match Presented::of(request.fields)? {
            Presented::Nothing => self.verify_peer(peer)?,
            Presented::JwtSvid(token) => self.verify_jwt_svid(token, peer, now)?,
            Presented::Wpt => self.verify_wpt(request, peer, now)?,
            Presented::HttpSignature => self.verify_signature(request, peer, now)?,
        };
        let Caller { id, method, via, .. } = &verified.request.caller;
        if !(self.0.callers.permits(id) && self.0.limit.permits(id)) {
            return Err(RefusalReason::Caller { id: id.clone(), method: *method });
        }
        match via {
            Some(via) if via != id && !self.0.via.permits(via) => {
                Err(RefusalReason::Via { via: via.clone(), caller: id.clone() })
            }
            _ => Ok(verified),
        }
    }

    fn verify_peer(&self, peer: Option<&SpiffeId>) -> Result<Verified, RefusalReason> {
        let id = peer.filter(|_| self.0.mtls).ok_or(RefusalReason::NoProof)?.clone();
        let caller = Caller { id, method: Method::Mtls, via: None, expires_at: None, bound: Vec::new() };
        Ok(Verified { request: AuthenticatedRequest { caller, signature: None }, proof: None })
    }

    fn verify_jwt_svid(&self, token: &str, peer: Option<&SpiffeId>, now: Timestamp) -> Result<Verified, RefusalReason> {
        let not_accepted = RefusalReason::MethodNotAccepted(Method::JwtSvid);
        let audience = self.0.jwt_audience.as_deref().ok_or(not_accepted)?;
        let bundles = self.0.bundles.jwt_bundles().ok_or(RefusalReason::NoBundles(Method::JwtSvid))?;
        let claims = verify_jwt_svid(token, audience, &bundles, now)?;
        let caller = Caller {
            id: claims.id,
            method: Method::JwtSvid,
            via: peer.cloned(),
            expires_at: Some(claims.expires_at),
            bound: Vec::new(),
        };
        Ok(Verified { request: AuthenticatedRequest { caller, signature: None }, proof: None })
    }

    fn verify_wpt(
        &self,
        request: &Request<'_>,
        peer: Option<&SpiffeId>,
        now: Timestamp,
    ) -> Result<Verified, RefusalReason> {
        let bundles = self.wit_bundles(Method::Wpt, self.0.wpt)?;
        let context_fields: Vec<&str> = self.0.context_fields.iter().map(String::as_str).collect();
        let policy = Policy { context_fields: &context_fields, ..Policy::new(&bundles, &self.0.audiences) };
        let pending = Pending::default();
        let proven = verify_wpt(request, &policy, &pending, now)?;
        let caller = proven_caller(proven, Method::Wpt, peer);
        Ok(Verified { request: AuthenticatedRequest { caller, signature: None }, proof: pending.into_inner() })
    }

    fn verify_signature(
        &self,
        request: &Request<'_>,
        peer: Option<&SpiffeId>,
        now: Timestamp,
    ) -> Result<Verified, RefusalReason> {
        let bundles = self.wit_bundles(Method::HttpSignature, self.0.http_signature)?;
        let pending = Pending::default();
        let proven = verify_request(request, &Policy::new(&bundles, &self.0.audiences), &pending, now)?;
        let caller = proven_caller(proven.sender, Method::HttpSignature, peer);
        let signature = Some(SignedRequest { nonce: proven.nonce, sign_response: proven.sign_response });
        Ok(Verified { request: AuthenticatedRequest { caller, signature }, proof: pending.into_inner() })
    }

    fn wit_bundles(&self, method: Method, is_accepted: bool) -> Result<Arc<BundleSet>, RefusalReason> {
        if !is_accepted {
            return Err(RefusalReason::MethodNotAccepted(method));
        }
        self.0.bundles.wit_bundles().ok_or(RefusalReason::NoBundles(method))
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { mtls, jwt_audience, wpt, http_signature, audiences, callers, via, context_fields, .. } = &*self.0;
        f.debug_struct("Authenticator")
            .field("mtls", mtls)
            .field("jwt_audience", jwt_audience)
            .field("wpt", wpt)
            .field("http_signature", http_signature)
            .field("audiences", audiences)
            .field("callers", callers)
            .field("via", via)
            .field("context_fields", context_fields)
            .finish_non_exhaustive()
    }
}

fn proven_caller(proven: Proven, method: Method, peer: Option<&SpiffeId>) -> Caller {
    let Proven { wit, expires_at, bound, .. } = proven;
    Caller { id: wit.id, method, via: peer.cloned(), expires_at: Some(expires_at), bound }
}

fn replayed(method: Method) -> RefusalReason {
    if method == Method::HttpSignature { SignatureError::Replayed.into() } else { WptError::Replayed.into() }
}
