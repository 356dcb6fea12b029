//! Validation of a WorkloadIdentity.

use countersign_core::entitlement::Placeholder;
use countersign_crds::WorkloadIdentity;

use super::{Verdict, warn_of_open_prefixes};

/// Validates a WorkloadIdentity.
pub(super) fn workload_identity(object: &WorkloadIdentity) -> Verdict {
    let mut verdict = Verdict::default();
    match countersign_policy::workload_identity(object).spec {
        Ok(spec) => {
            if spec.path.uses(Placeholder::PodName) {
                let warning = "spec.path has {podName}: each pod has another id, which is gone with the pod";
                verdict.warnings.push(warning.to_owned());
            }
            warn_of_open_prefixes("spec.jwt.audiences", &spec.jwt.audiences, &mut verdict);
        }
        Err(errors) => verdict.refuse(&errors),
    }
    verdict
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Verdict, testing::workload_identity};

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
            (json!({ "jwt": { "audiences": ["a b"] } }), "spec.jwt.audiences[0]"),
            (json!({ "federatesWith": ["A"] }), "spec.federatesWith[0]"),
            (json!({ "selector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } }), "spec.selector"),
            (json!({ "x509": { "ttl": "soon" } }), "not a duration"),
        ] {
            assert!(problems(spec.clone()).contains(field), "{spec}");
        }
    }

    #[test]
    fn every_field_that_cannot_be_used_is_named_at_once() {
        let spec = json!({ "path": "/a//b", "x509": { "dnsNames": ["*.a", "a..b"] }, "jwt": { "audiences": ["a b"] } });
        let found = problems(spec);
        for field in ["spec.path: ", "spec.x509.dnsNames[0]: ", "spec.x509.dnsNames[1]: ", "spec.jwt.audiences[0]: "] {
            assert!(found.contains(field), "{field}: {found}");
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
