//! Validation of a TrustDomain.

use std::time::Duration;

use countersign_core::{
    entitlement::{AudiencePattern, NamePattern, PathPattern},
    id::TrustDomain as Name,
};
use countersign_crds::{Authority, Grant, TrustDomain};
use serde::Deserialize;
use serde_json::Value;

use super::{Verdict, separation::separation, warn_of_open_prefixes};

/// The shortest lifetime of an SVID.
pub(super) const SHORTEST_SVID_TTL: Duration = Duration::from_secs(10);

/// Validates the raw JSON of a TrustDomain. `stored` is the object that it replaces, null on creation: a stored grant that
/// would be refused today causes a warning, so that the rest of the object can be edited.
#[must_use]
pub fn trust_domain(object: &Value, stored: &Value) -> Verdict {
    let object = match TrustDomain::deserialize(object) {
        Ok(object) => object,
        Err(error) => return Verdict::malformed("TrustDomain", &error),
    };
    let mut verdict = Verdict::default();
    let name = object.trust_domain_name().parse::<Name>();
    if let Err(error) = &name {
        verdict.problems.push(format!("spec.trustDomain (or the object's name): {error}"));
    }
    match &object.spec.authority {
        Some(authority) => lifetimes(authority, &mut verdict),
        None => verdict.problems.push("spec.authority: it must be given; `{}` takes every default".to_owned()),
    }
    let stored = TrustDomain::deserialize(stored).map(|stored| stored.spec.grants).unwrap_or_default();
    let grants = object.spec.grants.iter().enumerate();
    let patterns: Vec<_> = grants
        .map(|(index, granted)| grant(&format!("spec.grants[{index}]"), granted, name.as_ref().ok(), &mut verdict))
        .collect();
    separation(&object.spec.grants, &patterns, &stored, &mut verdict);
    if object.spec.grants.is_empty() {
        verdict
            .warnings
            .push("spec.grants is empty: no WorkloadIdentity can claim anything of this trust domain".to_owned());
    }
    verdict
}

fn lifetimes(authority: &Authority, verdict: &mut Verdict) {
    let lifetimes = [
        ("x509", authority.x509.svid_ttl, authority.x509.longest_svid_life()),
        ("jwt", authority.jwt.svid_ttl, authority.jwt.longest_svid_life()),
    ];
    for (kind, usual, longest) in lifetimes {
        if usual.duration() < SHORTEST_SVID_TTL {
            verdict.problems.push(format!("spec.authority.{kind}.svidTTL: it is {usual}; an SVID lives at least 10s"));
        }
        if longest < usual {
            verdict
                .problems
                .push(format!("spec.authority.{kind}.maxSVIDTTL: it is {longest}, below svidTTL ({usual})"));
        }
    }
    let hint = authority.bundle_refresh_hint.duration();
    let least = (authority.longest_svid_life().duration() + hint * 3) * 2;
    if authority.x509.ca_ttl.duration() < least {
        verdict.problems.push(format!(
            "spec.authority.x509.caTTL: it is {}; it must be at least 2 × (the longest SVID life + 3 × bundleRefreshHint), here {}",
            authority.x509.ca_ttl,
            countersign_crds::Lifetime::from(least),
        ));
    }
}

/// The valid patterns of a grant, with their positions.
pub(super) struct Patterns {
    pub(super) paths: Vec<(usize, PathPattern)>,
    pub(super) dns_names: Vec<(usize, NamePattern)>,
}

fn grant(field: &str, grant: &Grant, own: Option<&Name>, verdict: &mut Verdict) -> Patterns {
    let paths = verdict.parse(&format!("{field}.paths"), &grant.paths, PathPattern::parse);
    for (index, _) in paths.iter().filter(|(_, path)| !grant.shared && !path.is_namespaced()) {
        verdict.problems.push(format!(
            "{field}.paths[{index}]: it has no segment {{namespace}}, so several namespaces could hold the same id; add it, or write `shared: true` in the grant if that is meant"
        ));
    }
    let dns_names = verdict.parse(&format!("{field}.dnsNames"), &grant.dns_names, NamePattern::parse);
    let audiences = verdict.parse(&format!("{field}.audiences"), &grant.audiences, AudiencePattern::parse);
    warn_of_open_prefixes(&format!("{field}.audiences"), &audiences, verdict);
    let foreign = verdict.parse(&format!("{field}.federatesWith"), &grant.federates_with, str::parse::<Name>);
    for (index, _) in foreign.iter().filter(|(_, foreign)| Some(foreign) == own) {
        verdict
            .problems
            .push(format!("{field}.federatesWith[{index}]: a trust domain does not federate with itself; remove it"));
    }
    let namespaces = &grant.namespaces;
    if namespaces.match_names.is_empty()
        && namespaces.match_labels.is_empty()
        && namespaces.match_expressions.is_empty()
    {
        verdict.problems.push(format!("{field}.namespaces: say which; every namespace is matchExpressions: [{{key: kubernetes.io/metadata.name, operator: Exists}}]"));
    }
    if grant.allow_label_only {
        verdict.warnings.push(format!("{field}.allowLabelOnly: whoever may label a pod there chooses its identity"));
    }
    Patterns { paths, dns_names }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        assert!(problems(&domain(json!({}), open)).contains("spec.grants[0].paths[1]: it has no segment {namespace}"));
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
            (json!({ "audiences": ["a", "a"] }), "spec.grants[0].audiences[1]: it is there twice"),
            (json!({ "namespaces": {} }), "spec.grants[0].namespaces"),
        ] {
            assert!(problems(&domain(json!({}), grant.clone())).contains(field), "{grant}");
        }
    }

    #[test]
    fn lives_must_leave_room_for_rotation() {
        assert!(problems(&domain(json!({ "x509": { "caTTL": "2h29m" } }), json!({}))).contains("here 2h30m"));
        assert_eq!(problems(&domain(json!({ "x509": { "caTTL": "2h30m" } }), json!({}))), "");
        assert!(problems(&domain(json!({ "jwt": { "maxSVIDTTL": "12h" } }), json!({}))).contains("caTTL"));
        assert!(problems(&domain(json!({ "x509": { "svidTTL": "9s" } }), json!({}))).contains("at least 10s"));
        assert!(problems(&domain(json!({ "x509": { "maxSVIDTTL": "30m" } }), json!({}))).contains("below svidTTL"));
        assert!(problems(&domain(json!({ "x509": { "svidTTL": "1 day" } }), json!({}))).contains("not a duration"));
    }

    #[test]
    fn the_name_is_a_trust_domain() {
        let mut object = domain(json!({}), json!({}));
        object["spec"]["trustDomain"] = json!("Example.org");
        assert!(problems(&object).contains("spec.trustDomain"));
    }

    #[test]
    fn authority_must_be_given() {
        let mut object = domain(json!({}), json!({}));
        object["spec"].as_object_mut().unwrap().remove("authority");
        assert!(problems(&object).contains("spec.authority"));
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
