//! Clusters that can be used, and each way not to be.

use jiff::Timestamp;

use super::{Clocks, Seen, category, clock, parsed, version_check};
use crate::{output::Mark, reading::Reading};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn clocks(server: i64, sent: i64, received: i64) -> Option<Clocks> {
    Some(Clocks { server: at(server), sent: at(sent), received: at(received) })
}

#[test]
fn versions_of_providers_are_read() {
    assert_eq!(parsed("1.32"), Some((1, 32)));
    assert_eq!(parsed("1.33+"), Some((1, 33)));
    assert_eq!(parsed("1"), None);
}

#[test]
fn a_cluster_below_1_32_fails() {
    assert_eq!(version_check("1.31").mark, Mark::Failed);
    assert_eq!(version_check("1.32").mark, Mark::Ok);
    assert_eq!(version_check("1.37+").mark, Mark::Ok);
    assert_eq!(version_check("unknown").mark, Mark::Skipped);
}

#[test]
fn a_slow_answer_is_not_a_wrong_clock() {
    assert_eq!(clock(clocks(100, 90, 130)).mark, Mark::Ok);
    assert_eq!(clock(clocks(100, 100, 101)).mark, Mark::Ok);
    assert_eq!(clock(clocks(100, 170, 171)).mark, Mark::Warning);
    let behind = clock(clocks(100, 40, 41));
    assert_eq!(behind.mark, Mark::Warning);
    assert!(behind.message.contains("59s behind"), "{behind:?}");
}

#[test]
fn without_an_api_server_there_is_one_check() {
    let seen = Seen {
        version: Reading::Failed("connection refused".to_owned()),
        clocks: None,
        issues_tokens: Reading::Absent,
        token_keys: Reading::Absent,
    };
    let category = category(&seen);
    assert_eq!(category.checks.len(), 1, "{category:?}");
    assert_eq!(category.checks[0].mark, Mark::Failed);
    assert!(category.checks[0].message.contains("connection refused"), "{category:?}");
}

#[test]
fn a_cluster_that_issues_no_tokens_fails() {
    let seen = Seen {
        version: Reading::Found("1.34".to_owned()),
        clocks: None,
        issues_tokens: Reading::Found(false),
        token_keys: Reading::Found(0),
    };
    let failed = category(&seen).checks.into_iter().filter(|check| check.mark == Mark::Failed).map(|one| one.about);
    assert_eq!(failed.collect::<Vec<_>>(), ["tokens", "token keys"]);
}
