//! Journals of authorities, as stored in Secrets.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::journal::{
    AuthorityPolicy, AuthoritySlot, Expected, Format, Journal, Kind, LocalMaker, MAX_LENGTH, Receipts,
    RotationRequests, State, UNANNOUNCED_NOTICE, next,
};
use countersign_core::key::{KeyRef, KeyType};
use futures::FutureExt as _;
use jiff::Timestamp;
use serde_json::json;

use crate::known::{now, trust_domain};

/// The cluster whose journals are accepted.
pub(crate) const CLUSTER: &str = "11111111-2222-3333-4444-555555555555";

/// The policy with which a journal is continued.
pub(crate) const POLICY: AuthorityPolicy = AuthorityPolicy {
    ca_life: Duration::from_secs(86_400),
    longest_svid_life: Duration::from_secs(3600),
    refresh_hint: Duration::from_secs(300),
    max_delay: Duration::from_secs(1800),
    taint_max_delay: Duration::from_secs(600),
    x509_key_type: KeyType::EcP256,
    jwt_key_type: KeyType::EcP256,
    wit_key_type: None,
};

/// An accepted journal can be written and read again unchanged, belongs to its place, and can be continued: due changes are
/// made, after which it can still be read and its sequence has grown. First byte: the lowest bit selects whether the
/// payload alone follows and is put into an envelope; the next one, whether it is the journal of the control plane; the
/// third, whether that envelope is of format 2.
pub(crate) fn journal(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let format = if kind & 4 == 0 { Format::V1 } else { Format::V2 };
    let stored = if kind & 1 == 1 { envelope(format, rest) } else { rest.to_vec() };
    let domain = trust_domain();
    let trust_domain = (kind & 2 == 0).then_some(&domain);
    let expected = Expected { cluster: CLUSTER, trust_domain, published_sequence: Some(3), now: now() };
    let Ok(journal) = Journal::from_bytes(&stored, &expected) else {
        return;
    };
    assert!(stored.len() <= MAX_LENGTH);
    assert_eq!((journal.cluster(), journal.trust_domain()), (CLUSTER, trust_domain));
    assert!(journal.sequence(now()) >= 3);
    let requests = RotationRequests::default();
    let written = journal.to_bytes().unwrap();
    let again = Journal::from_bytes(&written, &expected).expect("what was written can be read");
    assert_eq!(again.to_bytes().unwrap(), written);
    assert!(journal.next_change(&POLICY, &requests, now()).is_none_or(|change| change > now()));
    let bundle = journal.bundle(POLICY.refresh_hint, now());
    assert_eq!(bundle.is_some(), trust_domain.is_some());
    let anchors = journal.slots(Kind::X509).iter().filter_map(|slot| slot.authority.x509());
    assert!(journal.roots(now()).len() <= anchors.map(|authority| authority.trust_anchors().len()).sum());

    let plan = next(&journal, &POLICY, &requests, &Receipts::default(), now());
    let after = journal
        .apply(&plan, &POLICY, &LocalMaker, now())
        .now_or_never()
        .expect("it waits for nothing")
        .expect("what is due can be done");
    if plan.is_empty() {
        assert_eq!(after.sequence(now()), journal.sequence(now()));
    } else if journal.sequence(now()) < u64::MAX {
        assert!(after.sequence(now()) > journal.sequence(now()));
    }
    assert!(!has_keys(&journal, Kind::X509) || signs_soon(&after, Kind::X509));
    assert!(!has_keys(&journal, Kind::Jwt) || signs_soon(&after, Kind::Jwt) == trust_domain.is_some());
    Journal::from_bytes(&after.to_bytes().unwrap(), &expected).expect("what goes on can be read");
}

/// A key that is elsewhere signs nothing here.
fn has_keys(journal: &Journal, kind: Kind) -> bool {
    journal.slots(kind).iter().all(|slot| matches!(slot.authority.key(), KeyRef::Stored(_)))
}

/// One signs now or, where none did, once it was published for a short while. One that was prepared in the future of a clock
/// that is behind waits until that has caught up.
fn signs_soon(journal: &Journal, kind: Kind) -> bool {
    let signs = |at: Timestamp| match kind {
        Kind::X509 => journal.active_x509(at).is_some(),
        Kind::Jwt => journal.active_jwt(at).is_some(),
        _ => false,
    };
    let is_ahead = |slot: &AuthoritySlot| slot.state(now()) == State::Prepared && slot.times.prepared_at > now();
    (0..=UNANNOUNCED_NOTICE.as_secs()).any(|seconds| signs(now() + Duration::from_secs(seconds)))
        || journal.slots(kind).iter().any(is_ahead)
}

fn envelope(format: Format, payload: &[u8]) -> Vec<u8> {
    let checksum: String = digest(&SHA256, payload).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let envelope = json!({
        "format": format.name(),
        "protection": "none",
        "checksum": format!("sha256:{checksum}"),
        "payload": STANDARD.encode(payload),
    });
    envelope.to_string().into_bytes()
}
