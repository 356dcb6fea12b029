//! The client catalogue of the SPIFFE conformance test suite (`docs/TEST_CATALOGUE.md` of
//! `arndt-s/spiffe-conformance-test-suite` at 126a3c692717e1738c2e542abb3dca69900bcb00): each case with the tests of its results.

mod identities;
mod jwt;
mod workload_api;
mod x509;

use Level::{Must, Optional, Should};

/// What a specification says of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// MUST or MUST NOT, or that without which a profile has no meaning.
    Must,
    /// SHOULD or SHOULD NOT.
    Should,
    /// MAY, or what no specification demands.
    Optional,
}

/// A case of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Such as `XV-8`.
    pub id: &'static str,
    /// How binding it is.
    pub level: Level,
    /// What a client does.
    pub requirement: &'static str,
    /// The specifications by the abbreviations of the catalogue, with sections.
    pub reference: &'static str,
    /// Where the specification and the catalogue differ, or what a result does not say; empty otherwise.
    pub note: &'static str,
    /// Each result: what it is about, empty if the case has only one, and the test in the suite.
    pub results: &'static [(&'static str, &'static str)],
}

/// Every case, in the order of the catalogue.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    let parts = [workload_api::CASES, x509::CASES, jwt::CASES, identities::CASES];
    parts.into_iter().flatten()
}

impl Level {
    /// Every level, the most binding first.
    pub const ALL: [Self; 3] = [Must, Should, Optional];

    /// As specifications write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Must => "MUST",
            Should => "SHOULD",
            Optional => "OPT",
        }
    }
}

const fn must(
    id: &'static str,
    requirement: &'static str,
    reference: &'static str,
    results: &'static [(&'static str, &'static str)],
) -> Case {
    Case { id, level: Must, requirement, reference, note: "", results }
}

const fn should(
    id: &'static str,
    requirement: &'static str,
    reference: &'static str,
    results: &'static [(&'static str, &'static str)],
) -> Case {
    Case { id, level: Should, requirement, reference, note: "", results }
}

const fn optional(
    id: &'static str,
    requirement: &'static str,
    reference: &'static str,
    results: &'static [(&'static str, &'static str)],
) -> Case {
    Case { id, level: Optional, requirement, reference, note: "", results }
}

impl Case {
    const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }
}
