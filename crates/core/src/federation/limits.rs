//! How much of remote trust domains is kept and handed out: known keys alone, and a bounded number of bytes. What exceeds is
//! dropped in a fixed order, so that every replica drops the same.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::bundle::{Bundle, jwt_key_length, longest_json_without_keys, wit_key_length, x509_key_length};
use crate::id::TrustDomain;
use crate::x509::CaCertificate;

/// The most bytes that are kept of a remote trust domain's bundle, as its document.
pub const MAX_KEPT_LENGTH: usize = 128 * 1024;

/// The most bytes of remote trust domains' bundles, as their documents, that one stream receives.
pub const MAX_STREAM_LENGTH: usize = 512 * 1024;

/// A bundle in the one form in which it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised {
    /// Its keys in a fixed order, each once; its document has at most [`MAX_KEPT_LENGTH`] bytes.
    pub bundle: Bundle,
    /// How many keys exceeded the limit.
    pub dropped: usize,
}

/// Puts the keys of a bundle in order and limits its length. X.509 authorities come first, those that end last before the
/// others, then by key id and content; then JWT keys and WIT keys by key id. From the end of each of the lists, keys are dropped until
/// the bundle fits: X.509 authorities that end first, and keys for tokens, which have no end, of the greatest key ids. No kind loses
/// a key while it takes at most its share of the room, which is the same for each kind present, so that many keys of one kind
/// do not push out another.
pub fn normalise(mut bundle: Bundle) -> Normalised {
    bundle.x509_authorities.sort_by(|one, other| x509_rank(one).cmp(&x509_rank(other)));
    bundle.x509_authorities.dedup();
    bundle.jwt_authorities.sort_by(|one, other| one.kid().cmp(other.kid()));
    bundle.wit_authorities.sort_by(|one, other| one.kid().cmp(other.kid()));
    let x509: Vec<usize> = bundle.x509_authorities.iter().map(x509_key_length).collect();
    let jwt: Vec<usize> = bundle.jwt_authorities.iter().map(jwt_key_length).collect();
    let wit: Vec<usize> = bundle.wit_authorities.iter().map(wit_key_length).collect();
    let room = MAX_KEPT_LENGTH.saturating_sub(longest_json_without_keys());
    let kinds = [&x509, &jwt, &wit];
    let total: usize = kinds.iter().flat_map(|lengths| lengths.iter()).sum();
    // With one kind it has all the room; of two each has half at least.
    let share = room / kinds.iter().filter(|lengths| !lengths.is_empty()).count().max(2);
    let kept = kinds.map(|lengths| {
        let others = total - lengths.iter().sum::<usize>();
        fitting(lengths, share.max(room.saturating_sub(others)))
    });
    let dropped = kinds.iter().zip(kept).map(|(lengths, kept)| lengths.len() - kept).sum();
    bundle.x509_authorities.truncate(kept[0]);
    bundle.jwt_authorities.truncate(kept[1]);
    bundle.wit_authorities.truncate(kept[2]);
    Normalised { bundle, dropped }
}

/// Which of these remote trust domains' bundles, by the lengths of their documents in bytes, one stream receives: at most
/// [`MAX_STREAM_LENGTH`] together. The longest are dropped first, of two that are as long the one whose name comes later: so a peer
/// with a large bundle cannot push out one with a small bundle. Own trust domains are not among them, so they take no room.
pub fn fitting_stream<'a>(lengths: impl IntoIterator<Item = (usize, &'a TrustDomain)>) -> BTreeSet<&'a TrustDomain> {
    let mut remote: Vec<_> = lengths.into_iter().collect();
    remote.sort();
    let lengths: Vec<usize> = remote.iter().map(|(length, _)| *length).collect();
    let kept = fitting(&lengths, MAX_STREAM_LENGTH);
    remote.into_iter().take(kept).map(|(_, trust_domain)| trust_domain).collect()
}

/// The less, the longer it is kept.
fn x509_rank(authority: &CaCertificate) -> impl Ord {
    (Reverse(authority.not_after()), authority.subject_key_id(), authority.der())
}

