//! What is handed out of a remote trust domain, until when, and what to report about it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Remote;
use super::decide::Verdict;
use super::endpoint::Endpoint;
use super::flag::Flag;
use super::schedule::plus;
use super::stored::{Kept, Origin, StoredRemote};
use crate::bundle::Bundle;
use crate::x509::CaCertificate;

/// The end of a bundle in a TrustDomain is announced at least so long before; of one that lives longer than ten times that, a
/// tenth of its life before.
const EXPIRY_NOTICE: Duration = Duration::from_secs(24 * 3600);

/// What is handed out of a remote trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The bundle. Its sequence is [`StoredRemote::revision`]. Without keys it trusts nothing, which is not the same as `None`:
    /// that there is no bundle to hand out.
    pub bundle: Option<Bundle>,
    /// The next moment after `now` at which this, or a flag, changes by time alone. `None`: never.
    pub next_change: Option<Timestamp>,
}

/// What is handed out of `remote` at `now`: the last good bundle. One that was polled is trusted until `maxStale` after it was
/// confirmed last; one from the TrustDomain for as long as the TrustDomain has one, until its last certificate ends. What was
/// polled is never replaced by an older one from the TrustDomain.
pub fn trusted(remote: &Remote<'_>, now: Timestamp) -> Trusted {
    let kept = remote.kept().filter(|_| remote.untrusted(now).is_none());
    Trusted { bundle: kept.map(|kept| kept.bundle.clone()), next_change: remote.next_change(now) }
}

/// Until when what is handed out of `remote` at `now` is trusted, unless it is confirmed or replaced before. `None`: nothing is
/// handed out, or it has no end.
pub fn trusted_until(remote: &Remote<'_>, now: Timestamp) -> Option<Timestamp> {
    let kept = remote.kept().filter(|_| remote.untrusted(now).is_none())?;
    match kept.origin {
        Origin::Polled => Some(remote.stale_at(kept)),
        Origin::Bootstrap => Some(last_to_end(&kept.bundle)?.not_after()),
    }
}

impl<'a> Remote<'a> {
    fn kept(&self) -> Option<&'a Kept> {
        self.record().and_then(|stored| stored.kept.as_ref())
    }

    /// Why nothing is handed out.
    fn untrusted(&self, now: Timestamp) -> Option<Flag> {
        if self.is_own() {
            return Some(Flag::OwnTrustDomain);
        }
        let Some(kept) = self.kept() else { return Some(Flag::NotBootstrapped) };
        match kept.origin {
            Origin::Polled => {
                let since = self.stale_at(kept);
                (now >= since).then_some(Flag::Stale { since })
            }
            Origin::Bootstrap if self.spec.bootstrap().is_none() => Some(Flag::BootstrapRemoved),
            Origin::Bootstrap => {
                let at = last_to_end(&kept.bundle)?.not_after();
                (now > at).then_some(Flag::BootstrapExpired { at })
            }
        }
    }

    /// The bundle that verifies a self-serving endpoint (SPIFFE Federation, section 5.2.2.4): the newest, also if it is stale,
    /// since otherwise a long outage would require manual intervention. `None` if none of its certificates is valid any more, or
    /// if it came from a TrustDomain that has none any more.
    pub(super) fn endpoint_anchors(&self, now: Timestamp) -> Option<&'a Bundle> {
        let kept = self.kept().filter(|kept| kept.origin == Origin::Polled || self.spec.bootstrap().is_some())?;
        last_to_end(&kept.bundle).is_some_and(|last| now <= last.not_after()).then_some(&kept.bundle)
    }

    /// Everything to report at `now`.
    pub(super) fn flags(&self, now: Timestamp) -> Vec<Flag> {
        let mut flags: Vec<Flag> = self.untrusted(now).into_iter().collect();
        if self.is_own() {
            return flags;
        }
        let empty = StoredRemote::empty(self.spec.trust_domain());
        let stored = self.record().unwrap_or(&empty);
        match Verdict::of(self.spec, stored) {
            Verdict::Refused(refusal) => flags.push(Flag::BootstrapRefused(refusal)),
            Verdict::NotNewer { offered, highest } => flags.push(Flag::BootstrapNotNewer { offered, highest }),
            Verdict::Taken { replace: true } => flags.push(Flag::BootstrapReplaceSet),
            Verdict::Taken { replace: false } | Verdict::Absent | Verdict::Known(_) | Verdict::Take(..) => {}
        }
        let is_self_serving = |endpoint: &Endpoint| endpoint.is_self_serving(self.spec.trust_domain());
        if self.spec.endpoint().is_some_and(is_self_serving) && self.endpoint_anchors(now).is_none() {
            flags.push(Flag::EndpointNotVerifiable);
        }
        flags.extend(stored.failure.map(Flag::PollFailing));
        if let Some(kept) = &stored.kept {
            flags.extend(self.flags_of_kept(kept, now));
        }
        flags
    }

    fn flags_of_kept(&self, kept: &Kept, now: Timestamp) -> Vec<Flag> {
        let is_without_keys = kept.bundle.is_without_keys();
        let is_from_spec = kept.origin == Origin::Bootstrap && self.spec.bootstrap().is_some();
        let life = BootstrapLife::of(kept).filter(|_| is_from_spec);
        let expiring = life.filter(|life| (life.expiring_from..=life.end).contains(&now));
        let is_without_end = is_from_spec && life.is_none() && !is_without_keys;
        let flags = [
            expiring.map(|life| Flag::BootstrapExpiring { at: life.end }),
            is_without_end.then_some(Flag::BootstrapWithoutEnd),
            kept.sequence.is_none().then_some(Flag::SequenceMissing),
            kept.is_sequence_reused.then_some(Flag::SequenceReused),
            is_without_keys.then_some(Flag::TrustsNothing),
            (kept.dropped > 0).then_some(Flag::KeysDropped { count: kept.dropped }),
        ];
        flags.into_iter().flatten().collect()
    }

    /// The next moment after `now` at which [`Self::flags`] or what is handed out changes by time alone.
    pub(super) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let kept = self.kept().filter(|_| !self.is_own())?;
        let stale = (kept.origin == Origin::Polled).then(|| self.stale_at(kept));
        let expiring = BootstrapLife::of(kept).map(|life| life.expiring_from);
        // It is valid at its end too.
        let ended = last_to_end(&kept.bundle).map(|last| plus(last.not_after(), Duration::from_nanos(1)));
        [stale, expiring, ended].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn stale_at(&self, kept: &Kept) -> Timestamp {
        plus(kept.confirmed_at, self.spec.max_stale())
    }
}

/// The life of a bundle from the TrustDomain: that of its certificate that ends last.
#[derive(Clone, Copy)]
struct BootstrapLife {
    expiring_from: Timestamp,
    end: Timestamp,
}

impl BootstrapLife {
    /// `None` for one that was polled, and for one without certificates.
    fn of(kept: &Kept) -> Option<Self> {
        let last = last_to_end(&kept.bundle).filter(|_| kept.origin == Origin::Bootstrap)?;
        let life = Duration::try_from(last.not_after().duration_since(last.not_before())).unwrap_or(Duration::ZERO);
        let notice = SignedDuration::try_from((life / 10).max(EXPIRY_NOTICE)).unwrap_or(SignedDuration::MAX);
        let expiring_from = last.not_after().saturating_sub(notice).unwrap_or(last.not_after());
        Some(Self { expiring_from, end: last.not_after() })
    }
}

fn last_to_end(bundle: &Bundle) -> Option<&CaCertificate> {
    bundle.x509_authorities.iter().max_by_key(|authority| authority.not_after())
}
