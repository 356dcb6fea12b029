//! File permissions of identities: as strict as the pod's security contexts allow, and no stricter than its containers
//! need.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    apply::documents,
    credential::{CREDENTIAL_BUNDLE, FOLDER},
    pods::{is_event, lines},
    scenario,
    wait::{DEFAULT_TIMEOUT, until, watch},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Resource as _,
    api::{AttachParams, DeleteParams, DynamicObject, PostParams},
    client::Body,
    core::Request,
};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

/// A pod whose containers report at their start which parts of their identity they can access.
struct Case<'a> {
    name: &'a str,
    /// Names and users; each has its own group, with the same number as the user.
    containers: &'a [(&'a str, u32)],
    /// The pod's security context: the content of a YAML flow mapping.
    context: &'a str,
    annotations: &'a str,
    /// Fields of the pod's spec: lines of YAML, indented by two.
    more: &'a str,
    /// Mounts of the first container: a YAML flow sequence.
    mounts: &'a str,
}

impl Case<'_> {
    const PLAIN: Case<'static> =
        Case { name: "plain", containers: &[("app", 1001)], context: "", annotations: "", more: "", mounts: "[]" };

    fn yaml(&self, world: &World) -> String {
        let (name, namespace) = (self.name, &world.namespace);
        let mut text = format!(
            "---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  annotations: {{{}}}
spec:
  serviceAccountName: {name}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 2
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}, {}}}
{}  containers:
",
            self.annotations, self.context, self.more
        );
        let mut mounts = self.mounts;
        for (container, user) in self.containers {
            let _ = write!(
                text,
                "  - name: {container}
    image: countersign.local/demo:dev
    imagePullPolicy: IfNotPresent
    args: [first-instruction]
    volumeMounts: {mounts}
    securityContext:
      runAsUser: {user}
      runAsGroup: {user}
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {{drop: [ALL]}}
"
            );
            mounts = "[]";
        }
        text
    }

    /// Runs it, and returns the API server's warnings.
    async fn run(&self, world: &World) -> Result<Vec<String>> {
        world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 20s}")).await?;
        world.cluster.apply(&world.identity_yaml(self.name, "")).await?;
        let mut objects = documents(&self.yaml(world))?;
        let pod = objects.pop().context("a pod is the last")?;
        for object in &objects {
            world.cluster.apply_object(object).await?;
        }
        let warnings = create(world, &pod).await?;
        world.ready(self.name).await?;
        Ok(warnings)
    }

    /// The report of a container at its start.
    async fn found(&self, world: &World, container: &str) -> Result<Value> {
        until(&format!("{container} of {} says what it found", self.name), DEFAULT_TIMEOUT, async || {
            let said = lines(&world.logs(self.name, container).await?);
            Ok(said.into_iter().find(|line| is_event(line, "first-instruction")))
        })
        .await
    }
}

/// Creates a pod; the API server's warnings are in a header that clients do not expose.
async fn create(world: &World, pod: &DynamicObject) -> Result<Vec<String>> {
    let request = Request::new(Pod::url_path(&(), Some(&world.namespace)));
    let request = request.create(&PostParams::default(), serde_json::to_vec(pod)?)?.map(Body::from);
    let response = world.cluster.client.send(request).await.context("create a pod")?;
    ensure!(response.status().is_success(), "the pod was refused: {}", response.status());
    // RFC 7234, 5.5: code, agent, quoted text.
    let text = |value: &str| value.splitn(3, ' ').nth(2).map(|text| text.trim_matches('"').to_owned());
    let headers = response.headers().get_all("warning").into_iter();
    Ok(headers.filter_map(|value| text(value.to_str().ok()?)).collect())
}

/// The output of `countersign-demo` in a container of a pod; `None` if it fails.
async fn run_in(world: &World, pod: &str, container: &str, arguments: &[&str]) -> Result<Option<String>> {
    let parameters = AttachParams::default().container(container).stdin(false).stdout(true).stderr(false);
    let command = [&["/countersign-demo"], arguments].concat();
    let mut process = world.pods().exec(pod, command, &parameters).await?;
    let (mut out, status) = (process.stdout().context("no output")?, process.take_status().context("no status")?);
    let mut text = String::new();
    let (read, status) = tokio::join!(out.read_to_string(&mut text), status);
    read?;
    Ok(status.is_some_and(|status| status.status.as_deref() == Some("Success")).then_some(text))
}

