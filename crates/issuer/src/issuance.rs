//! The one place where credentials are made: pure functions of what the pod is entitled to, what is published, and a time. Each
//! returns one record of what was made, from which metrics and statistics follow. The caller has verified the token before.

use std::{collections::HashMap, time::Duration};

use countersign_core::{
    csr::Csr,
    entitlement::{Entitled, IdentitySpec, check_requested},
    id::SpiffeId,
    jwt::JwtRequest,
    service_account::PodToken,
    wit::WitRequest,
    x509::{Fingerprint, LeafRequest, fingerprint},
};
use countersign_proto::issuer::v1;
use jiff::Timestamp;

use super::error::IssuerError;
use crate::published::{DomainSigners, Published};
use countersign_index::Entitlement;

/// The most audiences of one token.
pub const MAX_AUDIENCES: usize = 16;

/// What a session's requests are answered from.
#[derive(Clone, Copy, Debug)]
pub struct IssuanceInputs<'a> {
    /// What the pod is entitled to.
    pub entitlement: &'a Entitlement,
    /// Authorities and bundles.
    pub published: &'a Published,
    /// The pod that asks, as its token proves it.
    pub pod: &'a PodToken,
    /// The time.
    pub now: Timestamp,
}

/// The kind of a credential. To add one: a variant here, its function below, and its metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialKind {
    /// An X509-SVID.
    X509,
    /// A JWT-SVID.
    Jwt,
    /// A WIT-SVID.
    Wit,
}

/// A credential that was issued. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuanceRecord<'a> {
    /// What it is.
    pub kind: CredentialKind,
    /// Unique among the credentials of its authority: an X509-SVID's serial, big-endian, or the text of a token's `jti`.
    pub serial: Vec<u8>,
    /// The identity it proves.
    pub id: &'a SpiffeId,
    /// Of the leaf of an X509-SVID; `None` of other kinds.
    pub fingerprint: Option<Fingerprint>,
    /// What signed it: an X.509 authority's subject key id, or the text of the `kid` of an authority of tokens.
    pub authority: Vec<u8>,
    /// The uid of the pod that asked.
    pub pod_uid: &'a str,
    /// The name of the node where that pod runs.
    pub node: &'a str,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// From when on it is worthless.
    pub expires_at: Timestamp,
    /// The rule by which the pod is entitled: its WorkloadIdentity.
    pub rule: &'a IdentitySpec,
}

/// A response for the agent, and the record of what it holds.
#[derive(Debug)]
pub struct Issued<'a, R> {
    /// What the agent is sent.
    pub response: R,
    /// What was issued.
    pub record: IssuanceRecord<'a>,
}

/// Which key was certified for which identity on a stream.
#[derive(Debug, Default)]
pub struct KeysUsed(HashMap<[u8; 20], SpiffeId>);

/// Signs an X509-SVID for the key of a certificate signing request.
///
/// # Errors
/// When the pod does not hold the identity, the request is not acceptable, or the authority cannot sign.
pub fn x509<'a>(
    request: &v1::X509Request,
    inputs: IssuanceInputs<'a>,
    used: &mut KeysUsed,
) -> Result<Issued<'a, v1::X509Response>, IssuerError> {
    let (entitled, signers) = inputs.signers_for(&request.spiffe_id)?;
    let authority =
        signers.x509.as_ref().ok_or_else(|| IssuerError::NoAuthority(entitled.id.trust_domain().clone()))?;
    let csr = Csr::verify(&request.csr)?;
    let key = csr.public_key_spki();
    used.claim(key.key_id(), &entitled.id)?;
    let leaf = LeafRequest { spki: key, id: &entitled.id, dns_names: &entitled.dns_names, ttl: entitled.x509_ttl() };
    let issued = authority.issue(&leaf, inputs.now).map_err(IssuerError::X509)?;
    Ok(Issued {
        record: IssuanceRecord {
            serial: issued.serial,
            fingerprint: issued.chain.first().map(|leaf| fingerprint(leaf)),
            authority: issued.authority_key_id,
            expires_at: issued.not_after,
            ..inputs.record(CredentialKind::X509, entitled)
        },
        response: v1::X509Response {
            id: request.id,
            spiffe_id: entitled.id.to_string(),
            certificates: issued.chain,
            refusal: None,
        },
    })
}

