//! What is known of one open stream: its agent, the identities and bundles it was sent, what was issued for each identity, and
//! which bundles are in effect at the agent, and what its receipts say. Only the stream writes its record, so issuing shares nothing;
//! the Inspect API reads it.

use std::{net::IpAddr, sync::Arc};

use countersign_core::{entitlement::IdentitySpec, x509::Fingerprint};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{acknowledgements::AckRecord, issuance::IssuanceRecord, receipts::ReceiptRecord};

/// The longest version that is kept, characters; the rest of a longer one is cut off.
const MAX_VERSION: usize = 32;

/// The most capabilities that are kept, and the longest name of one, characters.
const MAX_CAPABILITIES: (usize, usize) = (16, 64);

/// What an agent says of itself in `Hello`: bounded here, and trusted nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentInfo {
    /// Such as "0.1.0".
    pub version: String,
    /// What it can do beyond version 1 of the protocol, by name.
    pub capabilities: Vec<String>,
}

impl AgentInfo {
    /// As an agent said it, cut to what is kept.
    #[must_use]
    pub fn new(version: &str, capabilities: &[String]) -> Self {
        let (most, longest) = MAX_CAPABILITIES;
        let cut = |text: &str, longest| text.chars().take(longest).collect::<String>();
        Self {
            version: cut(version, MAX_VERSION),
            capabilities: capabilities.iter().take(most).map(|name| cut(name, longest)).collect(),
        }
    }

    /// Whether it has this capability.
    #[must_use]
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }
}

/// An X509-SVID that was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issuance {
    /// When it was issued.
    pub at: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
    /// Of its leaf.
    pub fingerprint: Fingerprint,
}

/// An identity that a stream was sent.
#[derive(Clone, Debug)]
pub struct Served {
    /// The WorkloadIdentity.
    pub identity: Arc<IdentitySpec>,
    /// Since when.
    pub since: Instant,
    /// The newest X509-SVID issued for it on this stream.
    pub issued: Option<Issuance>,
}

/// One open stream, as others may look at it.
#[derive(Debug)]
pub struct StreamRecord {
    /// The uid of its pod.
    pub pod_uid: String,
    /// Its session within the pod.
    pub session: String,
    /// When it was opened.
    pub opened: Instant,
    /// From where it came, as far as that is known.
    pub address: Option<IpAddr>,
    /// Its agent.
    pub agent: AgentInfo,
    /// The bundles it was sent, and what its agent acknowledged.
    pub acks: AckRecord,
    /// What its workload can use, as its agent says.
    pub receipts: ReceiptRecord,
    served: Mutex<Vec<Served>>,
    /// Until when its agent may use what it was issued.
    in_use_until: Mutex<Option<Timestamp>>,
}

impl StreamRecord {
    /// Of a stream that was sent nothing yet.
    #[must_use]
    pub fn new(pod_uid: &str, session: &str, address: Option<IpAddr>, agent: AgentInfo) -> Self {
        let acks = AckRecord::new(agent.can(countersign_proto::issuer::ACK));
        let receipts = ReceiptRecord::new(agent.can(countersign_proto::issuer::RECEIPT));
        Self {
            pod_uid: pod_uid.to_owned(),
            session: session.to_owned(),
            opened: Instant::now(),
            address,
            agent,
            acks,
            receipts,
            served: Mutex::default(),
            in_use_until: Mutex::default(),
        }
    }

    /// Its agent may use something until then that it had before, or that it is issued now.
    pub fn set_in_use_until(&self, until: Timestamp) {
        let mut known = self.in_use_until.lock();
        *known = Some(known.map_or(until, |known| known.max(until)));
    }

    /// Until when its agent may use what it was issued; `None`: it was issued nothing.
    #[must_use]
    pub fn in_use_until(&self) -> Option<Timestamp> {
        *self.in_use_until.lock()
    }

    /// The stream was sent these identities, and no others. What was issued for those that stay is kept.
    pub fn set_served<'a>(&self, identities: impl Iterator<Item = &'a Arc<IdentitySpec>>) {
        let mut served = self.served.lock();
        let next = identities.map(|identity| {
            let old = served.iter().find(|old| old.identity.uid == identity.uid);
            let (since, issued) = old.map_or_else(|| (Instant::now(), None), |old| (old.since, old.issued));
            Served { identity: Arc::clone(identity), since, issued }
        });
        *served = next.collect();
    }

    /// A credential was issued. Of X509-SVIDs the newest of each identity is kept.
    pub fn issued(&self, record: &IssuanceRecord<'_>) {
        self.set_in_use_until(record.expires_at);
        let Some(fingerprint) = record.fingerprint else { return };
        let mut served = self.served.lock();
        if let Some(one) = served.iter_mut().find(|one| one.identity.uid == record.rule.uid) {
            one.issued = Some(Issuance { at: record.issued_at, not_after: record.expires_at, fingerprint });
        }
    }

    /// The identities it was sent.
    #[must_use]
    pub fn served(&self) -> Vec<Served> {
        self.served.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::AgentInfo;

    #[test]
    fn of_what_an_agent_says_only_a_bounded_part_is_kept() {
        let info = AgentInfo::new(&"9".repeat(1000), &vec!["x".repeat(1000); 1000]);
        assert_eq!(info.version.len(), 32);
        assert_eq!((info.capabilities.len(), info.capabilities[0].len()), (16, 64));
    }
}
