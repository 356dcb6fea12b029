//! What is read of a resource: its spec, and of its metadata all but the record of who set which field, which grows with
//! every manager and decides nothing.

use crate::projection::Part;

/// What is read of a TrustDomain or WorkloadIdentity.
pub(crate) static RESOURCE: Part = Part::Fields(&[
    ("apiVersion", Part::Whole),
    ("kind", Part::Whole),
    ("metadata", Part::Entries(|key| key != "managedFields", &Part::Whole)),
    ("spec", Part::Whole),
]);

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::RESOURCE;
    use crate::projection::project;

    #[test]
    fn the_record_of_managers_and_the_status_are_not_built() {
        let plain =
            json!({ "kind": "TrustDomain", "metadata": { "name": "a", "labels": { "b": "c" } }, "spec": { "d": [1] } });
        let mut large = plain.clone();
        large["metadata"]["managedFields"] = json!(vec![json!({ "fieldsV1": { "f:a": {} } }); 10_000]);
        large["status"] = json!(vec![json!({}); 10_000]);
        assert_eq!(project(&to_raw_value(&large).expect("JSON"), &RESOURCE), Ok(plain));
    }
}
