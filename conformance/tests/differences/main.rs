//! What the verification behind `countersign-verify` and go-spiffe make of the same SPIFFE IDs, chains and tokens, most of which are
//! malformed. A difference that
//! is not among the known ones is a finding: one of the two has it wrong.
//!
//! `cargo xtask test` runs it briefly, `cargo xtask differences` for longer. A run is repeated by its seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends by panicking"
)]
#![allow(clippy::indexing_slicing, reason = "choices are within what they choose from")]
#![allow(missing_docs, reason = "a program")]

mod certificates;
mod ids;
mod known;
mod mutation;
mod oracle;
mod tokens;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use countersign_contract::environment::test::{DIFFERENCES_SECONDS, DIFFERENCES_SEED, GO_ORACLE};
use rand::{SeedableRng as _, rngs::StdRng};

use oracle::Oracle;

/// One input, and what both say.
struct Case {
    /// What it is, with what was done to it, for people.
    shown: String,
    /// Who it is, if it is accepted.
    ours: Result<String, String>,
    theirs: Result<String, String>,
    /// What theirs accepts once the input has what it asks for beyond the specification.
    theirs_otherwise: Option<String>,
}

const BRIEFLY: Duration = Duration::from_secs(10);
/// So many findings are shown.
const SHOWN: usize = 20;

#[test]
fn ours_and_go_spiffe_differ_in_nothing_but_what_is_known() {
    let Some(program) = std::env::var_os(GO_ORACLE) else {
        println!("did not run: {GO_ORACLE} is not set; cargo xtask test sets it");
        return;
    };
    let number = |variable| std::env::var(variable).ok().map(|text| text.parse::<u64>().expect("a number"));
    let span = number(DIFFERENCES_SECONDS).map_or(BRIEFLY, Duration::from_secs);
    let seed = number(DIFFERENCES_SEED).unwrap_or_else(|| rand::random_range(0..1 << 32));
    println!("seed {seed}");
    let (mut random, mut oracle) = (StdRng::seed_from_u64(seed), Oracle::start(&program));
    let (certificates, tokens) = (certificates::Maker::new(), tokens::Maker::new());
    let begun = Instant::now();
    let (mut cases, mut accepted, mut findings) = ([0; 3], [0; 3], Vec::new());
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    while begun.elapsed() < span {
        let of_each_kind = [
            ids::case(&mut random, &mut oracle),
            certificates.case(&mut random, &mut oracle),
            tokens.case(&mut random, &mut oracle),
        ];
        for (kind, case) in of_each_kind.into_iter().enumerate() {
            cases[kind] += 1;
            accepted[kind] += usize::from(case.ours.is_ok() && case.theirs.is_ok());
            if case.ours.as_ref().ok() == case.theirs.as_ref().ok() {
                continue;
            }
            match known::reason(&case) {
                Some(reason) => *seen.entry(reason).or_default() += 1,
                None => findings.push(case),
            }
        }
    }
    println!("{cases:?} ids, chains and tokens, of which both accept {accepted:?}");
    for (reason, count) in &seen {
        println!("{count:>7} differ: {reason}");
    }
    for Case { shown, ours, theirs, .. } in findings.iter().take(SHOWN) {
        println!("FINDING\n  {shown}\n  ours:   {ours:?}\n  theirs: {theirs:?}");
    }
    assert!(findings.is_empty(), "{} findings of seed {seed}", findings.len());
    let is_compared = cases.iter().zip(accepted).all(|(cases, accepted)| accepted * 10 > *cases);
    assert!(is_compared, "hardly anything of a kind is accepted by both: nothing is compared");
}
