//! What a candidate for the lease tells of it, and what it forgets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use countersign_core::lease::{Candidate, LeaseConfig, MonotonicTime, Record};
use jiff::Timestamp;

fn at(second: u64) -> MonotonicTime {
    MonotonicTime::since_start(Duration::from_secs(second))
}

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn held_by(holder: &str) -> Record {
    let (acquired, renewed) = (wall(1), wall(2));
    Record { holder: holder.to_owned(), duration: Duration::from_secs(15), acquired, renewed, transitions: 5 }
}

fn candidate() -> Candidate {
    Candidate::new("a".to_owned(), LeaseConfig::DEFAULT)
}

#[test]
fn a_moment_is_so_long_before_a_later_one_and_not_at_all_before_an_earlier_one() {
    assert_eq!(at(5).until(at(8)), Duration::from_secs(3));
    assert_eq!(at(8).until(at(5)), Duration::ZERO);
}

#[test]
fn a_candidate_tells_its_own_id_and_the_holder_it_saw() {
    let mut candidate = candidate();
    assert_eq!((candidate.id(), candidate.holder()), ("a", None));
    candidate.observe(Some(held_by("b")), at(1));
    assert_eq!((candidate.id(), candidate.holder()), ("a", Some("b")));
    candidate.observe(Some(held_by("")), at(2));
    assert_eq!(candidate.holder(), None, "a lease that was given up has no holder");
}

#[test]
fn a_lease_that_was_given_up_and_vanished_is_forgotten() {
    let mut candidate = candidate();
    candidate.observe(Some(held_by("")), at(1));
    assert_eq!(candidate.record(wall(9)).transitions, 6);
    candidate.observe(None, at(2));
    assert_eq!(candidate.record(wall(9)).transitions, 0);
}

#[test]
fn a_lease_is_given_up_as_of_now() {
    let mut candidate = candidate();
    candidate.wrote(held_by("a"), at(1));
    let released = candidate.release(wall(9)).unwrap();
    assert_eq!((released.holder.as_str(), released.renewed, released.acquired), ("", wall(9), wall(1)));
}
