//! `kubectl countersign` about policies and pods. What it says is compared with what the cluster then does.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{collections::BTreeSet, fmt::Write as _, io::Write as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World, cli,
    fixture::PodSpec,
    kubectl::warnings,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use serde_json::Value;
use x509_parser::{extensions::GeneralName, prelude::parse_x509_pem};

/// A Deployment of one pod that is idle.
fn deployment(world: &World, account: &str) -> String {
    let pod = PodSpec::hold("orders").account(account).pod(&world.namespace);
    // The pod of the fixture is the template.
    let (head, body) = pod.rsplit_once("---\n").expect("an account and a pod");
    let body: String = body.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "    {line}");
        all
    });
    let body = body.replace("    apiVersion: v1\n    kind: Pod\n", "");
    format!(
        "{head}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: orders, namespace: {}}}\nspec:\n  selector: \
         {{matchLabels: {{app: orders}}}}\n  strategy: {{type: Recreate}}\n  template:\n{body}",
        world.namespace
    )
}

/// Whoever follows `why` from one answer to the next, by nothing but the commands that it prints, gets an identity.
#[tokio::test]
async fn the_commands_that_why_prints_lead_a_pod_to_its_identity() {
    scenario("cli-why", async |world| {
        let namespace = world.namespace.as_str();
        // Nothing of it is right: no label, no WorkloadIdentity, and a grant for something else.
        let label = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{countersign.dev/inject: 'false'}}}}\n");
        world.cluster.apply(&label).await?;
        world.cluster.apply(&world.trust_domain_yaml("").replace("/ns/{namespace}/**", "/elsewhere/{namespace}/**")).await?;
        world.cluster.apply(&deployment(world, "orders")).await?;
        world.ready_pods("orders", 1).await?;

        let mut reasons: Vec<String> = Vec::new();
        let why = || cli::json(&["why", "deployment/orders", "--namespace", namespace]);
        loop {
            let last = reasons.last().cloned();
            // An answer that has not changed yet is that of the pod before.
            let (cause, mends) = until("another answer", DEFAULT_TIMEOUT, async || {
                let (code, report) = why()?;
                let step = report["steps"].as_array().and_then(|steps| steps.last()).context("a step")?.clone();
                let reason = step["cause"]["reason"].as_str().unwrap_or("Well").to_owned();
                // The pod of before has no agent until the rollout that `why` asked for replaces it.
                let passing = ["NotInjected", "PodNotFound", "PodDeleted", "AgentNotStarted", "AgentWaits", "NotScheduled", "ContainersNotStarted"];
                let is_next = Some(&reason) != last.as_ref() && !passing.contains(&reason.as_str());
                ensure!(reason != "Well" || code == 0, "{report}");
                Ok(is_next.then(|| (reason, step["cause"]["mend"].clone())))
            })
            .await?;
            reasons.push(cause.clone());
            if cause == "Well" {
                break;
            }
            ensure!(reasons.len() < 8, "{reasons:?}");
            let mends = mends.as_array().context("what mends it")?.iter().filter_map(Value::as_str);
            for command in mends.filter(|mend| mend.starts_with("kubectl ") && !mend.starts_with("kubectl countersign")) {
                let done = Command::new("bash").args(["-c", command]).output()?;
                ensure!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
            }
        }
        assert_eq!(reasons, ["OptedOut", "NoWorkloadIdentity", "NotGranted", "Well"]);

        let shown = cli::run(&["why", "deployment/orders", "--namespace", namespace])?;
        assert!(shown.stdout.contains(&world.id("orders")), "{}", shown.stdout);
        // Nothing of it is coloured where there is no terminal.
        assert!(!shown.stdout.contains('\u{1b}'), "{}", shown.stdout);
        Ok(())
    })
    .await;
}

/// What a running pod has: ids, DNS names, audiences of files, and foreign trust domains.
async fn held(world: &World, pod: &str) -> Result<BTreeSet<String>> {
    let folder = "/run/countersign/credentials";
    // Without an identity there are no files.
    let files = match world.demo(pod, &["ls", folder]).await {
        Err(error) if format!("{error:#}").contains("No such file") => return Ok(BTreeSet::new()),
        listed => String::from_utf8(listed?)?,
    };
    let mut held = BTreeSet::new();
    for file in files.lines() {
        if let Some(audience) = file.strip_suffix(".token").and_then(|file| file.rsplit_once("jwt/")) {
            held.insert(format!("audience {}", audience.1));
        }
        if let Some(name) = file.strip_suffix(".spiffe-trust-bundle.x509.pem").filter(|name| !name.contains('/')) {
            held.insert(format!("bundle {name}"));
        }
        if file == "tls.crt" || file.ends_with("/tls.crt") {
            let pem = world.demo(pod, &["cat", &format!("{folder}/{file}")]).await?;
            let (_, pem) = parse_x509_pem(&pem)?;
            let leaf = pem.parse_x509()?;
            let names = leaf.subject_alternative_name()?.context("names")?;
            held.extend(names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(id) => Some(format!("identity {id}")),
                GeneralName::DNSName(name) => Some(format!("DNS name {name}")),
                _ => None,
            }));
        }
    }
    Ok(held)
}

