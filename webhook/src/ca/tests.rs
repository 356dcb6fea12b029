use std::time::Duration;

use super::*;

const NAME: &str = "countersign-webhook.countersign-system.svc";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const PROPAGATION_DELAY: Duration = Duration::from_secs(2 * 3600);

fn long() -> ValidityPeriods {
    ValidityPeriods::new(DAY * 90, DAY, PROPAGATION_DELAY).unwrap()
}

fn short() -> ValidityPeriods {
    ValidityPeriods::new(SECOND * 40, SECOND * 10, SECOND * 6).unwrap()
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn issued(state: &CaState, now: Timestamp) -> IssuedCertificate {
    state.issue(&[NAME.to_owned()], now).unwrap()
}

fn made(periods: ValidityPeriods) -> CaState {
    let plan = next(&CaState::default(), periods, start());
    assert_eq!(plan, Plan::Add { signs_from: start() });
    CaState::default().after(&plan, periods, start()).unwrap()
}

/// Applies plans until nothing is left to do.
fn settled(mut state: CaState, periods: ValidityPeriods, now: Timestamp) -> CaState {
    loop {
        match next(&state, periods, now) {
            Plan::Keep => return state,
            plan => state = state.after(&plan, periods, now).unwrap(),
        }
    }
}

#[test]
fn a_successor_is_trusted_before_it_signs_and_its_predecessor_until_nothing_of_it_is_left() {
    let state = made(long());
    assert_eq!(next(&state, long(), start() + DAY * 44), Plan::Keep);
    let half = start() + DAY * 45;
    let plan = next(&state, long(), half);
    assert_eq!(plan, Plan::Add { signs_from: half + PROPAGATION_DELAY });
    let state = state.after(&plan, long(), half).unwrap();
    assert_eq!(state.bundle().matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(state.signing(half).unwrap(), &state.authorities[0]);
    assert_eq!(next(&state, long(), half), Plan::Keep);
    let switch = half + PROPAGATION_DELAY;
    assert_eq!(state.signing(switch).unwrap(), &state.authorities[1]);
    assert_eq!(next(&state, long(), switch + DAY - SECOND), Plan::Keep);
    assert_eq!(next(&state, long(), switch + DAY), Plan::Drop { indices: vec![0] });
    let after = settled(state.clone(), long(), switch + DAY);
    assert_eq!(after.authorities, state.authorities[1..]);
}

/// Two replicas, one of which reconciles rarely: their certificates are trusted at every moment of a year.
#[test]
fn what_any_replica_serves_is_always_in_the_bundle() {
    let mut state = made(long());
    let mut served = [issued(&state, start()).served, issued(&state, start()).served];
    let mut authorities = std::collections::BTreeSet::new();
    for round in 0..8 * 365 {
        let now = start() + HOUR * 3 * round;
        state = settled(state, long(), now);
        for (replica, served) in served.iter_mut().enumerate() {
            let reconciles = replica == 0 || round % 3 == 0;
            if reconciles && state.is_due(served, now) {
                *served = issued(&state, now).served;
            }
            served.verify(&state.bundle(), now).unwrap();
            authorities.insert(served.authority.clone());
        }
        assert!(state.authorities.len() <= 2);
    }
    assert_eq!(authorities.len(), 9, "an authority each 45 days");
}

/// Replicas with different flags run at the same time during a roll-out and a rollback.
#[test]
fn validity_periods_change_without_a_gap() {
    let mut state = made(long());
    let mut served = [issued(&state, start()).served, issued(&state, start()).served];
    for second in 0..400 {
        let now = start() + DAY + SECOND * second;
        // The one has short validity periods from 10 to 200, the other from 20 to 210.
        for (replica, served) in (0..).zip(&mut served) {
            let is_short = (10 + replica * 10..200 + replica * 10).contains(&second);
            let periods = if is_short { short() } else { long() };
            state = settled(state, periods, now);
            if state.is_due(served, now) {
                *served = issued(&state, now).served;
            }
        }
        for served in &served {
            served.verify(&state.bundle(), now).unwrap();
        }
        assert!(state.authorities.len() <= 4, "{}", state.authorities.len());
    }
    assert_eq!(state.signing(start() + DAY + SECOND * 400).unwrap().validity(), DAY * 90);
}

#[test]
fn an_expired_authority_is_replaced_at_once() {
    let state = made(long());
    let late = start() + DAY * 91;
    assert_eq!(next(&state, long(), late), Plan::Add { signs_from: late });
    assert!(state.issue(&[NAME.to_owned()], late).is_err());
    assert!(settled(state, long(), late).issue(&[NAME.to_owned()], late).is_ok());
}

#[test]
fn a_late_successor_signs_before_its_predecessor_no_longer_can() {
    let late = start() + DAY * 89 - HOUR;
    assert_eq!(next(&made(long()), long(), late), Plan::Add { signs_from: late + HOUR });
    let later = start() + DAY * 89 + HOUR;
    assert_eq!(next(&made(long()), long(), later), Plan::Add { signs_from: later });
}

#[test]
fn a_successor_whose_turn_has_not_come_signs_when_no_other_is_left() {
    let state = made(long()).after(&Plan::Add { signs_from: start() + DAY }, long(), start()).unwrap();
    let alone = state.after(&Plan::Drop { indices: vec![0] }, long(), start()).unwrap();
    assert_eq!(issued(&alone, start()).served.authority, alone.authorities[0].certificate);
}

#[test]
fn serving_certificates_are_due_at_half_their_life_or_when_the_authority_changes() {
    let state = made(long());
    let served = issued(&state, start()).served;
    assert!(!state.is_due(&served, start() + DAY / 2 - SECOND));
    assert!(state.is_due(&served, start() + DAY / 2));
    let half = start() + DAY * 45;
    let state = settled(state, long(), half);
    let served = issued(&state, half).served;
    assert!(!state.is_due(&served, half + PROPAGATION_DELAY - SECOND));
    assert!(state.is_due(&served, half + PROPAGATION_DELAY));
    // The Secret was deleted, and another replica made a new CA.
    assert!(made(long()).is_due(&served, half));
}

#[test]
fn the_next_reconciliation_is_at_the_next_event() {
    let state = made(long());
    let served = issued(&state, start()).served;
    assert_eq!(next_event(&state, long(), &served, start()), start() + DAY / 2);
    let half = start() + DAY * 45;
    let state = settled(state, long(), half);
    let served = issued(&state, half).served;
    assert_eq!(next_event(&state, long(), &served, half), half + PROPAGATION_DELAY);
    let served = issued(&state, half + PROPAGATION_DELAY + DAY * 3 / 4).served;
    assert_eq!(
        next_event(&state, long(), &served, half + PROPAGATION_DELAY + DAY * 3 / 4),
        half + PROPAGATION_DELAY + DAY
    );
}

#[test]
fn the_bundle_verifies_what_is_served() {
    let state = made(long());
    let serving = issued(&state, start());
    let bundle = state.bundle();
    assert!(serving.served.verify_for(&bundle, NAME, start()).is_ok());
    assert!(serving.served.verify_for(&bundle, NAME, start() - HOUR).is_ok(), "an API server whose clock is behind");
    assert!(serving.served.verify_for(&bundle, "another.svc", start()).is_err());
    assert!(serving.served.verify_for(&bundle, NAME, start() + DAY * 2).is_err());
    assert!(serving.served.verify_for(&made(long()).bundle(), NAME, start()).is_err());
    assert!(serving.served.verify_for("", NAME, start()).is_err());
    assert!(serving.served.verify(&bundle, start()).is_ok());
    assert!(serving.served.verify(&made(long()).bundle(), start()).is_err());
}

#[test]
fn of_a_stored_certificate_is_known_what_was_when_it_was_issued() {
    let state = settled(made(long()), long(), start() + DAY * 45);
    let now = start() + DAY * 46;
    let issued = issued(&state, now);
    let stored = StoredCertificate::read(issued.certificate.as_bytes(), issued.key.as_bytes()).unwrap();
    assert_eq!(state.served(&stored, now + HOUR), issued.served);
    let without = state.after(&Plan::Drop { indices: vec![1] }, long(), now).unwrap();
    assert!(without.is_due(&without.served(&stored, now), now), "its authority is gone");
    assert!(state.is_due(&state.served(&stored, now + DAY), now + DAY), "it has expired");
}

/// The key of one authority with the certificate of another, as in a Secret that was edited by hand.
#[test]
fn a_certificate_that_nobody_would_trust_is_not_served() {
    let mut state = made(long());
    let other = made(long());
    state.authorities[0].certificate = other.authorities[0].certificate.clone();
    let error = issued(&state, start()).served.verify_for(&state.bundle(), NAME, start()).unwrap_err();
    assert!(error.to_string().contains("delete the Secret"), "{error}");
}

#[test]
fn validity_periods_that_do_not_fit_together_are_refused() {
    for (authority, serving, propagation_delay, named) in [
        (100, 1, 10, "--serving-validity"),
        (100, 10, 1, "--ca-propagation-delay"),
        (31, 10, 6, "--ca-validity must be 32s at least"),
    ] {
        let error = ValidityPeriods::new(SECOND * authority, SECOND * serving, SECOND * propagation_delay)
            .unwrap_err()
            .to_string();
        assert!(error.contains(named), "{error}");
    }
    assert!(ValidityPeriods::new(SECOND * 32, SECOND * 10, SECOND * 6).is_ok());
}

#[test]
fn what_is_stored_is_read_again_and_damage_is_named() {
    let state = made(long());
    let bytes: zeroize::Zeroizing<Vec<u8>> = state.to_bytes();
    assert!(
        bytes.len() <= 1024 + state.authorities.len() * 8 * 1024,
        "it outgrew the buffer, which left copies of keys"
    );
    assert_eq!(CaState::from_bytes(&bytes).unwrap(), state);
    assert!(CaState::from_bytes(b"{}").is_err());
    let damaged = String::from_utf8(state.to_bytes().to_vec()).unwrap().replace("BEGIN PRIVATE KEY", "BEGIN NOTHING");
    assert!(CaState::from_bytes(damaged.as_bytes()).unwrap_err().to_string().contains("delete it"));
}

#[test]
fn what_earlier_releases_stored_is_read() {
    let state = made(long());
    let mut stored: serde_json::Value = serde_json::from_slice(&state.to_bytes()).unwrap();
    stored["authorities"][0].as_object_mut().unwrap().remove("servingSeconds").unwrap();
    assert_eq!(CaState::from_bytes(stored.to_string().as_bytes()).unwrap(), state);
}

// R87
#[test]
fn debug_output_holds_no_key() {
    assert!(!format!("{:?}", made(long())).contains("PRIVATE"));
}
