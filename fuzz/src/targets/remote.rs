//! Remote trust domains: what is stored of them, documents in a TrustDomain, and documents of their endpoints.

use std::collections::BTreeSet;

use countersign_core::bundle::Bundle;
use countersign_core::federation::{
    Decision, Endpoint, FetchError, Fetched, Flag, LONGEST_INTERVAL, MAX_KEPT_LENGTH, MAX_STORED_LENGTH, Normalised,
    Observation, PollOutcome, Profile, Remote, RemoteSpec, SHORTEST_INTERVAL, Stored, StoredRemote, decide, normalise,
    poll_target, trusted,
};
use countersign_core::id::TrustDomain;

use crate::known::{DOMAIN, KNOWN, now, trust_domain};

/// Bit of the first byte: the endpoint is authenticated by `https_spiffe`.
pub(crate) const SPIFFE: u8 = 1;
/// Bit of the first byte: the document is that of the TrustDomain, which is otherwise the known one.
pub(crate) const BOOTSTRAP: u8 = 2;
/// Bit of the first byte: the document of the TrustDomain replaces everything before.
pub(crate) const REPLACE: u8 = 4;

/// The cluster is the authority of no trust domain.
static OWN: BTreeSet<TrustDomain> = BTreeSet::new();

/// What is stored is read as it was written, or is as if absent. Of documents nothing older replaces what is newer, what is
/// refused changes nothing, and what is decided can be stored, is bounded, and trusts nothing that was in no document. After
/// the first byte follow what is stored, in one line that is empty where nothing is, and a document.
pub(crate) fn remote(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (line, document) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let read = (!line.is_empty()).then(|| StoredRemote::from_bytes(&trust_domain(), line));
    let stored = match &read {
        None => Stored::Absent,
        Some(Ok(stored)) => {
            assert!(line.len() <= MAX_STORED_LENGTH);
            assert_eq!(stored.to_bytes(), line, "it was read as something else");
            Stored::Read(stored)
        }
        Some(Err(error)) => Stored::Unreadable(error),
    };
    let spec = spec(*kind, document);
    let before = Remote { spec: &spec, own: &OWN, stored };
    let first = decide(&before, None, now(), 0.5);
    holds(&before, &first);
    if let Stored::Read(stored) = stored
        && kind & REPLACE == 0
    {
        assert!(first.stored.sequence() >= stored.sequence(), "an older document of the TrustDomain was taken");
    }
    polled(&spec, &first.stored, document);
}

/// What a TrustDomain of the known trust domain says.
pub(crate) fn spec(kind: u8, document: &[u8]) -> RemoteSpec {
    let id = format!("spiffe://{DOMAIN}/bundle-endpoint").parse().unwrap();
    let web = Profile::HttpsWeb { roots: Vec::new() };
    let profile = if kind & SPIFFE == 0 { web } else { Profile::HttpsSpiffe { id } };
    let endpoint = Endpoint { url: "https://example.org/bundle".parse().unwrap(), profile };
    let known = KNOWN.bundle.to_json();
    let bootstrap = if kind & BOOTSTRAP == 0 { &known } else { document };
    RemoteSpec::new(trust_domain(), Some(endpoint)).with_bootstrap(bootstrap, kind & REPLACE != 0)
}

/// What becomes of it with a poll. `None`: there is nothing to poll.
pub(crate) fn poll(
    spec: &RemoteSpec,
    stored: Option<&StoredRemote>,
    result: Result<Vec<u8>, FetchError>,
) -> Option<Decision> {
    let remote = Remote { spec, own: &OWN, stored: stored.map_or(Stored::Absent, Stored::Read) };
    let target = poll_target(&remote, now())?;
    let server_id = match &target.endpoint.profile {
        Profile::HttpsWeb { .. } | Profile::WimseDiscovery { .. } => None,
        Profile::HttpsSpiffe { id } => Some(id.clone()),
    };
    let result = result.map(|document| Fetched { document, server_id });
    Some(decide(&remote, Some(&Observation { target, result }), now(), 0.5))
}

/// What holds of a poll that brings `document`.
fn polled(spec: &RemoteSpec, stored: &StoredRemote, document: &[u8]) {
    let Some(decision) = poll(spec, Some(stored), Ok(document.to_vec())) else {
        return;
    };
    let before = Remote { spec, own: &OWN, stored: Stored::Read(stored) };
    holds(&before, &decision);
    let after = Remote { stored: Stored::Read(&decision.stored), ..before };
    let (was, is) = (trusted(&before, now()).bundle, trusted(&after, now()).bundle);
    match decision.poll.expect("there was a poll") {
        PollOutcome::Updated | PollOutcome::Confirmed => {
            let offered = Bundle::parse(&trust_domain(), document).expect("a document that is no bundle was taken");
            // A `maxStale` of a day has not passed since this moment.
            let is = is.expect("it was confirmed");
            assert!(is.x509_authorities.iter().all(|authority| offered.x509_authorities.contains(authority)));
            assert!(is.jwt_authorities.iter().all(|key| offered.jwt_authorities.contains(key)));
            if let (Some(sequence), Some(earlier)) = (decision.stored.sequence(), stored.sequence()) {
                assert!(sequence >= earlier, "an older document was taken");
            }
        }
        PollOutcome::Refused(refusal) => {
            assert_eq!(is, was, "what was refused changed what is trusted");
            assert!(refusal.to_string().len() <= 256);
        }
        PollOutcome::Outdated => panic!("the poll began with what is kept"),
    }
}

/// What holds of every decision about `remote`.
fn holds(remote: &Remote<'_>, decision: &Decision) {
    let stored = decision.stored.to_bytes();
    assert!(stored.len() <= MAX_STORED_LENGTH && !stored.contains(&b'\n'));
    assert_eq!(StoredRemote::from_bytes(&trust_domain(), &stored).as_ref(), Ok(&decision.stored));
    let after = Remote { stored: Stored::Read(&decision.stored), ..*remote };
    assert!(!decide(&after, None, now(), 0.5).is_changed, "the same decision again is another one");
    let bundle = trusted(&after, now()).bundle;
    assert_eq!(bundle.is_none(), decision.flags.iter().any(Flag::ends_trust));
    assert!(decision.flags.iter().all(|flag| flag.to_string().len() <= 1024));
    if let Some(bundle) = bundle {
        assert!(bundle.to_json().len() <= MAX_KEPT_LENGTH);
        assert_eq!(Some(bundle.sequence), decision.stored.revision());
        assert_eq!(normalise(bundle.clone()), Normalised { bundle, dropped: 0 });
    }
    if let Some(next) = decision.next_poll {
        assert!(next <= now() + LONGEST_INTERVAL);
        assert!(decision.poll.is_none() || next >= now() + SHORTEST_INTERVAL);
    }
}
