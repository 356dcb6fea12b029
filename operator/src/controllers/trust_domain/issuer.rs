//! The condition `JWTIssuerUsable` of a trust domain whose JWT-SVIDs have an issuer. Relying parties that know OIDC and not SPIFFE
//! verify tokens by the keys of the issuer alone, so no two trust domains may share one.

use countersign_reasons::Reason;
use std::collections::BTreeMap;

use countersign_core::{
    bundle::{IssuerUrl, IssuerUrlError},
    journal::AuthorityConfig,
    key::KeyType,
};
use countersign_crds::{TrustDomain, condition::JWT_ISSUER_USABLE};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::controllers::conditions;

/// `None` where it has no issuer. `all` are the authorities of this cluster, by the names of their TrustDomains.
pub(super) fn condition(
    object: &TrustDomain,
    facts: &AuthorityConfig,
    all: &BTreeMap<String, AuthorityConfig>,
    now: Timestamp,
) -> Option<Condition> {
    let issuer = facts.jwt_issuer.as_deref()?;
    let (status, reason, message) = match issuer.parse::<IssuerUrl>() {
        Err(error) => ("False", Reason::NotAnIssuer, not_served(&error)),
        Ok(issuer) => match all.values().find(|other| other.name != facts.name && shares(other, &issuer)) {
            Some(other) => (
                "False",
                Reason::Shared,
                format!(
                    "TrustDomain {} has the issuer {} too: the bundle endpoint serves neither, since a token of one would be taken \
                     for one of the other; give each an issuer of its own",
                    other.name,
                    issuer.as_str()
                ),
            ),
            None => ("True", Reason::Unique, usable(facts.policy.jwt_key_type)),
        },
    };
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = (status, reason, message);
    Some(conditions::condition(JWT_ISSUER_USABLE, condition, object.metadata.generation, old, now))
}

fn shares(other: &AuthorityConfig, issuer: &IssuerUrl) -> bool {
    let other = other.jwt_issuer.as_deref().and_then(|other| other.parse::<IssuerUrl>().ok());
    other.is_some_and(|other| other.host() == issuer.host() && other.keys_path() == issuer.keys_path())
}

fn not_served(error: &IssuerUrlError) -> String {
    format!("{error}: no discovery document is served; correct spec.authority.jwt.issuer")
}

fn usable(key_type: KeyType) -> String {
    let own = "no other trust domain here has this issuer";
    match key_type {
        KeyType::Rsa2048 => own.to_owned(),
        KeyType::EcP256 | KeyType::EcP384 => format!(
            "{own}; relying parties that take RS256 only, as Microsoft Entra does, need spec.authority.jwt.keyType rsa-2048"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_policy::authority_config;
    use serde_json::json;

    fn config(name: &str, jwt: &serde_json::Value) -> (TrustDomain, AuthorityConfig) {
        let object: TrustDomain = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": name, "uid": name },
            "spec": { "authority": { "jwt": jwt } },
        }))
        .unwrap();
        let config = authority_config(&object, name.parse().unwrap());
        (object, config)
    }

    fn told(all: &[(&str, serde_json::Value)]) -> Option<(String, String, String)> {
        let configs: Vec<_> = all.iter().map(|(name, jwt)| config(name, jwt)).collect();
        let by_name = configs.iter().map(|(_, config)| (config.name.clone(), config.clone())).collect();
        let (object, facts) = &configs[0];
        let condition = condition(object, facts, &by_name, Timestamp::UNIX_EPOCH)?;
        Some((condition.status, condition.reason, condition.message))
    }

    #[test]
    fn an_issuer_that_two_trust_domains_have_is_usable_by_neither() {
        let issuer = |url: &str| json!({ "issuer": url });
        let (status, reason, message) =
            told(&[("a.org", issuer("https://id.org/x")), ("b.org", issuer("https://id.org:8443/x/"))]).unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Shared"));
        assert!(message.contains("TrustDomain b.org"), "{message}");
        let apart = told(&[("a.org", issuer("https://id.org/x")), ("b.org", issuer("https://id.org/y"))]).unwrap();
        assert_eq!((apart.0.as_str(), apart.1.as_str()), ("True", "Unique"));
        assert_eq!(told(&[("a.org", json!({})), ("b.org", issuer("https://id.org"))]), None);
    }

    #[test]
    fn that_a_cloud_needs_rsa_is_told_where_the_keys_are_others() {
        let (_, _, message) = told(&[("a.org", json!({ "issuer": "https://id.org" }))]).unwrap();
        assert!(message.contains("Microsoft Entra") && message.contains("rsa-2048"), "{message}");
        let rsa = told(&[("a.org", json!({ "issuer": "https://id.org", "keyType": "rsa-2048" }))]).unwrap();
        assert!(!rsa.2.contains("Entra"), "{}", rsa.2);
    }

    #[test]
    fn an_issuer_that_is_none_is_not_served() {
        let (status, reason, _) = told(&[("a.org", json!({ "issuer": "https://user@id.org" }))]).unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("False", "NotAnIssuer"));
    }
}