/// The condition `CredentialsRefreshable` of a WorkloadIdentity, once it has this status; the identity is ready throughout.
async fn refreshing(world: &World, name: &str, wanted: &str) -> Result<Value> {
    let condition = |object: &DynamicObject, kind: &str| {
        let conditions = object.data["status"]["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == kind).cloned()
    };
    let is_so = |object: &DynamicObject| {
        condition(object, "CredentialsRefreshable").is_some_and(|found| found["status"] == wanted)
    };
    let identities = world.cluster.workload_identities(&world.namespace).await?;
    let identity = watch(&identities, name, &format!("refreshing: {wanted}"), is_so).await?;
    let ready = condition(&identity, "Ready").context("it has no condition Ready")?;
    ensure!(ready["status"] == "True", "{ready}");
    condition(&identity, "CredentialsRefreshable").context("it has no condition CredentialsRefreshable")
}

/// Mode, owner and group of the key.
async fn access(world: &World, pod: &str, container: &str) -> Result<(String, u64, u64)> {
    let said = run_in(world, pod, container, &["stat", &format!("{FOLDER}/{CREDENTIAL_BUNDLE}")]).await?;
    let said = lines(&said.context("the container cannot look at its credential")?).pop().context("nothing said")?;
    let number = |key: &str| said[key].as_u64().unwrap_or_default();
    Ok((said["mode"].as_str().unwrap_or_default().to_owned(), number("uid"), number("gid")))
}

/// Checks that each of these containers found its credential at its first instruction.
async fn all_found(world: &World, case: &Case<'_>, containers: &[&str]) -> Result<()> {
    for container in containers {
        let found = case.found(world, container).await?;
        ensure!(found["present"] == true, "{container}: {found}");
        ensure!(found["id"] == world.id(case.name).as_str(), "{container}: {found}");
    }
    Ok(())
}

/// Checks that the excluded container finds no identity, neither at the usual path nor elsewhere.
async fn left_out(world: &World, case: &Case<'_>, container: &str) -> Result<()> {
    let found = case.found(world, container).await?;
    ensure!(found["present"] == false, "{container}: {found}");
    let read = run_in(world, case.name, container, &["ls", "/run/countersign"]).await?;
    ensure!(read.is_none(), "{container} sees the identity of others");
    Ok(())
}

#[tokio::test]
async fn of_one_shared_user_the_files_are_that_users_alone() {
    scenario("one-user", async |world| {
        let case = Case {
            name: "one-user",
            containers: &[("app", 1001), ("second", 1001), ("outsider", 1002)],
            annotations: "countersign.dev/containers: 'app,second'",
            ..Case::PLAIN
        };
        let warnings = case.run(world).await?;
        ensure!(!warnings.iter().any(|warning| warning.contains("countersign:")), "{warnings:?}");
        all_found(world, &case, &["app", "second"]).await?;
        let (mode, owner, _) = access(world, case.name, "app").await?;
        assert_eq!((mode.as_str(), owner), ("0400", 1001));
        left_out(world, &case, "outsider").await
    })
    .await;
}

#[tokio::test]
async fn of_two_users_with_an_fs_group_the_files_are_that_groups() {
    scenario("group", async |world| {
        let case = Case {
            name: "group",
            containers: &[("app", 1001), ("second", 1002), ("outsider", 1003)],
            context: "fsGroup: 2000",
            annotations: "countersign.dev/containers: 'app,second'",
            ..Case::PLAIN
        };
        let warnings = case.run(world).await?;
        ensure!(!warnings.iter().any(|warning| warning.contains("countersign:")), "{warnings:?}");
        all_found(world, &case, &["app", "second"]).await?;
        let (mode, owner, group) = access(world, case.name, "second").await?;
        assert_eq!((mode.as_str(), group), ("0440", 2000));
        assert!(![1001, 1002].contains(&owner), "the agent is neither");
        left_out(world, &case, "outsider").await
    })
    .await;
}

#[tokio::test]
async fn of_three_users_without_a_group_everyone_reads_and_there_is_a_warning() {
    scenario("three-users", async |world| {
        let case = Case {
            name: "three-users",
            containers: &[("app", 1001), ("second", 1002), ("third", 1003)],
            ..Case::PLAIN
        };
        let warnings = case.run(world).await?;
        ensure!(warnings.iter().any(|warning| warning.contains("0444") && warning.contains("fsGroup")), "{warnings:?}");
        all_found(world, &case, &["app", "second", "third"]).await?;
        assert_eq!(access(world, case.name, "third").await?.0, "0444");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_part_mounted_by_sub_path_never_refreshes_and_a_warning_and_the_status_say_so() {
    scenario("part", async |world| {
        let case = Case {
            name: "part",
            more: "  volumes: [{name: countersign-identity, emptyDir: {medium: Memory, sizeLimit: 2Mi}}]\n",
            mounts: "[{name: countersign-identity, mountPath: /etc/tls.crt, subPath: credentials/tls.crt, readOnly: true}]",
            ..Case::PLAIN
        };
        let warnings = case.run(world).await?;
        ensure!(warnings.iter().any(|warning| warning.contains("never refreshes")), "{warnings:?}");
        let pod = world.pods().get(case.name).await?;
        let annotations = pod.metadata.annotations.unwrap_or_default();
        assert_eq!(annotations.get("countersign.dev/stale-mounts").map(String::as_str), Some("app"));

        let read = async |path: &str| {
            run_in(world, case.name, "app", &["cat", path]).await?.with_context(|| format!("{path} cannot be read"))
        };
        let part = read("/etc/tls.crt").await?;
        let renewed = until("the certificate is renewed", DEFAULT_TIMEOUT, async || {
            let now = read(&format!("{FOLDER}/tls.crt")).await?;
            Ok((now != part).then_some(now))
        });
        assert_ne!(renewed.await?, read("/etc/tls.crt").await?, "the warning is true");

        let said = refreshing(world, case.name, "False").await?;
        assert_eq!(said["reason"], "SubPathMount", "{said}");
        let message = said["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("1 of 1 pods ") && message.contains(&format!(": {}; ", case.name)), "{message}");
        world.pods().delete(case.name, &DeleteParams::default()).await?;
        refreshing(world, case.name, "True").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn processes_that_see_each_other_are_warned_of() {
    scenario("processes", async |world| {
        let case = Case { name: "processes", more: "  shareProcessNamespace: true\n", ..Case::PLAIN };
        let warnings = case.run(world).await?;
        ensure!(warnings.iter().any(|warning| warning.contains("shareProcessNamespace")), "{warnings:?}");
        all_found(world, &case, &["app"]).await
    })
    .await;
}
