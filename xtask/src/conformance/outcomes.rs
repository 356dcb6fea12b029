//! Reads what the suite's test program printed: which case ended how.

use super::Outcomes;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass,
    /// The client does not do what the requirement demands.
    Fail,
    /// The client has no such operation.
    Skip,
    /// Nothing was learned.
    Error,
}

impl Outcome {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "**fail**",
            Self::Skip => "skip",
            Self::Error => "error",
        }
    }
}

/// The outcomes in the output of a test program. Why a test failed is in the first line of its own output; a panic is an
/// error.
pub(super) fn read(output: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some((test, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let outcome = if result == "ok" { Outcome::Pass } else { Outcome::Error };
            outcomes.insert(test.to_owned(), outcome);
        }
        let section = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let (Some(test), Some(why)) = (section, lines.peek().and_then(|next| next.strip_prefix("Error: "))) {
            let outcome = match why.split(':').next() {
                Some("FAIL") => Outcome::Fail,
                Some("SKIP") => Outcome::Skip,
                _ => Outcome::Error,
            };
            outcomes.insert(test.to_owned(), outcome);
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_a_skip_and_an_error_are_told_apart() {
        let output = "running 5 tests\ntest a::one ... ok\ntest a::two ... FAILED\ntest a::three ... FAILED\n\
            test a::four ... FAILED\ntest a::five ... FAILED\n\nfailures:\n\n---- a::two stdout ----\nError: FAIL: accepted\n\n\
            ---- a::three stdout ----\nError: SKIP: none\n\n---- a::four stdout ----\nError: ERROR: no harness\n\n\
            ---- a::five stdout ----\n\nthread 'a::five' panicked\n\nfailures:\n    a::two\n\ntest result: FAILED. 1 passed\n";
        let expected = [
            ("a::one", Outcome::Pass),
            ("a::two", Outcome::Fail),
            ("a::three", Outcome::Skip),
            ("a::four", Outcome::Error),
            ("a::five", Outcome::Error),
        ];
        assert_eq!(read(output), expected.map(|(test, outcome)| (test.to_owned(), outcome)).into());
    }
}
