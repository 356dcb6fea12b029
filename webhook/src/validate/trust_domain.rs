//! Validation of a TrustDomain.

use countersign_core::{
    bundle::Bundle,
    entitlement::{DomainKind, DomainSpec},
    id::{SpiffeId, TrustDomain as Name},
};
use countersign_crds::{Grant, TrustDomain};
use serde::Deserialize as _;
use serde_json::Value;

use super::{Verdict, separation::separation, unknown_authorities, warn_of_open_prefixes};

/// Validates a TrustDomain. `stored` is the object that it replaces, null on creation: a stored grant that
/// would be refused today causes a warning, so that the rest of the object can be edited. Of its status only the authorities are
/// read, since a release of the operator may write what another one's webhook cannot read.
pub(super) fn trust_domain(object: &TrustDomain, stored: &Value) -> Verdict {
    let mut verdict = Verdict::default();
    // Without the cluster's name, which only the operator knows.
    match countersign_policy::trust_domain(object, "").spec {
        Ok(spec) => warn(&spec, &mut verdict),
        Err(errors) => verdict.refuse(&errors),
    }
    federation(object, &mut verdict);
    remote(object, stored, &mut verdict);
    let grants = stored.pointer("/spec/grants").and_then(|grants| Vec::<Grant>::deserialize(grants).ok());
    separation(&object.spec.grants, &countersign_policy::grants(object), &grants.unwrap_or_default(), &mut verdict);
    verdict.warnings.extend(unknown_authorities::warnings(&object.spec, stored));
    verdict
}

/// Checks that the domain does not federate with itself.
fn federation(object: &TrustDomain, verdict: &mut Verdict) {
    let own = object.trust_domain_name();
    for (grant, granted) in object.spec.grants.iter().enumerate() {
        for (index, _) in granted.federates_with.iter().enumerate().filter(|(_, foreign)| **foreign == own) {
            verdict.problems.push(format!(
                "spec.grants[{grant}].federatesWith[{index}]: a trust domain does not federate with itself; remove it"
            ));
        }
    }
}

/// Checks the bundle in a remote TrustDomain: the operator keeps what it has where it cannot read one, so this is the place to
/// refuse it. One that is stored already stays, so that the rest of the object can be edited.
fn remote(object: &TrustDomain, stored: &Value, verdict: &mut Verdict) {
    let Some(remote) = &object.spec.remote else { return };
    let Ok(trust_domain) = object.trust_domain_name().parse::<Name>() else { return };
    let field = "spec.remote.bootstrap.bundle";
    if let Some(bootstrap) = &remote.bootstrap {
        let is_stored =
            stored.pointer("/spec/remote/bootstrap/bundle").and_then(Value::as_str) == Some(&bootstrap.bundle);
        match Bundle::parse(&trust_domain, bootstrap.bundle.as_bytes()) {
            Err(error) if !is_stored => verdict.problems.push(format!("{field}: {error}")),
            Ok(bundle) if bundle.x509_authorities.is_empty() => verdict.warnings.push(format!(
                "{field} has no X.509 authority: it verifies no certificate, neither of a workload nor of an https_spiffe endpoint"
            )),
            Ok(_) | Err(_) => {}
        }
        if bootstrap.replace {
            verdict.warnings.push(
                "spec.remote.bootstrap.replace: remove it once the bundle is taken, or reverting this object restores revoked keys"
                    .to_owned(),
            );
        }
    } else if stored.is_null()
        && let Some(endpoint) = &remote.endpoint
        && let Some(id) = endpoint.spiffe_id.as_ref().and_then(|id| id.parse::<SpiffeId>().ok())
        && *id.trust_domain() == trust_domain
    {
        verdict.warnings.push(
            "spec.remote.bootstrap is missing: nothing verifies an https_spiffe endpoint of the trust domain itself, so it is not polled"
                .to_owned(),
        );
    }
}

