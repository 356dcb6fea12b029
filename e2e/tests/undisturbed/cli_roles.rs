//! `kubectl countersign` with the roles that are made for it: `countersign-view` is enough to read, `countersign-admin` to act.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use std::{collections::BTreeSet, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::FEDERATION_NAMESPACE;
use countersign_e2e::{
    World,
    apply::documents,
    cli::{self, Ended},
    cluster::SYSTEM,
    fixture::PodSpec,
    kubeconfig, scenario,
};
use serde_json::Value;
use tempfile::NamedTempFile;

const ACCOUNT: &str = "person";

/// A service account with a role, and its kubeconfig.
struct Person(NamedTempFile);

impl Person {
    async fn new(world: &World, bindings: &str) -> Result<Self> {
        let account = format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {ACCOUNT}, namespace: {}}}\n",
            world.namespace
        );
        world.cluster.apply(&(account + bindings)).await?;
        let token = world.service_account_token(ACCOUNT, &[], None).await?;
        Ok(Self(kubeconfig::of_token(&token)?))
    }

    fn run(&self, arguments: &[&str]) -> Result<Ended> {
        cli::run(&[arguments, &["--kubeconfig", self.path()]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        cli::json(&[arguments, &["--kubeconfig", self.path()]].concat())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap_or_default()
    }

    /// Fails unless there is no answer, and the error names this right and the role to ask for.
    fn is_refused(&self, arguments: &[&str], right: &str) -> Result<()> {
        let Ended { code, stdout, stderr } = self.run(arguments)?;
        let named = stderr.contains(&format!("you may not {right}")) && stderr.contains("countersign-admin");
        ensure!(code == 2 && named && stdout.is_empty(), "{arguments:?}: exit code {code}: {stdout}{stderr}");
        ensure!(!stderr.contains("not readable"), "{arguments:?}: it was to be written: {stderr}");
        Ok(())
    }
}

/// The role in the whole cluster, and in these namespaces what it has there.
fn bindings(world: &World, role: &str, namespaces: &[&str]) -> String {
    let World { namespace, .. } = world;
    let binding = |kind: &str, of: &str, place: &str| {
        format!(
            "---
apiVersion: rbac.authorization.k8s.io/v1
kind: {kind}
metadata: {{name: {namespace}{place}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {of}, name: {role}}}
subjects: [{{kind: ServiceAccount, name: {ACCOUNT}, namespace: {namespace}}}]
"
        )
    };
    let mut all = binding("ClusterRoleBinding", "ClusterRole", "");
    all.extend(namespaces.iter().map(|place| binding("RoleBinding", "Role", &format!(", namespace: {place}"))));
    all
}

/// Runs a test as a person with a role, and takes the role away.
async fn with_role(name: &str, role: &str, namespaces: &[&str], test: impl AsyncFnOnce(&World, &Person) -> Result<()>) {
    scenario(name, async |world| {
        world.cluster.apply(&world.trust_domain_yaml("bundleRefreshHint: 1s")).await?;
        for pod in ["cart", "orders"] {
            world.cluster.apply(&world.identity_yaml(pod, "")).await?;
            world.cluster.apply(&PodSpec::hold(pod).pod(&world.namespace)).await?;
        }
        for pod in ["cart", "orders"] {
            world.ready(pod).await?;
        }
        let bindings = bindings(world, role, namespaces);
        let outcome = async { test(world, &Person::new(world, &bindings).await?).await };
        let outcome = outcome.await;
        for binding in documents(&bindings)? {
            world.cluster.delete(&binding).await?;
        }
        outcome
    })
    .await;
}

#[tokio::test]
async fn the_role_to_view_is_enough_for_every_command_that_reads_and_for_none_that_acts() {
    with_role("cli-view", "countersign-view", &[SYSTEM, FEDERATION_NAMESPACE], async |world, person| {
        let World { namespace, trust_domain, .. } = world;
        let mut file = NamedTempFile::new()?;
        file.write_all(world.identity_yaml("cart", "path: /ns/{namespace}/cart").as_bytes())?;
        let file = file.path().to_str().context("a path")?;
        let commands: [&[&str]; 9] = [
            &["status"],
            &["why", "cart", "--namespace", namespace],
            &["identity", "cart", "--namespace", namespace],
            &["discover", "--namespace", namespace],
            &["discover", "--all-namespaces"],
            &["bundle", "show", trust_domain],
            &["federation", "status"],
            &["policy", "diff", "--filename", file],
            &["check", "--namespace", namespace],
        ];
        for command in commands {
            let (_, report) = person.json(command)?;
            if command[0] == "check" {
                let denied: BTreeSet<&str> = denied(&report).collect();
                // What only those who act may try, and what is not for people.
                let expected = ["components", "injection", "metrics", "validation"];
                ensure!(denied == BTreeSet::from(expected), "{denied:?}: {report:#}");
                continue;
            }
            let text = report.to_string();
            ensure!(!text.contains("may not") && !text.contains("NotPermitted"), "{command:?}: {report:#}");
        }
        let exported = person.run(&["bundle", "export", trust_domain])?;
        ensure!(exported.code == 0 && exported.stdout.contains("x509-svid"), "{exported:?}");

        let (cart, orders) = (format!("{namespace}/cart"), format!("{namespace}/orders"));
        let domains = "patch trustdomains.countersign.dev";
        person.is_refused(&["rotate", trust_domain], domains)?;
        person.is_refused(&["taint", trust_domain, &active(world).await?], domains)?;
        person.is_refused(&["revoke", trust_domain, &active(world).await?, "--yes"], domains)?;
        person.is_refused(
            &["renew", "cart", "--namespace", namespace],
            &format!("patch pods in namespace {namespace}"),
        )?;
        person
            .is_refused(&["probe", &cart, &orders], &format!("patch pods/ephemeralcontainers in namespace {namespace}"))
    })
    .await;
}

/// The checks that were left out for want of a right.
fn denied(report: &Value) -> impl Iterator<Item = &str> {
    let categories = report["categories"].as_array().into_iter().flatten();
    let checks = categories.flat_map(|category| category["checks"].as_array().into_iter().flatten());
    checks
        .filter(|check| check["reason"] == "NotPermitted" || check["reason"] == "MayNotView")
        .filter_map(|check| check["name"].as_str())
}

/// The X.509 authority that signs.
async fn active(world: &World) -> Result<String> {
    world.authorities().await?.active("x509").context("no active authority")
}

#[tokio::test]
async fn the_role_to_administer_is_enough_to_act() {
    with_role("cli-admin", "countersign-admin", &[], async |world, person| {
        let World { namespace, trust_domain, .. } = world;
        let (cart, orders) = (format!("{namespace}/cart"), format!("{namespace}/orders"));
        for command in [
            &["renew", "cart", "--namespace", namespace][..],
            &["probe", &cart, &orders],
            &["rotate", trust_domain, "--timeout", "4m"],
            &["taint", trust_domain, &active(world).await?, "--no-wait"],
        ] {
            let (code, report) = person.json(command)?;
            ensure!(code == 0 && !report.to_string().contains("may not"), "{command:?}: {report:#}");
        }
        let revoked = active(world).await?;
        let (code, report) = person.json(&["revoke", trust_domain, &revoked, "--yes", "--no-wait"])?;
        ensure!(code == 0 && report["written"] == true, "{report:#}");
        Ok(())
    })
    .await;
}
