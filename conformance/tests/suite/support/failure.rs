//! How a case ends when it does not pass: the client failed it, the client has no such operation, or nothing was learned.

use std::fmt;

/// The result of a case.
pub(crate) type Verdict<T = ()> = Result<T, Failure>;

/// Why a case did not pass. Its first word is what `cargo xtask conformance` reads.
pub(crate) enum Failure {
    /// The client did not do what the requirement demands.
    Fail(String),
    /// The harness reported the operation as unsupported.
    Skip(String),
    /// The case could not be executed: nothing was learned about the client.
    Error(String),
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(why) => write!(f, "FAIL: {why}"),
            Self::Skip(why) => write!(f, "SKIP: {why}"),
            Self::Error(why) => write!(f, "ERROR: {why}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(format!("{:#}", error.into()))
    }
}

/// The client failed the case.
pub(crate) fn fail<T>(why: impl Into<String>) -> Verdict<T> {
    Err(Failure::Fail(why.into()))
}

/// The case could not be executed.
pub(crate) fn error<T>(why: impl Into<String>) -> Verdict<T> {
    Err(Failure::Error(why.into()))
}

/// The client failed the case unless `condition` holds.
pub(crate) fn expect(condition: bool, why: impl FnOnce() -> String) -> Verdict {
    if condition { Ok(()) } else { fail(why()) }
}

/// Marks the failure of a positive control, without which a later refusal says nothing.
pub(crate) fn control<T>(verdict: Verdict<T>) -> Verdict<T> {
    verdict.map_err(|failure| match failure {
        Failure::Fail(why) => Failure::Fail(format!("positive control: {why}")),
        other => other,
    })
}
