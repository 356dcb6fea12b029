//! What is warned of, and that nothing of a question stays.

use serde_json::{Value, json};

use super::*;

fn domain(name: &str, spec: &Value) -> TrustDomain {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec,
    }))
    .unwrap()
}

fn identity(name: &str, account: &str, more: Value) -> WorkloadIdentity {
    let mut spec = json!({"trustDomain": "shop.example", "selector": {"serviceAccounts": [account]}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1}, "spec": spec,
    }))
    .unwrap()
}

fn granting(paths: &[&str]) -> TrustDomain {
    domain(
        "shop.example",
        &json!({"authority": {}, "grants": [{"namespaces": {"matchNames": ["shop"]}, "paths": paths}]}),
    )
}

/// A cluster with a TrustDomain and a WorkloadIdentity for the service account `orders`.
fn cluster() -> Consequences {
    let known = Consequences::default();
    {
        let mut known = known.0.lock();
        known.apply_namespace("shop", Labels::default());
        known.apply_domain(granting(&["/ns/{namespace}/**"]));
        let mut orders = identity("orders", "orders", json!({}));
        orders.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-02T00:00:00Z")).unwrap();
        known.apply_identity(&orders);
        known.listed = [true; 3];
    }
    known
}

/// R32, R50
#[test]
fn what_gives_no_pod_an_identity_yet_is_warned_of_and_named_by_its_code() {
    let cluster = cluster();
    for (object, code) in [
        (identity("web", "web", json!({})), None),
        (identity("web", "web", json!({"trustDomain": "other.example"})), Some("(CS1001)")),
        (identity("web", "web", json!({"path": "/admin"})), Some("(CS1003)")),
        (identity("late", "orders", json!({})), Some("(CS1011)")),
        (identity("web", "web", json!({"wit": {}})), Some("(CS1030)")),
    ] {
        let warnings = cluster.of_identity(&object);
        assert_eq!(warnings.len(), usize::from(code.is_some()), "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.ends_with(code.unwrap_or_default())), "{warnings:?}");
        // The question left nothing behind.
        assert!(cluster.of_identity(&identity("another", "web", json!({}))).is_empty());
    }
}

#[test]
fn a_trust_domain_that_takes_identities_away_is_warned_of_with_their_names() {
    let cluster = cluster();
    assert!(cluster.of_domain(&granting(&["/ns/{namespace}/**", "/x/{namespace}"])).is_empty());
    let warnings = cluster.of_domain(&granting(&["/elsewhere/{namespace}"]));
    let expected = "countersign: pods lose their identities by this change: WorkloadIdentity shop/orders (CS1003)";
    assert_eq!(warnings, [expected]);
    assert!(cluster.of_domain(&granting(&["/ns/{namespace}/**"])).is_empty(), "what is stored was put back");
    let second = domain("z", &json!({"trustDomain": "shop.example", "authority": {}}));
    let warnings = cluster.of_domain(&second);
    assert!(warnings.iter().any(|warning| warning.ends_with("(CS2001)")), "{warnings:?}");
}

#[test]
fn a_warning_fits_and_ends_with_its_code_however_long_names_are() {
    let long = "a".repeat(200);
    let object = identity("web", "web", json!({"path": format!("/{long}/{long}")}));
    let warnings = cluster().of_identity(&object);
    assert!(warnings.iter().all(|warning| warning.len() <= 256 && warning.ends_with("(CS1003)")), "{warnings:?}");
}

/// Whoever may make WorkloadIdentities must not use up the webhook's memory.
#[test]
fn more_than_is_kept_or_not_seen_yet_warns_of_nothing() {
    let stranger = identity("web", "web", json!({"path": "/admin"}));
    let known = cluster();
    known.0.lock().listed = [true, true, false];
    assert!(known.of_identity(&stranger).is_empty());

    let known = cluster();
    let audience = "a".repeat(512);
    let large = json!({"jwt": {"audiences": vec![audience; 1024]}});
    let mut all = known.0.lock();
    for number in 0..=MOST_KEPT / (512 * 1024) {
        all.apply_identity(&identity(&number.to_string(), "web", large.clone()));
    }
    drop(all);
    assert!(known.of_identity(&stranger).is_empty());
    known.0.lock().retain_identities(&HashSet::new());
    assert_eq!(known.of_identity(&stranger).len(), 1, "there is room again");
}
