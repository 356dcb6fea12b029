//! The fields of a resource that are read: its spec, and its metadata except `managedFields`, which may be large and affects no
//! decision. For warnings also parts of the status: of the stored object the authorities, of a WorkloadIdentity the ages of its claims.

use countersign_crds::WorkloadIdentityStatus;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::projection::Part;

/// The fields of a TrustDomain or WorkloadIdentity that are read.
pub(crate) static RESOURCE: Part = Part::Fields(&[
    ("apiVersion", Part::Whole),
    ("kind", Part::Whole),
    ("metadata", Part::Entries(|key| key != "managedFields", &Part::Whole)),
    ("spec", Part::Whole),
]);

/// The fields of the stored object that are read. The authorities are those of a TrustDomain, and few.
pub(crate) static STORED: Part = Part::Fields(&[
    ("spec", Part::Whole),
    ("status", Part::Fields(&[("authorities", Part::Whole), ("removed", Part::Whole)])),
]);

/// The most bytes of a WorkloadIdentity's metadata and spec as JSON. Its status, which records the ages of its claims, must
/// fit within etcd's limit for an object (1.5 MiB) as well.
const LARGEST_IDENTITY: usize = 512 * 1024;

/// The status of a WorkloadIdentity. It is not part of [`RESOURCE`], since a record of many claims exceeds the limit of that; only the
/// fields of its type are built.
///
/// # Errors
/// When another release wrote one that cannot be read here.
pub(crate) fn status(raw: &RawValue) -> Result<Option<WorkloadIdentityStatus>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Object {
        status: Option<WorkloadIdentityStatus>,
    }
    serde_json::from_str(raw.get()).map(|Object { status }| status)
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

/// The problem of a WorkloadIdentity that leaves no room for a status: `raw` is the whole object, `object` the part that
/// was read. Objects that are being deleted are not checked.
pub(crate) fn too_large(raw: &RawValue, object: &Value) -> Option<String> {
    let stored: Stored<'_> = serde_json::from_str(raw.get()).ok()?;
    let length = [stored.metadata, stored.spec].into_iter().flatten().map(|part| part.get().len()).sum::<usize>();
    let is_deleted = object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    (length > LARGEST_IDENTITY && !is_deleted).then(|| {
        format!(
            "metadata and spec have {length} bytes, and at most {LARGEST_IDENTITY} leave room for the status: use fewer or shorter labels and annotations"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::{LARGEST_IDENTITY, RESOURCE, STORED, too_large};
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

    #[test]
    fn of_a_stored_object_its_spec_and_its_authorities_are_built() {
        let (spec, authorities) = (json!({ "d": [1] }), json!({ "authorities": [{ "id": "a" }], "removed": [] }));
        let mut stored =
            json!({ "kind": "TrustDomain", "metadata": { "name": "a" }, "spec": spec, "status": authorities });
        stored["status"]["claims"] = json!(vec![json!({}); 10_000]);
        let expected = json!({ "spec": spec, "status": authorities });
        assert_eq!(project(&to_raw_value(&stored).expect("JSON"), &STORED), Ok(expected));
    }

    #[test]
    fn an_object_beside_which_no_status_fits_is_refused_unless_it_is_being_deleted() {
        let mut object = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "path": "/a" } });
        let judged = |object: &serde_json::Value| too_large(&to_raw_value(object).expect("JSON"), object);
        assert_eq!(judged(&object), None);
        object["status"] = json!({ "claims": "c".repeat(LARGEST_IDENTITY) });
        assert_eq!(judged(&object), None, "the status itself does not count");
        object["metadata"]["annotations"] = json!({ "a": "b".repeat(LARGEST_IDENTITY) });
        assert!(judged(&object).is_some_and(|told| told.contains("room for the status")));
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(judged(&object), None);
    }
}
