//! The lease in the API server: a `Lease` of coordination.k8s.io/v1, written under the fence of its resourceVersion, so that
//! of two who write at the same time one finds a conflict.

use std::time::Duration;

use countersign_core::lease::Record;
use countersign_runtime::leader::{LeaseError, LeaseStore, StoredLease};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};

use countersign_contract::objects::{LEASE, OPERATOR};

/// The API server's.
#[derive(Clone)]
pub struct ApiServerLease {
    leases: Api<Lease>,
}

impl ApiServerLease {
    /// The Lease [`LEASE`] of `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { leases: Api::namespaced(client, namespace) }
    }
}

impl LeaseStore for ApiServerLease {
    fn read(&self) -> BoxFuture<'_, Result<Option<StoredLease>, LeaseError>> {
        Box::pin(async move {
            let lease = self.leases.get_opt(LEASE).await.map_err(failed)?;
            Ok(lease.map(stored))
        })
    }

    fn write<'a>(
        &'a self,
        record: &'a Record,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<StoredLease, LeaseError>> {
        Box::pin(async move {
            let lease = lease(record, over);
            let parameters = PostParams { field_manager: Some(OPERATOR.to_owned()), ..PostParams::default() };
            let written = match over {
                None => self.leases.create(&parameters, &lease).await,
                Some(_) => self.leases.replace(LEASE, &parameters, &lease).await,
            };
            written.map(stored).map_err(failed)
        })
    }
}

fn lease(record: &Record, over: Option<&str>) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(LEASE.to_owned()),
            resource_version: over.map(str::to_owned),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: (!record.holder.is_empty()).then(|| record.holder.clone()),
            lease_duration_seconds: i32::try_from(record.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(record.acquired)),
            renew_time: Some(MicroTime(record.renewed)),
            lease_transitions: i32::try_from(record.transitions).ok(),
            ..LeaseSpec::default()
        }),
    }
}

fn stored(lease: Lease) -> StoredLease {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    let time = |at: Option<MicroTime>| at.map_or(Timestamp::UNIX_EPOCH, |at| at.0);
    StoredLease {
        record: Record {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(seconds),
            acquired: time(spec.acquire_time),
            renewed: time(spec.renew_time),
            transitions: spec.lease_transitions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        },
        version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

fn failed(error: kube::Error) -> LeaseError {
    match &error {
        // One that was deleted meanwhile was changed, too.
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => LeaseError::Conflict,
        _ => LeaseError::Store(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{StoredLease, lease, stored};
    use countersign_core::lease::Record;
    use jiff::Timestamp;
    use std::time::Duration;

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let record = Record {
            holder: "a".to_owned(),
            duration: Duration::from_secs(15),
            acquired: Timestamp::from_second(5).unwrap(),
            renewed: Timestamp::from_second(9).unwrap(),
            transitions: 3,
        };
        for record in [Record { holder: String::new(), ..record.clone() }, record] {
            assert_eq!(stored(lease(&record, Some("7"))), StoredLease { record, version: "7".to_owned() });
        }
    }
}
