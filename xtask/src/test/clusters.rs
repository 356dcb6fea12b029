//! Runs the end-to-end tests on two clusters at the same time: a disturbance affects a whole cluster, and the tests mostly
//! wait.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::Options;
use super::steps::Steps;
use crate::cluster;
use crate::e2e::{DISTURBING, FEDERATED, LAST, Lane, LogCapture, Outcome, Programs, Test, UNDISTURBED, share};
use crate::images::{self, Build, Group};
use crate::progress::say;
use crate::{clients, deps, product};

/// The clusters of the tests, besides that of `up`. With `KUBECONFIG`, only that cluster is used.
const CLUSTERS: [&str; 2] = ["test", "test-2"];

/// Each undisturbed test has its own namespaces and mostly waits.
const THREADS: usize = 4;

/// The longest tests, started first, so that no cluster waits for the other at the end.
const LONGEST: [&str; 5] = [
    "webhook::no_admission_fails_while_authorities_rotate_replicas_go_and_manifests_come_again",
    "product::agents_that_are_cut_off_from_the_operator_come_back_by_themselves",
    "api::identities_are_renewed_while_the_api_server_is_gone",
    "kills::random_kills_under_load_cost_nothing",
    "hostile::a_thousand_hostile_connections_keep_no_honest_one_out",
];

/// Builds images, starts clusters, installs the product and runs the tests.
pub(super) fn run(root: &Path, options: &Options, steps: &mut Steps, programs: &Programs) -> Result<()> {
    deps::for_tests()?;
    let filter = options.only_e2e.as_deref().unwrap_or_default();
    let tests = Tests::of(programs, filter)?;
    let alone = cluster::is_given(root) || !filter.is_empty() && tests.federated.is_empty();
    let names = if alone { &CLUSTERS[..1] } else { &CLUSTERS[..] };
    if !options.keep && !cluster::is_given(root) {
        end(root)?;
    }
    let build = if options.release { Build::Release } else { Build::Quick };
    let groups = [Group::Product, Group::Demo, Group::Test];
    let archives = steps.take("images", 330, || images::make(root, &groups, build))?;
    let clients = if alone { Vec::new() } else { clients::install(root)? };
    let mut lanes = steps.take("clusters with the product", 800, || start(root, programs, names, &archives))?;
    lanes.iter_mut().for_each(|lane| lane.variables.extend(clients.iter().cloned()));
    let outcome = steps.take("end-to-end tests", 900, || tests.run(&lanes));
    if outcome.is_err() {
        lanes.iter().for_each(Lane::keep_logs);
    }
    outcome
}

/// Ends the clusters.
pub(super) fn end(root: &Path) -> Result<()> {
    CLUSTERS.iter().try_for_each(|name| cluster::down(root, name))
}

/// Starts clusters with the product, one for each lane. The first, whose last test uninstalls the product, also runs the
/// samples and the demo as `up` does, and deletes them as `down` does.
fn start<'a>(root: &'a Path, programs: &'a Programs, names: &[&'a str], archives: &[PathBuf]) -> Result<Vec<Lane<'a>>> {
    let mut lanes = Vec::new();
    for name in names {
        lanes.push(Lane { root, name, cluster: cluster::up(root, name)?, programs, variables: Vec::new() });
    }
    Lane::each(&lanes, |lane| {
        let changed = lane.cluster.load(archives)?;
        product::install(root, &lane.cluster, changed)?;
        if lane.name == CLUSTERS[0] {
            product::run_demo(root, &lane.cluster.kubectl, changed)?;
            product::delete_demo(root, &lane.cluster.kubectl)?;
        }
        Ok(())
    })?;
    Ok(lanes)
}

/// The tests whose names contain a filter.
struct Tests<'a> {
    filter: &'a str,
    /// Whether there are any concurrent tests.
    undisturbed: bool,
    /// The longest first.
    disturbing: Vec<Test>,
    /// Between two clusters, one at a time.
    federated: Vec<Test>,
    /// In the order of the modules; the second list runs only on the first cluster.
    last: [Vec<Test>; 2],
}

impl<'a> Tests<'a> {
    fn of(programs: &Programs, filter: &'a str) -> Result<Self> {
        let mut disturbing = programs.list(DISTURBING, false)?;
        if let Some(unknown) = LONGEST.iter().find(|name| disturbing.iter().all(|test| test.name != **name)) {
            bail!("`{unknown}`, which is to be run first, is no test of {DISTURBING}");
        }
        disturbing.sort_by_key(|test| LONGEST.iter().position(|name| test.name == *name).unwrap_or(LONGEST.len()));
        disturbing.retain(|test| test.name.contains(filter));
        let undisturbed = programs.list(UNDISTURBED, false)?.iter().any(|test| test.name.contains(filter));
        let mut federated = programs.list(FEDERATED, false)?;
        federated.retain(|test| test.to_string().contains(filter));
        let mut all_last = programs.list(LAST.0, false)?;
        all_last.retain(|test| test.name.contains(filter));
        let last = LAST
            .1
            .map(|module| all_last.iter().filter(|test| test.name.starts_with(module)).cloned().collect::<Vec<_>>());
        if !undisturbed && disturbing.is_empty() && federated.is_empty() && all_last.is_empty() {
            bail!("no test's name contains `{filter}`");
        }
        Ok(Self { filter, undisturbed, disturbing, federated, last })
    }

    fn run(self, lanes: &[Lane<'_>]) -> Result<()> {
        let captures = Lane::each(lanes, LogCapture::start)?;
        let (filter, undisturbed) = (self.filter, self.undisturbed);
        let mut outcomes = share(lanes, self.disturbing, |lane| {
            let here = undisturbed && lane.name == CLUSTERS[0];
            if here { Ok(vec![lane.run_program(UNDISTURBED, filter, THREADS)?]) } else { Ok(Vec::new()) }
        })?;
        if let [here, there] = lanes {
            let here = here.beside(there)?;
            let federated = self.federated.iter().map(|test| here.run_one(test));
            outcomes.extend(federated.collect::<Result<Vec<_>>>()?);
        }
        for (tests, lanes) in self.last.iter().zip([lanes, lanes.get(..1).unwrap_or(lanes)]) {
            let run = |lane: &Lane<'_>| tests.iter().map(|test| lane.run_one(test)).collect::<Result<Vec<_>>>();
            outcomes.extend(Lane::each(lanes, run)?.into_iter().flatten());
        }
        drop(captures);
        report(&outcomes)
    }
}

fn report(outcomes: &[Outcome]) -> Result<()> {
    let failed: Vec<&str> = outcomes.iter().filter(|outcome| !outcome.passed).map(|outcome| &*outcome.name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    say(format!("all of {} runs passed", outcomes.len()));
    Ok(())
}
