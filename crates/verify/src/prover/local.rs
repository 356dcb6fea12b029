//! Proofs by a key that is in this process.

use std::{borrow::Cow, time::Duration};

use countersign_core::{
    id::SpiffeId,
    key::Signer,
    wimse::{
        Body, Field, Request, Response, TXN_TOKEN_FIELD, WIT_FIELD,
        signature::{
            CONTENT_DIGEST_FIELD, SIGNATURE_FIELD, SIGNATURE_INPUT_FIELD, SignRequest, SignResponse, SignedFields,
            content_digest, content_digest_of_hash, sign_request, sign_response,
        },
        wpt::{WptRequest, make_wpt},
    },
};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::{MessageProof, ProofField, ProveError, RequestProof, RequestToProve, ResponseToProve};

const AUTHORIZATION_FIELD: &str = "authorization";

/// How long a proof is valid: enough for a request that waits, and for clocks that are a little apart.
const LIFE: Duration = Duration::from_secs(30);

/// A WIT-SVID and its key, by which proofs are made in this process.
pub struct Credential<'a> {
    /// The identity that is proven: the `sub` of the WIT-SVID.
    pub id: &'a SpiffeId,
    /// The WIT-SVID, JWS compact serialization.
    pub wit: &'a str,
    /// Its `exp`: no proof is made to be valid for longer, but for a fraction of a second.
    pub expires_at: Timestamp,
    /// The key in its `cnf`.
    pub key: &'a dyn Signer,
}

impl Credential<'_> {
    /// The proof of a request that will be sent, valid for half a minute.
    ///
    /// # Errors
    /// When the message or the WIT-SVID is not acceptable, or signing fails.
    pub fn prove_request(&self, ask: &RequestToProve<'_>, now: Timestamp) -> Result<MessageProof, ProveError> {
        match ask.proof {
            RequestProof::Wpt => self.make_wpt(ask, now),
            RequestProof::HttpSignature => self.sign_request(ask, now),
        }
    }

    fn make_wpt(&self, ask: &RequestToProve<'_>, now: Timestamp) -> Result<MessageProof, ProveError> {
        let fields = ask.request.fields;
        if lines(fields, AUTHORIZATION_FIELD).next().is_some() {
            return Err(ProveError::HasAuthorization);
        }
        no_wit(fields)?;
        if ask.sign_response {
            let reason = "sign_response: only an HTTP signature can ask for a signed response".to_owned();
            return Err(ProveError::Refused { reason });
        }
        let mut other_tokens = Vec::new();
        for name in ask.context_fields {
            other_tokens.extend(token(fields, name)?.map(|value| (name.as_str(), value)));
        }
        let request = WptRequest {
            wit: self.wit,
            audience: ask.audience,
            txn_token: token(fields, TXN_TOKEN_FIELD)?,
            other_tokens: &other_tokens,
            life: self.life(now),
            jti: rand::random(),
        };
        let value = make_wpt(self.key, &request, now)?;
        let fields = vec![self.wit_field(), (AUTHORIZATION_FIELD.into(), value)];
        Ok(MessageProof { id: self.id.clone(), fields, nonce: None, expires_at: self.end(now) })
    }

    fn sign_request(&self, ask: &RequestToProve<'_>, now: Timestamp) -> Result<MessageProof, ProveError> {
        no_wit(ask.request.fields)?;
        let added = self.added(ask.request.fields, ask.request.body);
        let fields = joined(ask.request.fields, &added);
        let request = Request { fields: &fields, ..ask.request };
        let sign = SignRequest {
            audience: ask.audience,
            life: self.life(now),
            nonce: rand::random(),
            sign_response: ask.sign_response,
        };
        let signed = sign_request(self.key, &request, &sign, now)?;
        Ok(self.signed(added, signed, now))
    }

    /// The signature of a response that will be sent, valid for half a minute.
    ///
    /// # Errors
    /// As [`Self::prove_request`].
    pub fn prove_response(&self, ask: &ResponseToProve<'_>, now: Timestamp) -> Result<MessageProof, ProveError> {
        no_wit(ask.response.fields)?;
        let added = self.added(ask.response.fields, ask.response.body);
        let fields = joined(ask.response.fields, &added);
        let response = Response { fields: &fields, ..ask.response };
        let sign = SignResponse { request_nonce: ask.request_nonce, life: self.life(now), nonce: rand::random() };
        let signed = sign_response(self.key, &ask.request, &response, &sign, now)?;
        Ok(self.signed(added, signed, now))
    }

    /// What a message has before it is signed: the WIT, and the hash of its body where there is one and the message has none.
    fn added(&self, fields: &[Field<'_>], body: Body<'_>) -> Vec<ProofField> {
        let digest = match body {
            Body::Empty | Body::Bytes([]) => None,
            Body::Bytes(bytes) => Some(content_digest(bytes)),
            Body::Sha256(hash) => Some(content_digest_of_hash(hash)),
        };
        let digest = digest.filter(|_| lines(fields, CONTENT_DIGEST_FIELD).next().is_none());
        let digest = digest.map(|value| (CONTENT_DIGEST_FIELD.into(), Zeroizing::new(value)));
        [self.wit_field()].into_iter().chain(digest).collect()
    }

    fn signed(&self, mut fields: Vec<ProofField>, signed: SignedFields, now: Timestamp) -> MessageProof {
        let SignedFields { signature_input, signature, nonce } = signed;
        fields.push((SIGNATURE_INPUT_FIELD.into(), Zeroizing::new(signature_input)));
        fields.push((SIGNATURE_FIELD.into(), Zeroizing::new(signature)));
        MessageProof { id: self.id.clone(), fields, nonce: Some(nonce), expires_at: self.end(now) }
    }

    /// As long as a proof may be valid and no longer than the WIT-SVID, in whole seconds; at least one, since a proof has no other.
    fn life(&self, now: Timestamp) -> Duration {
        let left = Duration::try_from(self.expires_at.duration_since(now)).unwrap_or(Duration::ZERO);
        Duration::from_secs(LIFE.min(left).as_secs().max(1))
    }

    /// When a proof of `now` ends: in whole seconds, as it says.
    fn end(&self, now: Timestamp) -> Timestamp {
        let life = SignedDuration::try_from(self.life(now)).unwrap_or(SignedDuration::ZERO);
        let begin = Timestamp::from_second(now.as_second()).unwrap_or(now);
        begin.checked_add(life).unwrap_or(Timestamp::MAX)
    }

    fn wit_field(&self) -> ProofField {
        (Cow::Borrowed(WIT_FIELD), Zeroizing::new(self.wit.to_owned()))
    }
}

fn no_wit(fields: &[Field<'_>]) -> Result<(), ProveError> {
    if lines(fields, WIT_FIELD).next().is_some() { Err(ProveError::HasWit) } else { Ok(()) }
}

/// The token in the field `name`; `None` where there is no such field.
fn token<'a>(fields: &'a [Field<'a>], name: &str) -> Result<Option<&'a str>, ProveError> {
    let mut lines = lines(fields, name);
    let Some(value) = lines.next() else { return Ok(None) };
    let text = std::str::from_utf8(value).ok().filter(|_| lines.next().is_none());
    match text {
        Some(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        None => Err(ProveError::ContextField { name: name.to_owned() }),
    }
}

fn lines<'a>(fields: &'a [Field<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn joined<'a>(fields: &[Field<'a>], added: &'a [ProofField]) -> Vec<Field<'a>> {
    let added = added.iter().map(|(name, value)| (name.as_ref(), value.as_bytes()));
    fields.iter().copied().chain(added).collect()
}
