//! Validation of a WorkloadIdentity.

use countersign_core::{
    entitlement::{AudiencePattern, NameTemplate, PathTemplate, Placeholder},
    id::TrustDomain as Name,
};
use countersign_crds::WorkloadIdentity;
use serde::Deserialize;
use serde_json::Value;

use super::{Verdict, trust_domain::SHORTEST_SVID_TTL, warn_of_open_prefixes};

/// Validates the raw JSON of a WorkloadIdentity.
#[must_use]
pub fn workload_identity(object: &Value) -> Verdict {
    let object = match WorkloadIdentity::deserialize(object) {
        Ok(object) => object,
        Err(error) => return Verdict::malformed("WorkloadIdentity", &error),
    };
    let (spec, mut verdict) = (object.spec, Verdict::default());
    match PathTemplate::parse(&spec.path) {
        Err(error) => verdict.problems.push(format!("spec.path: {error}")),
        Ok(path) if path.uses(Placeholder::PodName) => {
            verdict
                .warnings
                .push("spec.path has {podName}: each pod has another id, which is gone with the pod".to_owned());
        }
        Ok(_) => {}
    }
    let x509 = spec.x509.unwrap_or_default();
    let jwt = spec.jwt.unwrap_or_default();
    verdict.parse("spec.x509.dnsNames", &x509.dns_names, NameTemplate::parse);
    let audiences = verdict.parse("spec.jwt.audiences", &jwt.audiences, AudiencePattern::parse);
    warn_of_open_prefixes("spec.jwt.audiences", &audiences, &mut verdict);
    verdict.parse("spec.federatesWith", &spec.federates_with, str::parse::<Name>);
    for (kind, ttl) in [("x509", x509.ttl), ("jwt", jwt.ttl)] {
        if let Some(ttl) = ttl.filter(|ttl| ttl.duration() < SHORTEST_SVID_TTL) {
            verdict.problems.push(format!("spec.{kind}.ttl: it is {ttl}; an SVID lives at least 10s"));
        }
    }
    let selector = &spec.selector;
    if selector.service_accounts.is_empty() && selector.match_labels.is_empty() && selector.match_expressions.is_empty()
    {
        verdict.problems.push(
            "spec.selector: it selects every pod; name serviceAccounts, or labels where the grant has allowLabelOnly"
                .to_owned(),
        );
    }
    if spec.hint.as_deref() == Some("jwt") {
        verdict.problems.push("spec.hint: `jwt` is taken by the folder of the tokens; choose another".to_owned());
    }
    verdict
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(spec: Value) -> Value {
        let mut base = json!({ "trustDomain": "example.org", "selector": { "serviceAccounts": ["cart"] } });
        for (key, value) in spec.as_object().unwrap() {
            base[key] = value.clone();
        }
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
            "metadata": { "name": "cart", "namespace": "shop" }, "spec": base,
        })
    }

    fn problems(spec: Value) -> String {
        workload_identity(&identity(spec)).problems.join("\n")
    }

    #[test]
    fn a_good_one_is_allowed_without_warnings() {
        let spec = json!({ "x509": { "ttl": "10s", "dnsNames": ["{serviceAccount}.{namespace}.svc"] }, "jwt": { "audiences": ["a", "b:*"] }, "federatesWith": ["b.org"], "hint": "main" });
        assert_eq!(workload_identity(&identity(spec)), Verdict::default());
        assert_eq!(workload_identity(&identity(json!({}))), Verdict::default());
    }

    #[test]
    fn an_unknown_placeholder_is_answered_with_those_there_are() {
        let found = problems(json!({ "path": "/ns/{namespace}/app/{label}" }));
        for expected in ["spec.path", "{label}", "{namespace}", "{serviceAccount}", "{podName}", "{cluster}"] {
            assert!(found.contains(expected), "{found}");
        }
    }

    // R32: one spelling of an id.
    #[test]
    fn paths_that_are_no_ids_are_refused() {
        for path in ["", "/", "a", "/a/", "/a//b", "/a/../b", "/./a", "/a%2fb", "/a b", "/a{namespace}", "/*"] {
            assert!(problems(json!({ "path": path })).contains("spec.path"), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_parsed_names_its_field() {
        for (spec, field) in [
            (json!({ "x509": { "dnsNames": ["*.a"] } }), "spec.x509.dnsNames[0]"),
            (json!({ "x509": { "dnsNames": ["a.b", "a.b"] } }), "spec.x509.dnsNames[1]"),
            (json!({ "x509": { "ttl": "9s" } }), "spec.x509.ttl"),
            (json!({ "jwt": { "ttl": "9s" } }), "spec.jwt.ttl"),
            (json!({ "jwt": { "audiences": ["a b"] } }), "spec.jwt.audiences[0]"),
            (json!({ "federatesWith": ["A"] }), "spec.federatesWith[0]"),
            (json!({ "selector": {} }), "spec.selector"),
            (json!({ "hint": "jwt" }), "spec.hint"),
            (json!({ "x509": { "ttl": "soon" } }), "not a duration"),
        ] {
            assert!(problems(spec.clone()).contains(field), "{spec}");
        }
    }

    #[test]
    fn an_audience_prefix_without_a_boundary_is_warned_of() {
        let verdict =
            workload_identity(&identity(json!({ "jwt": { "audiences": ["https://a.org/*", "https://a.org*"] } })));
        assert_eq!(verdict.problems, [""; 0]);
        assert!(verdict.warnings[0].starts_with("spec.jwt.audiences[1]: the prefix https://a.org* does not end"));
        assert_eq!(verdict.warnings.len(), 1);
    }

    #[test]
    fn an_id_for_each_pod_is_warned_of() {
        assert_eq!(workload_identity(&identity(json!({ "path": "/ns/{namespace}/pod/{podName}" }))).warnings.len(), 1);
    }
}
