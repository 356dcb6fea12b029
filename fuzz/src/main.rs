//! The libFuzzer program for all targets: `COUNTERSIGN_FUZZ_TARGET` selects the target, so that one build is enough.

#![no_main]
#![allow(clippy::panic, reason = "a fuzzer says what is wrong by panicking")]

use std::sync::LazyLock;

use countersign_fuzz::{TARGETS, Target, target};

const VARIABLE: &str = "COUNTERSIGN_FUZZ_TARGET";

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    target(&name).unwrap_or_else(|| panic!("{VARIABLE} is {name:?}; set it to one of {}", names()))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