/// Signs a JWT-SVID.
///
/// # Errors
/// When the pod does not hold the identity, an audience is not the identity's, or the authority cannot sign.
pub fn jwt<'a>(
    request: &v1::JwtRequest,
    inputs: IssuanceInputs<'a>,
) -> Result<Issued<'a, v1::JwtResponse>, IssuerError> {
    let found = request.audiences.len();
    if found == 0 || found > MAX_AUDIENCES {
        return Err(IssuerError::AudienceCount { found, most: MAX_AUDIENCES });
    }
    let (entitled, signers) = inputs.signers_for(&request.spiffe_id)?;
    if let Some(refused) = request.audiences.iter().find(|audience| !entitled.allows_audience(audience)) {
        let audience = refused.chars().take(256).collect();
        return Err(match check_requested(refused) {
            Ok(()) => IssuerError::Audience { audience, id: entitled.id.to_string() },
            Err(problem) => IssuerError::AudienceMalformed { audience, problem },
        });
    }
    let (authority, time_left) =
        signers.jwt.as_ref().ok_or_else(|| IssuerError::NoAuthority(entitled.id.trust_domain().clone()))?;
    let left = Duration::try_from(time_left.duration_since(inputs.now)).unwrap_or(Duration::ZERO);
    let request_for = JwtRequest {
        id: &entitled.id,
        audiences: &request.audiences,
        // Nothing may outlive its authority's place in the bundle.
        ttl: entitled.jwt_ttl().min(left),
        issuer: signers.jwt_issuer.as_deref(),
    };
    let mut issued = authority.issue(&request_for, inputs.now).map_err(IssuerError::Jwt)?;
    Ok(Issued {
        record: IssuanceRecord {
            serial: issued.jti.into_bytes(),
            authority: authority.kid().as_bytes().to_vec(),
            expires_at: issued.expires_at,
            ..inputs.record(CredentialKind::Jwt, entitled)
        },
        response: v1::JwtResponse {
            id: request.id,
            spiffe_id: entitled.id.to_string(),
            token: std::mem::take(&mut *issued.token),
            refusal: None,
        },
    })
}

/// Signs a WIT-SVID for the key of a certificate signing request, by which the pod proves to hold it.
///
/// # Errors
/// When the pod does not hold the identity, the identity has no WIT-SVIDs, the request is not acceptable, or the authority cannot
/// sign.
pub fn wit<'a>(
    request: &v1::WitRequest,
    inputs: IssuanceInputs<'a>,
    used: &mut KeysUsed,
) -> Result<Issued<'a, v1::WitResponse>, IssuerError> {
    let (entitled, signers) = inputs.signers_for(&request.spiffe_id)?;
    let ttl = entitled.wit_ttl().ok_or_else(|| IssuerError::NoWit(entitled.id.to_string()))?;
    let (authority, time_left) =
        signers.wit.as_ref().ok_or_else(|| IssuerError::NoAuthority(entitled.id.trust_domain().clone()))?;
    let csr = Csr::verify(&request.csr)?;
    let key = csr.public_key_spki();
    used.claim(key.key_id(), &entitled.id)?;
    let left = Duration::try_from(time_left.duration_since(inputs.now)).unwrap_or(Duration::ZERO);
    // Nothing may outlive its authority's place in the bundle.
    let request_for = WitRequest { id: &entitled.id, confirmation: key, ttl: ttl.min(left) };
    let mut issued = authority.issue(&request_for, inputs.now).map_err(IssuerError::Wit)?;
    Ok(Issued {
        record: IssuanceRecord {
            serial: issued.jti.into_bytes(),
            authority: authority.kid().as_bytes().to_vec(),
            expires_at: issued.expires_at,
            ..inputs.record(CredentialKind::Wit, entitled)
        },
        response: v1::WitResponse {
            id: request.id,
            spiffe_id: entitled.id.to_string(),
            token: std::mem::take(&mut *issued.token),
            refusal: None,
        },
    })
}

impl<'a> IssuanceInputs<'a> {
    /// The record of a credential of which nothing is known yet but whom it is for.
    fn record(&self, kind: CredentialKind, entitled: &'a Entitled) -> IssuanceRecord<'a> {
        IssuanceRecord {
            kind,
            serial: Vec::new(),
            id: &entitled.id,
            fingerprint: None,
            authority: Vec::new(),
            pod_uid: &self.pod.pod_uid,
            node: &self.pod.node.name,
            issued_at: self.now,
            expires_at: self.now,
            rule: &entitled.identity,
        }
    }

    /// The identity asked for (empty: the default one) and what signs for its trust domain.
    fn signers_for(&self, spiffe_id: &str) -> Result<(&'a Entitled, &'a DomainSigners), IssuerError> {
        let entitled = match self.entitlement {
            Entitlement::Entitled(entitled) => entitled,
            Entitlement::None(absence) => return Err(IssuerError::NoIdentity(absence.message.clone())),
            Entitlement::Gone => return Err(IssuerError::NoIdentity("it does not exist or has ended".to_owned())),
        };
        let wanted = if spiffe_id.is_empty() {
            // The default is the first that is served, as in the state.
            let served = |one: &&Entitled| self.published.signers.contains_key(one.id.trust_domain());
            entitled.iter().find(served).or(entitled.first())
        } else {
            entitled.iter().find(|one| one.id.to_string() == spiffe_id)
        };
        let wanted = wanted.ok_or_else(|| IssuerError::NotHeld(spiffe_id.chars().take(256).collect()))?;
        let signers = self.published.signers.get(wanted.id.trust_domain());
        signers
            .map(|signers| (wanted, &**signers))
            .ok_or_else(|| IssuerError::NoAuthority(wanted.id.trust_domain().clone()))
    }
}

impl KeysUsed {
    fn claim(&mut self, key_id: [u8; 20], id: &SpiffeId) -> Result<(), IssuerError> {
        // A renewal makes a new key, so old ones need not be remembered for ever.
        const REMEMBERED: usize = 256;
        match self.0.get(&key_id) {
            Some(holder) if holder != id => return Err(IssuerError::KeyReused(holder.to_string())),
            Some(_) => return Ok(()),
            None if self.0.len() >= REMEMBERED => self.0.clear(),
            None => {}
        }
        self.0.insert(key_id, id.clone());
        Ok(())
    }
}