/// How many of the first `lengths` fit.
fn fitting(lengths: &[usize], room: usize) -> usize {
    let totals = lengths.iter().scan(0_usize, |total, length| {
        *total = total.saturating_add(*length);
        Some(*total)
    });
    totals.take_while(|total| *total <= room).count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use proptest::test_runner::Config;

    use super::super::fixtures::{bundle, certificate, domain, jwt_key};
    use super::*;
    use crate::jwt::JwtVerificationKey;

    fn certificates(count: i64) -> Vec<CaCertificate> {
        (1..=count).map(|days| certificate("peer.example", 1, days)).collect()
    }

    fn jwt_keys(count: usize) -> Vec<JwtVerificationKey> {
        (0..count).map(|number| jwt_key(&format!("key-{number:04}"))).collect()
    }

    fn with_keys(x509: &[CaCertificate], jwt: &[JwtVerificationKey]) -> Bundle {
        Bundle { x509_authorities: x509.to_vec(), jwt_authorities: jwt.to_vec(), ..bundle("peer.example", &[], &[]) }
    }

    #[test]
    fn keys_are_kept_in_one_order_whatever_order_they_came_in() {
        let (x509, jwt) = (certificates(3), jwt_keys(3));
        let one = normalise(with_keys(&x509, &jwt));
        let reversed: Vec<_> = x509.iter().rev().cloned().collect();
        let other = normalise(with_keys(&reversed, &jwt.iter().rev().cloned().collect::<Vec<_>>()));
        assert_eq!(one, other);
        assert_eq!((one.bundle.x509_authorities, one.bundle.jwt_authorities, one.dropped), (reversed, jwt, 0));
    }

    #[test]
    fn authorities_that_end_together_are_in_the_order_of_their_key_ids() {
        let together: Vec<_> = (0..8).map(|number| certificate("peer.example", number, 1)).collect();
        let kept = normalise(with_keys(&together, &[])).bundle.x509_authorities;
        assert!(kept.is_sorted_by_key(|authority| authority.subject_key_id().to_vec()));
    }

    #[test]
    fn a_certificate_that_comes_twice_is_kept_once_and_not_counted_as_dropped() {
        let one = certificate("peer.example", 1, 1);
        let kept = normalise(with_keys(&[one.clone(), one.clone()], &[]));
        assert_eq!((kept.bundle.x509_authorities, kept.dropped), (vec![one], 0));
    }

    #[test]
    fn of_too_many_authorities_those_that_end_first_are_dropped() {
        let x509 = certificates(250);
        let kept = normalise(with_keys(&x509, &[]));
        let count = kept.bundle.x509_authorities.len();
        assert!(kept.dropped > 0 && count + kept.dropped == 250, "{count} kept, {} dropped", kept.dropped);
        let longest: Vec<_> = x509.iter().rev().take(count).cloned().collect();
        assert_eq!(kept.bundle.x509_authorities, longest);
        // Not one more would fit.
        let one_more: Vec<_> = x509.iter().rev().take(count + 1).cloned().collect();
        assert!(kept.bundle.longest_json() <= MAX_KEPT_LENGTH);
        assert!(with_keys(&one_more, &[]).longest_json() > MAX_KEPT_LENGTH);
    }

    #[test]
    fn of_too_many_jwt_keys_those_of_the_greatest_key_ids_are_dropped() {
        let jwt = jwt_keys(1_000);
        let kept = normalise(with_keys(&[], &jwt));
        let count = kept.bundle.jwt_authorities.len();
        assert!(kept.dropped > 0 && count + kept.dropped == 1_000);
        assert_eq!(kept.bundle.jwt_authorities, jwt[..count]);
        assert!(kept.bundle.longest_json() <= MAX_KEPT_LENGTH);
    }

    #[test]
    fn many_keys_of_one_kind_do_not_push_out_the_other() {
        let few = normalise(with_keys(&certificates(3), &jwt_keys(1_000))).bundle;
        assert_eq!(few.x509_authorities.len(), 3);
        assert!(few.longest_json() > MAX_KEPT_LENGTH - 1_024, "the room that one leaves, the other takes");
        let few = normalise(with_keys(&certificates(250), &jwt_keys(3))).bundle;
        assert_eq!(few.jwt_authorities.len(), 3);
        assert!(few.longest_json() > MAX_KEPT_LENGTH - 1_024);
        let both = normalise(with_keys(&certificates(250), &jwt_keys(1_000))).bundle;
        let x509 = with_keys(&both.x509_authorities, &[]).longest_json();
        let jwt = with_keys(&[], &both.jwt_authorities).longest_json();
        assert!(x509.abs_diff(jwt) < 1_024, "each has half: {x509} and {jwt}");
    }

    #[test]
    fn sequence_and_hint_do_not_decide_what_is_kept() {
        let (x509, jwt) = (certificates(250), jwt_keys(10));
        let short = Bundle { sequence: 0, refresh_hint: Duration::ZERO, ..with_keys(&x509, &jwt) };
        let long = Bundle { sequence: u64::MAX, refresh_hint: Duration::from_secs(u64::MAX), ..short.clone() };
        let (short, long) = (normalise(short), normalise(long));
        assert_eq!(short.bundle.x509_authorities, long.bundle.x509_authorities);
        assert_eq!(
            long.bundle.to_json().len() + 10,
            long.bundle.longest_json() + 10 - 1,
            "a comma too many, and no more"
        );
        assert!(long.bundle.to_json().len() <= MAX_KEPT_LENGTH);
    }

    /// The names of those that fit, of bundles of so many KiB.
    fn fitting_of(kib: &[(&str, usize)]) -> Vec<String> {
        let all: Vec<_> = kib.iter().map(|(name, kib)| (kib * 1024, domain(name))).collect();
        fitting_stream(all.iter().map(|(length, name)| (*length, name))).into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stream_receives_everything_that_fits() {
        assert_eq!(fitting_of(&[("a", 100), ("b", 112), ("c", 300)]), ["a", "b", "c"]);
    }

    #[test]
    fn of_too_much_for_a_stream_the_longest_bundles_are_dropped() {
        assert_eq!(fitting_of(&[("a", 128), ("b", 1), ("c", 400), ("d", 100)]), ["a", "b", "d"]);
    }

    #[test]
    fn of_bundles_that_are_as_long_those_with_later_names_are_dropped() {
        let all = ["f", "e", "d", "c", "b", "a"].map(|name| (name, 125));
        assert_eq!(fitting_of(&all), ["a", "b", "c", "d"]);
    }

    proptest! {
        #![proptest_config(Config::with_cases(48))]

        // Whatever comes: within the limit, only what was there, and the same when done again or in another order.
        #[test]
        fn normalising_is_idempotent_deterministic_and_within_the_limit(
            x509 in vec(1_i64..400, 0..260), jwt in vec(0_usize..2_000, 0..900), shift in 0_usize..100,
        ) {
            let x509: Vec<_> = x509.into_iter().map(|days| certificate("peer.example", 1, days)).collect();
            let jwt: BTreeSet<usize> = jwt.into_iter().collect();
            let jwt: Vec<_> = jwt.into_iter().map(|number| jwt_key(&format!("{number}"))).collect();
            let given = with_keys(&x509, &jwt);
            let once = normalise(given.clone());
            prop_assert!(once.bundle.longest_json() <= MAX_KEPT_LENGTH);
            prop_assert!(once.bundle.to_json().len() <= MAX_KEPT_LENGTH);
            prop_assert!(once.bundle.x509_authorities.iter().all(|kept| x509.contains(kept)));
            prop_assert!(once.bundle.jwt_authorities.iter().all(|kept| jwt.contains(kept)));
            prop_assert!(once.dropped == 0 || given.longest_json() > MAX_KEPT_LENGTH);
            prop_assert_eq!(&normalise(once.bundle.clone()), &Normalised { dropped: 0, ..once.clone() });
            let mut turned = given;
            let (a, b) = (turned.x509_authorities.len().max(1), turned.jwt_authorities.len().max(1));
            turned.x509_authorities.rotate_left(shift % a);
            turned.jwt_authorities.rotate_left(shift % b);
            prop_assert_eq!(normalise(turned), once);
        }
    }
}
