//! Converts published credentials to the messages of the Workload API. Trust domains are keys in SPIFFE ID form.

use std::collections::BTreeMap;

use countersign_core::bundle::Bundle;
use countersign_core::id::TrustDomain;
use countersign_proto::workload::{
    JwtBundlesResponse, WitBundlesResponse, Witsvid, WitsvidResponse, X509BundlesResponse, X509svid, X509svidResponse,
};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use tonic::Status;

use crate::publish::{Credentials, NO_WIT_SVID_NOW, NO_WIT_SVIDS, Svid, Wit, WitState};

pub(super) fn x509_svids(credentials: &Credentials) -> X509svidResponse {
    let foreign = credentials.svids.iter().flat_map(|svid| &svid.federates_with);
    X509svidResponse {
        svids: credentials.svids.iter().map(|svid| x509_svid(svid, credentials)).collect(),
        crl: Vec::new(),
        federated_bundles: by_domain(credentials, foreign, Bundle::x509_der_concatenated),
    }
}

pub(super) fn x509_bundles(credentials: &Credentials) -> X509BundlesResponse {
    let bundles = by_domain(credentials, all_domains(credentials), Bundle::x509_der_concatenated);
    X509BundlesResponse { crl: Vec::new(), bundles }
}

pub(super) fn jwt_bundles(credentials: &Credentials) -> JwtBundlesResponse {
    JwtBundlesResponse { bundles: by_domain(credentials, all_domains(credentials), Bundle::jwks_json) }
}

/// The WIT-SVIDs of these identities whose keys the workload may have.
pub(super) fn wit_svids(asked: &[&Svid]) -> Result<WitsvidResponse, Status> {
    let states = asked.iter().filter_map(|&svid| Some((svid, svid.wit.as_ref()?)));
    let states: Vec<(&Svid, &WitState)> = states.collect();
    if states.is_empty() {
        return Err(Status::permission_denied(NO_WIT_SVIDS));
    }
    let exported = states.iter().filter(|(_, state)| state.export_key);
    let svids: Vec<Witsvid> =
        exported.clone().filter_map(|(svid, state)| wit_svid(svid, state.current.as_ref()?)).collect();
    if !svids.is_empty() {
        return Ok(WitsvidResponse { svids });
    }
    Err(if exported.count() == 0 {
        Status::permission_denied(
            "the keys of this workload's WIT-SVIDs stay in the agent: its WorkloadIdentity does not say wit.exportKey",
        )
    } else {
        Status::unavailable(NO_WIT_SVID_NOW)
    })
}

fn wit_svid(svid: &Svid, wit: &Wit) -> Option<Witsvid> {
    Some(Witsvid {
        spiffe_id: svid.id.to_string(),
        wit_svid: wit.token.as_str().to_owned(),
        wit_svid_key: wit.key.jwk_json()?.as_str().to_owned(),
        hint: svid.hint.clone(),
    })
}

/// JWK sets of WIT authorities.
pub(super) fn wit_bundles(credentials: &Credentials) -> WitBundlesResponse {
    let sets = by_domain(credentials, all_domains(credentials), Bundle::wit_jwks_json);
    // JSON that was just written is UTF-8.
    let text = |(name, json): (String, Vec<u8>)| Some((name, String::from_utf8(json).ok()?));
    WitBundlesResponse { bundles: sets.into_iter().filter_map(text).collect() }
}

/// A token's claims as a protobuf Struct; numbers become doubles, as in every JSON mapping of protobuf.
pub(super) fn claims(claims: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: claims.into_iter().map(|(name, claim)| (name, value(claim))).collect() }
}

fn x509_svid(svid: &Svid, credentials: &Credentials) -> X509svid {
    let bundle = credentials.trust.get(svid.id.trust_domain());
    X509svid {
        spiffe_id: svid.id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.pkcs8_der().to_vec(),
        bundle: bundle.map(|bundle| bundle.x509_der_concatenated()).unwrap_or_default(),
        hint: svid.hint.clone(),
    }
}

fn all_domains(credentials: &Credentials) -> impl Iterator<Item = &TrustDomain> {
    credentials.svids.iter().flat_map(|svid| std::iter::once(svid.id.trust_domain()).chain(&svid.federates_with))
}

fn by_domain<'a>(
    credentials: &Credentials,
    domains: impl Iterator<Item = &'a TrustDomain>,
    form: impl Fn(&Bundle) -> Vec<u8>,
) -> BTreeMap<String, Vec<u8>> {
    let entry = |domain: &TrustDomain| Some((domain.id_string(), form(credentials.trust.get(domain)?)));
    domains.filter_map(entry).collect()
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(bool) => Kind::BoolValue(bool),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(string) => Kind::StringValue(string),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(object) => Kind::StructValue(claims(object)),
    };
    Value { kind: Some(kind) }
}
