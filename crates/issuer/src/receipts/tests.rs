use super::{ABOUT_TO_SEND, Delivery, Fingerprint, Issuance, MAX_IDENTITIES, Receipt, ReceiptRecord, Timestamp, v1};
use tokio::time::Instant;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const ONE: Fingerprint = [1; 32];
const OTHER: Fingerprint = [2; 32];

fn receipt(svids: &[(Fingerprint, Option<Fingerprint>)]) -> v1::Receipt {
    let svid = |&(socket, files): &(Fingerprint, Option<Fingerprint>)| v1::HeldSvid {
        socket_sha256: socket.to_vec(),
        files_sha256: files.map(|files| files.to_vec()).unwrap_or_default(),
    };
    v1::Receipt { svids: svids.iter().map(svid).collect(), clock_ms: NOW.as_millisecond() }
}

fn record(svids: &[(Fingerprint, Option<Fingerprint>)]) -> ReceiptRecord {
    let record = ReceiptRecord::new(true);
    record.set(Receipt::parse(&receipt(svids), NOW).unwrap());
    record
}

fn issued(fingerprint: Fingerprint) -> Option<Issuance> {
    Some(Issuance { at: NOW, not_after: NOW, fingerprint })
}

fn later() -> Timestamp {
    NOW + ABOUT_TO_SEND
}

#[tokio::test(start_paused = true)]
async fn what_was_issued_last_is_held_once_it_is_on_the_socket_and_in_the_files() {
    for (svids, delivery) in [
        (&[(ONE, Some(ONE))][..], Delivery::Held),
        (&[(OTHER, Some(OTHER)), (ONE, Some(ONE))], Delivery::Held),
        (&[(ONE, Some(OTHER))], Delivery::NotInFiles),
        (&[(ONE, None)], Delivery::NotInFiles),
        (&[(OTHER, Some(OTHER))], Delivery::NotOnSocket),
        (&[(OTHER, Some(ONE))], Delivery::NotOnSocket),
        (&[], Delivery::Nothing),
    ] {
        let found = record(svids).delivery(1, Instant::now(), issued(ONE).as_ref(), later());
        assert_eq!(found, delivery, "{svids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_has_a_moment_to_say_that_it_has_what_it_was_issued() {
    let since = Instant::now();
    let renewed = |svids: &[_], at| record(svids).delivery(1, since, issued(ONE).as_ref(), at);
    let former = [(OTHER, Some(OTHER))];
    assert_eq!((renewed(&former, NOW), renewed(&former, later())), (Delivery::Held, Delivery::NotOnSocket));
    assert_eq!((renewed(&[], NOW), renewed(&[], later())), (Delivery::Pending, Delivery::Nothing));
    assert_eq!(renewed(&[(OTHER, None)], NOW), Delivery::NotInFiles, "a renewal does not hide what was wrong before");
    let silent = ReceiptRecord::new(true);
    assert_eq!(silent.delivery(1, since, None, NOW), Delivery::Pending);
    tokio::time::advance(ABOUT_TO_SEND).await;
    assert_eq!(silent.delivery(1, since, None, NOW), Delivery::Nothing);
    // An identity that is new on an old stream.
    assert_eq!(record(&[]).delivery(1, Instant::now(), None, NOW), Delivery::Pending);
}

// It moved here with what it has.
#[tokio::test(start_paused = true)]
async fn of_what_another_replica_issued_socket_and_files_are_compared_and_their_number() {
    let since = Instant::now();
    tokio::time::advance(ABOUT_TO_SEND).await;
    let delivery = |identities, svids: &[_]| record(svids).delivery(identities, since, None, later());
    assert_eq!(delivery(2, &[(ONE, Some(ONE)), (OTHER, Some(OTHER))]), Delivery::Held);
    assert_eq!(delivery(2, &[(ONE, Some(ONE)), (OTHER, None)]), Delivery::NotInFiles);
    assert_eq!(delivery(2, &[(ONE, Some(ONE))]), Delivery::Unknown, "either may be the one that it has");
}

#[tokio::test(start_paused = true)]
async fn of_an_agent_that_sends_no_receipts_nothing_is_known() {
    let old = ReceiptRecord::new(false);
    assert_eq!(old.delivery(1, Instant::now(), issued(ONE).as_ref(), later()), Delivery::Unknown);
}

#[test]
fn a_clock_is_off_by_more_than_a_receipt_may_travel() {
    for (clock_ms, ahead) in [(0, 0), (4_999, 0), (-4_999, 0), (5_000, 5), (-61_000, -61)] {
        let record = ReceiptRecord::new(true);
        let receipt = v1::Receipt { clock_ms, ..receipt(&[(ONE, None)]) };
        record.set(Receipt::parse(&receipt, NOW).unwrap());
        assert_eq!(record.clock_ahead(), ahead, "{clock_ms}");
    }
    assert_eq!(ReceiptRecord::new(true).clock_ahead(), 0, "nothing is known yet");
}

#[test]
fn a_malformed_receipt_is_refused() {
    let longest = vec![(ONE, Some(ONE)); MAX_IDENTITIES];
    assert!(Receipt::parse(&receipt(&longest), NOW).is_ok());
    let too_many = receipt(&vec![(ONE, Some(ONE)); MAX_IDENTITIES + 1]);
    let mut short = receipt(&[(ONE, None)]);
    short.svids[0].socket_sha256.pop();
    let mut absent = receipt(&[(ONE, Some(ONE))]);
    absent.svids[0].socket_sha256.clear();
    let mut long = receipt(&[(ONE, Some(ONE))]);
    long.svids[0].files_sha256.push(0);
    let never = v1::Receipt { clock_ms: i64::MAX, ..receipt(&[]) };
    for malformed in [too_many, short, absent, long, never] {
        assert!(Receipt::parse(&malformed, NOW).is_err(), "{malformed:?}");
    }
}
