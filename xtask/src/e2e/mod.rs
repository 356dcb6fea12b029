//! The end-to-end tests: four programs of `e2e/tests`, and the clusters they run on.
//!
//! - `undisturbed`: its tests run beside each other;
//! - `disturbing`: one test at a time on a cluster; several clusters share them;
//! - `federated`: one test at a time between two clusters;
//! - `last`: after all others on that cluster, in the order of [`LAST`].

mod lane;
mod log_capture;
mod programs;

pub(crate) use lane::{Lane, Outcome, environment, share};
pub(crate) use log_capture::LogCapture;
pub(crate) use programs::{Program, Programs};

/// The program whose tests run concurrently.
pub(crate) const UNDISTURBED: &str = "undisturbed";
/// The program whose tests each need a cluster to themselves.
pub(crate) const DISTURBING: &str = "disturbing";
/// The program whose tests need two clusters, one test at a time.
pub(crate) const FEDERATED: &str = "federated";
/// The program that runs last: its modules, in order. The second one uninstalls the product.
pub(crate) const LAST: (&str, [&str; 2]) = ("last", ["secrets::", "uninstall::"]);

/// A test of one of the programs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// The program's name.
    pub(crate) program: &'static str,
    /// The test's name in it, such as `api::etcd_is_gone`.
    pub(crate) name: String,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}", self.program, self.name)
    }
}