/// What `policy diff` says that the pod gains and loses.
fn predicted(report: &Value, held: &BTreeSet<String>, own: &str) -> BTreeSet<String> {
    let mut after = held.clone();
    for change in report["pods"].as_array().into_iter().flatten() {
        let gifts = |field: &str| change[field].as_array().cloned().unwrap_or_default();
        let said = |gift: &Value| {
            let (kind, value) = (gift["kind"].as_str().unwrap_or_default(), gift["value"].as_str().unwrap_or_default());
            if kind == "federated trust domain" { format!("bundle {value}") } else { format!("{kind} {value}") }
        };
        for gift in gifts("loses") {
            after.remove(&said(&gift));
        }
        after.extend(gifts("gains").iter().map(said));
    }
    // The bundle of an identity's own trust domain comes and goes with it.
    after.remove(&format!("bundle {own}"));
    if after.iter().any(|one| one.starts_with("identity ")) {
        after.insert(format!("bundle {own}"));
    }
    after
}

/// Ten changes of the policies of a running pod: each is predicted, then made, and the pod then has what was predicted.
#[tokio::test]
async fn policy_diff_predicts_what_then_happens_in_ten_changes() {
    scenario("cli-diff", async |world| {
        let domain = |more: &str| world.granting_yaml("", more);
        let identity = |more: &str| world.identity_yaml("orders", more);
        let second = |name: &str, more: &str| world.named_identity_yaml(name, "orders", more);
        let foreign = format!("foreign-{}", world.trust_domain);
        let foreign_domain = format!(
            "---\napiVersion: countersign.dev/v1alpha1\nkind: TrustDomain\nmetadata: {{name: {foreign}}}\nspec: {{authority: {{}}}}\n"
        );
        world.cluster.apply(&domain("")).await?;
        world.cluster.apply(&foreign_domain).await?;
        world.cluster.apply(&identity("")).await?;
        world.cluster.apply(&PodSpec::hold("orders").pod(&world.namespace)).await?;
        world.ready("orders").await?;

        let federated = format!("federatesWith: [{foreign}]");
        let changes = [
            ("a DNS name", false, identity("x509: {dnsNames: ['{serviceAccount}.{namespace}.svc']}")),
            ("an audience", false, identity("jwt: {audiences: [a.example]}")),
            ("a foreign trust domain that is not granted", false, identity(&federated)),
            ("its grant", false, domain(&federated)),
            ("another path", false, identity("path: '/ns/{namespace}/orders'")),
            ("a second identity", false, second("more", "hint: more")),
            ("one that claims what is held", false, second("late", "path: '/ns/{namespace}/orders'")),
            ("the second identity, deleted", true, second("more", "hint: more")),
            (
                "a grant of other paths",
                false,
                domain("").replace("/ns/{namespace}/**", "/ns/{namespace}/sa/*"),
            ),
            ("the TrustDomain's grants as before", false, domain("")),
        ];
        let mut before = until("the identity's files", DEFAULT_TIMEOUT, async || {
            let held = held(world, "orders").await?;
            Ok((!held.is_empty()).then_some(held))
        })
        .await?;
        for (what, is_deleted, yaml) in changes {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(yaml.as_bytes())?;
            let path = file.path().to_str().context("a path")?;
            let (code, report) = if is_deleted {
                cli::json(&["policy", "diff", "--delete", "-f", path])?
            } else {
                cli::json(&["policy", "diff", "-f", path])?
            };
            let loses = report["pods"].as_array().is_some_and(|all| all.iter().any(|one| one.get("loses").is_some()));
            let refused = report["objects"].as_array().is_some_and(|all| !all.is_empty());
            ensure!(code == i32::from(loses || refused), "{what}: {code} {report}");
            let expected = predicted(&report, &before, &world.trust_domain);
            if is_deleted {
                world.cluster.delete(&world.cluster.workload_identities(&world.namespace).await?.get("more").await?).await?;
            } else {
                world.cluster.apply(&yaml).await?;
            }
            let mut seen = BTreeSet::new();
            let then = until(&format!("what was predicted of {what}: {expected:?}"), DEFAULT_TIMEOUT, async || {
                seen = held(world, "orders").await?;
                Ok((seen == expected).then(|| seen.clone()))
            })
            .await;
            before = then.with_context(|| format!("{what}: {report}\nheld {seen:?}"))?;
        }
        let domains = world.cluster.trust_domains().await?;
        countersign_e2e::apply::delete(&domains, &foreign).await
    })
    .await;
}

