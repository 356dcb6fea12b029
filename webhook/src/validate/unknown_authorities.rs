//! Warnings of names in `authority.tainted` and `authority.revoked` that no authority has: a mistake, or applied before its time.
//! They are not refused, since the operator reports them in the status and acts once there is such an authority.

use countersign_core::journal::names_key_id;
use countersign_crds::TrustDomainSpec;
use serde::Deserialize;
use serde_json::Value;

/// The most names in warnings. With the longest names these have less than 2 KiB, of 4 KiB that an API server forwards.
const MOST_NAMES: usize = 7;

/// An authority in the status.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    id: String,
    subject_key_id: Option<String>,
}

impl Known {
    /// As the operator compares it.
    fn is_named(&self, name: &str) -> bool {
        self.id == name || self.subject_key_id.as_deref().is_some_and(|hex| names_key_id(name, hex))
    }
}

/// Warnings of the names in `spec` that are unknown by the status of `stored`. None while that has no authorities, as on creation:
/// there is nothing to compare with, and what is created may adopt the authorities that it names.
pub(super) fn warnings(spec: &TrustDomainSpec, stored: &Value) -> Vec<String> {
    let known = |list: &str| stored.pointer(list).and_then(|list| Vec::<Known>::deserialize(list).ok());
    let (Some(authority), Some(authorities)) = (&spec.authority, known("/status/authorities")) else { return vec![] };
    if authorities.is_empty() {
        return vec![];
    }
    let removed = known("/status/removed").unwrap_or_default();
    let is_known = |name: &str| authorities.iter().chain(&removed).any(|one| one.is_named(name));
    let lists = [("tainted", &authority.tainted), ("revoked", &authority.revoked)];
    let named = lists.into_iter().flat_map(|(list, names)| names.iter().enumerate().map(move |name| (list, name)));
    let mut unknown: Vec<String> = named
        .filter(|(_, (_, name))| !is_known(name))
        // Kubernetes may cut a warning after 256 characters, and a name has at most 128.
        .map(|(list, (index, name))| {
            format!("spec.authority.{list}[{index}]: no authority has the id {name}: compare with status.authorities")
        })
        .collect();
    let more = unknown.len().saturating_sub(MOST_NAMES);
    if more > 0 {
        unknown.truncate(MOST_NAMES);
        unknown.push(format!("spec.authority: no authority has {more} more of the ids in tainted and revoked"));
    }
    unknown
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::trust_domain;

    const ID: &str = "0192f3c4";
    const KEY_ID: &str = "5d4445b6aa";

    fn domain(authority: &Value, status: &Value) -> Value {
        let grant = json!({ "namespaces": { "matchNames": ["shop"] }, "paths": ["/ns/{namespace}/**"] });
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "example.org" },
            "spec": { "authority": authority, "grants": [grant] }, "status": status,
        })
    }

    /// What the operator writes, and what a later release may write beside it.
    fn status() -> Value {
        json!({
            "authorities": [{ "kind": "X509", "id": ID, "subjectKeyId": KEY_ID, "state": "Unheard" }, { "id": "jwt-1" }],
            "removed": [{ "kind": "X509", "id": "gone", "subjectKeyId": "0a0b" }],
        })
    }

    fn warned(authority: &Value, status: &Value) -> Vec<String> {
        let verdict = trust_domain(&domain(authority, &Value::Null), &domain(&json!({}), status));
        assert_eq!(verdict.problems, [""; 0], "it is not refused");
        verdict.warnings
    }

    #[test]
    fn a_name_that_no_authority_has_or_had_is_warned_of() {
        let found = warned(&json!({ "tainted": [ID, "0192f3c5"], "revoked": ["5d4445b6ab"] }), &status());
        assert_eq!(
            found,
            [
                "spec.authority.tainted[1]: no authority has the id 0192f3c5: compare with status.authorities",
                "spec.authority.revoked[0]: no authority has the id 5d4445b6ab: compare with status.authorities",
            ]
        );
    }

    // As the operator compares them.
    #[test]
    fn an_authority_is_known_by_id_or_subject_key_id_however_that_is_written_and_after_it_has_left() {
        for name in [ID, KEY_ID, "5D4445B6AA", "5D:44:45:B6:AA", "jwt-1", "gone", "0A:0b"] {
            assert_eq!(warned(&json!({ "revoked": [name] }), &status()), [""; 0], "{name}");
        }
    }

    // Objects are applied in any order, also before the operator has made or adopted what they name.
    #[test]
    fn while_no_authorities_are_known_there_is_nothing_to_compare_with() {
        let authority = json!({ "revoked": ["0192f3c5"] });
        for status in [json!({}), json!({ "authorities": [] }), json!({ "authorities": [{ "name": "a" }] })] {
            assert_eq!(warned(&authority, &status), [""; 0], "{status}");
        }
        assert_eq!(trust_domain(&domain(&authority, &status()), &Value::Null).warnings, [""; 0], "on creation");
    }

    #[test]
    fn a_few_of_many_unknown_names_are_told_and_no_warning_is_cut() {
        let names: Vec<String> = (0..32).map(|index| format!("{index:0>128}")).collect();
        let found = warned(&json!({ "tainted": names, "revoked": names }), &status());
        assert_eq!(found.len(), 8);
        assert!(found[7].contains("57 more"), "{}", found[7]);
        assert!(found.iter().all(|warning| warning.len() < 256), "{found:?}");
    }
}