/// Warns of what is perhaps not meant.
fn warn(spec: &DomainSpec, verdict: &mut Verdict) {
    for (index, grant) in spec.grants.iter().enumerate() {
        warn_of_open_prefixes(&format!("spec.grants[{index}].audiences"), &grant.audiences, verdict);
        if grant.allow_label_only {
            verdict.warnings.push(format!(
                "spec.grants[{index}].allowLabelOnly: whoever may label a pod there chooses its identity"
            ));
        }
    }
    if spec.grants.is_empty() && spec.kind == DomainKind::Local {
        verdict
            .warnings
            .push("spec.grants is empty: no WorkloadIdentity can claim anything of this trust domain".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::testing::trust_domain, *};

    fn domain(authority: Value, grant: Value) -> Value {
        let mut base = json!({ "namespaces": { "matchNames": ["shop"] }, "paths": ["/ns/{namespace}/**"] });
        for (key, value) in grant.as_object().unwrap() {
            base[key] = value.clone();
        }
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "example.org" },
            "spec": { "authority": authority, "grants": [base] },
        })
    }

    fn problems(object: &Value) -> String {
        trust_domain(object, &Value::Null).problems.join("\n")
    }

    #[test]
    fn a_good_one_is_allowed_without_warnings() {
        assert_eq!(
            trust_domain(
                &domain(
                    json!({}),
                    json!({ "dnsNames": ["*.{namespace}.svc", "a.org"], "audiences": ["https://a/*", "*"], "federatesWith": ["b.org"] })
                ),
                &Value::Null
            ),
            Verdict::default()
        );
    }

    // R32: no id can have two owners, unless the owner of the trust domain allows it.
    #[test]
    fn a_pattern_without_a_namespace_needs_shared() {
        let open = json!({ "paths": ["/ns/{namespace}/a", "/all/*"] });
        assert!(problems(&domain(json!({}), open)).contains("spec.grants[0].paths: /all/* holds no {namespace}"));
        assert_eq!(problems(&domain(json!({}), json!({ "paths": ["/all/*"], "shared": true }))), "");
    }

    #[test]
    fn what_cannot_be_parsed_names_its_field() {
        for (grant, field) in [
            (json!({ "paths": ["/ns/{namespace}/{pod}"] }), "spec.grants[0].paths[0]"),
            (json!({ "paths": ["/**/{namespace}"] }), "spec.grants[0].paths[0]"),
            (json!({ "dnsNames": ["a..b"] }), "spec.grants[0].dnsNames[0]"),
            (json!({ "audiences": ["a*b"] }), "spec.grants[0].audiences[0]"),
            (json!({ "federatesWith": ["B.org"] }), "spec.grants[0].federatesWith[0]"),
            (json!({ "federatesWith": ["example.org"] }), "spec.grants[0].federatesWith[0]"),
        ] {
            assert!(problems(&domain(json!({}), grant.clone())).contains(field), "{grant}");
        }
    }

    fn remote(changes: Value) -> Value {
        let mut remote = json!({ "namespaces": { "matchNames": ["shop"] } });
        for (key, value) in changes.as_object().unwrap() {
            remote[key] = value.clone();
        }
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "b.org" },
            "spec": { "remote": remote },
        })
    }

    // R26: a bundle that cannot be read never gets as far as the operator.
    #[test]
    fn a_bundle_in_the_spec_that_cannot_be_read_is_refused_unless_it_is_stored() {
        let broken = remote(json!({ "bootstrap": { "bundle": "<html>" } }));
        assert!(problems(&broken).starts_with("spec.remote.bootstrap.bundle: "), "{}", problems(&broken));
        assert_eq!(trust_domain(&broken, &broken).problems, [""; 0]);
    }

    #[test]
    fn a_remote_that_can_trust_nothing_is_warned_of() {
        let warnings = |changes: Value| trust_domain(&remote(changes), &Value::Null).warnings.join("; ");
        let endpoint = |domain: &str| {
            json!({ "endpoint": {
                "url": "https://b.org/", "profile": "https_spiffe", "spiffeID": format!("spiffe://{domain}/endpoint"),
            } })
        };
        assert!(warnings(endpoint("b.org")).contains("bootstrap is missing"));
        assert_eq!(warnings(endpoint("c.org")), "");
        assert!(warnings(json!({ "bootstrap": { "bundle": "{\"keys\":[]}" } })).contains("no X.509 authority"));
        let replacing = json!({ "bootstrap": { "bundle": "{\"keys\":[]}", "replace": true } });
        assert!(warnings(replacing).contains("replace"));
    }

    #[test]
    fn a_life_that_is_no_duration_is_refused() {
        assert!(problems(&domain(json!({ "x509": { "svidTTL": "1 day" } }), json!({}))).contains("not a duration"));
    }

    #[test]
    fn the_name_is_a_trust_domain() {
        let mut object = domain(json!({}), json!({}));
        object["spec"]["trustDomain"] = json!("Example.org");
        assert!(problems(&object).contains("spec.trustDomain"));
    }

    #[test]
    fn what_is_perhaps_not_meant_is_a_warning() {
        let object = domain(json!({}), json!({ "allowLabelOnly": true }));
        assert_eq!(trust_domain(&object, &Value::Null).warnings.len(), 1);
        let mut object = domain(json!({}), json!({}));
        object["spec"]["grants"] = json!([]);
        assert!(trust_domain(&object, &Value::Null).warnings[0].contains("spec.grants is empty"));
    }
}