/// What `discover` proposes is accepted, and nothing is left to discover.
#[tokio::test]
async fn discover_proposes_what_gives_each_pod_an_identity() {
    scenario("cli-discover", async |world| {
        let namespace = world.namespace.as_str();
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        for name in ["web", "cart"] {
            world.cluster.apply(&PodSpec::hold(name).pod(namespace)).await?;
        }
        let (code, report) = cli::json(&["discover", "--namespace", namespace])?;
        let workloads = report["workloads"].as_array().context("workloads")?;
        assert_eq!((code, workloads.len()), (1, 2), "{report}");
        for workload in workloads {
            assert_eq!(workload["cause"]["code"], "CS1100");
            let proposal = workload["proposal"].as_str().context("a proposal")?;
            // Of several TrustDomains in a cluster that tests share it is not known which is meant.
            let (before, after) = proposal.split_once("trustDomain: ").context("a trust domain")?;
            let (_, after) = after.split_once('\n').context("a line")?;
            world.cluster.apply(&format!("{before}trustDomain: {}\n{after}", world.trust_domain)).await?;
        }
        for name in ["web", "cart"] {
            world.ready(name).await?;
        }
        let (code, report) = cli::json(&["discover", "--namespace", namespace])?;
        assert_eq!((code, &report["with_identity"]), (0, &Value::from(2)), "{report}");
        Ok(())
    })
    .await;
}

/// kubectl passes on all that follows the name of a plugin, and the exit code.
#[test]
fn as_a_plugin_of_kubectl_it_tests_policies_of_files_and_prints_completions() -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(
        PodSpec { labels: "countersign.dev/inject: sidecar", ..PodSpec::hold("orders") }.pod("shop").as_bytes(),
    )?;
    let path = file.path().to_str().context("a path")?;
    let tested = cli::run(&["policy", "test", "-f", path])?;
    ensure!(
        tested.code == 1 && tested.stdout.contains("shop/orders") && tested.stdout.contains("CS1100"),
        "{tested:?}"
    );
    let unread = cli::run(&["policy", "test", "-f", "/nonexistent"])?;
    ensure!(unread.code == 2 && unread.stderr.contains("/nonexistent"), "{unread:?}");
    for shell in ["bash", "zsh", "fish"] {
        let printed = cli::run(&["completion", shell])?;
        ensure!(printed.code == 0 && printed.stdout.contains("kubectl-countersign"), "{shell}: {printed:?}");
    }
    Ok(())
}

/// R32: objects may be applied in any order, so admission refuses nothing of this; `kubectl apply` says it.
#[tokio::test]
async fn admission_warns_of_what_depends_on_other_objects() {
    scenario("cli-warned", async |world| {
        let missing = warnings(&world.identity_yaml("orders", ""))?;
        assert!(
            missing.contains("no pod gets it yet: there is no TrustDomain") && missing.contains("(CS1001)"),
            "{missing}"
        );

        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        let warned = |yaml: String, code: &'static str| async move {
            until(&format!("the warning {code}"), DEFAULT_TIMEOUT, async || {
                let said = warnings(&yaml)?;
                Ok((said.contains(code) || code.is_empty() && !said.contains("Warning")).then_some(()))
            })
            .await
        };
        warned(world.identity_yaml("orders", ""), "").await?;
        warned(world.identity_yaml("orders", "path: /admin"), "(CS1003)").await?;
        world.cluster.apply(&world.identity_yaml("orders", "")).await?;
        warned(world.named_identity_yaml("late", "orders", ""), "(CS1011)").await?;
        warned(world.identity_yaml("orders", "wit: {}"), "(CS1030)").await?;
        let narrower = world.trust_domain_yaml("").replace("/ns/{namespace}/**", "/elsewhere/{namespace}/**");
        let said = warnings(&narrower)?;
        assert!(
            said.contains(&format!(
                "pods lose their identities by this change: WorkloadIdentity {}/orders",
                world.namespace
            )),
            "{said}"
        );
        Ok(())
    })
    .await;
}

/// What a condition or an event says leads to its page.
#[tokio::test]
async fn the_code_in_a_condition_and_in_an_event_is_explained() {
    scenario("cli-explain", async |world| {
        world.cluster.apply(&world.identity_yaml("orders", "")).await?;
        world.cluster.apply(&PodSpec::hold("orders").pod(&world.namespace)).await?;
        let condition = world.identity_condition("orders", "Ready", "False", "NoTrustDomain").await?;
        let event = world
            .event("orders", "that there is no identity", |event| event.reason.as_deref() == Some("NoIdentity"))
            .await?;
        for message in [condition.1, event.message.or(event.reason).context("a text")?] {
            let (_, code) = message.trim_end_matches(')').rsplit_once('(').context("a code")?;
            let explained = cli::run(&["explain", code])?;
            assert_eq!(code, "CS1001", "{message}");
            assert!(explained.stdout.contains("What to do") && explained.code == 0, "{explained:?}");
        }
        let unknown = cli::run(&["explain", "CS0000"])?;
        assert!(unknown.code == 2 && unknown.stderr.contains("CS0000 is neither"), "{unknown:?}");
        Ok(())
    })
    .await;
}
