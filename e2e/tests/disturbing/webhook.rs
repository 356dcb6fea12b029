//! Long-term operation of the webhook: authorities rotate, manifests are applied again, replicas are replaced, and no
//! admission fails.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use countersign_contract::{
    metadata::{annotation::INJECTED, label},
    objects::{
        WEBHOOK_CONFIGURATION as CONFIGURATION,
        webhook_secret::{self, SERVING as CERTIFICATE},
    },
};
use countersign_e2e::{
    Cluster, World,
    apply::{delete, documents},
    cluster::SYSTEM,
    faults::alone,
    fixture::PodSpec,
    kubectl::on_manifests,
    pods::is_ready,
    replicas::{WEBHOOK, WEBHOOK_CA},
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

/// A new authority every twenty seconds.
const SHORT_VALIDITY: [&str; 3] = ["--ca-validity=40s", "--serving-validity=10s", "--ca-propagation-delay=6s"];
/// The required numbers of admissions, and of authorities that were added, used and removed.
const ADMISSIONS: u64 = 2_000;
const ROTATIONS: usize = 3;
const ROTATED_WITHIN: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_admission_fails_while_authorities_rotate_replicas_go_and_manifests_come_again() {
    alone("rotation", async |world| {
        replicas_serve(&world.cluster).await?;
        let load = Load::start(world).await?;
        let outcome = rotate(world, &load).await;
        // Restores the original state: applies all manifests, and replaces all replicas once more under load.
        on_manifests(&["apply", "--server-side", "--force-conflicts", "-k"], "base")?;
        restart(&world.cluster).await?;
        replicas_serve(&world.cluster).await?;
        let admitted = load.end().await?;
        outcome?;
        ensure!(admitted >= ADMISSIONS, "only {admitted} admissions were asked for");
        Ok(())
    })
    .await;
}

/// Mistakes of administrators: `caBundle` is cleared, and the Secrets are deleted.
#[tokio::test]
async fn a_bundle_that_is_cleared_and_a_secret_that_is_lost_are_mended_without_a_hand() {
    alone("mended", async |world| {
        replicas_serve(&world.cluster).await?;
        let configurations = Api::<MutatingWebhookConfiguration>::all(world.cluster.client.clone());
        let bundle = bundle(&world.cluster).await?;
        let cleared = json!([{ "op": "remove", "path": "/webhooks/0/clientConfig/caBundle" }]);
        let cleared: Patch<()> = Patch::Json(serde_json::from_value(cleared)?);
        configurations.patch(CONFIGURATION, &PatchParams::default(), &cleared).await.context("clear caBundle")?;
        let back =
            until("caBundle is back", Duration::from_secs(10), async || self::bundle(&world.cluster).await.map(Some));
        assert_eq!(back.await?, bundle);

        let secrets = world.cluster.api::<Secret>(SYSTEM);
        let before = secrets.get(CERTIFICATE).await?.metadata.uid;
        delete(&secrets, CERTIFICATE).await?;
        until("there is another certificate", Duration::from_secs(10), async || {
            Ok(secrets.get_opt(CERTIFICATE).await?.filter(|now| now.metadata.uid != before))
        })
        .await?;
        assert_eq!(self::bundle(&world.cluster).await?, bundle, "of the same CA");

        delete(&secrets, webhook_secret::CA).await?;
        until("there is another CA", DEFAULT_TIMEOUT, async || {
            Ok(self::bundle(&world.cluster).await.ok().filter(|now| *now != bundle))
        })
        .await?;
        // Each replica must serve a certificate of the new CA: enough admissions to reach both.
        let pod = pod(world, "after").await?;
        let mut in_a_row = 0;
        until("admissions succeed again", DEFAULT_TIMEOUT, async || {
            in_a_row = if admit(&world.pods(), &pod).await.is_ok() { in_a_row + 1 } else { 0 };
            Ok((in_a_row >= 20).then_some(()))
        })
        .await
    })
    .await;
}

/// Certificates outlast the controller of the CA: without it, replicas keep serving, and new ones start to.
#[tokio::test]
async fn without_the_controller_of_its_ca_the_webhook_serves_on_and_new_replicas_too() {
    alone("no-ca", async |world| {
        replicas_serve(&world.cluster).await?;
        let pod = pod(world, "without").await?;
        let wanted = world.replicas(WEBHOOK_CA).await?;
        let outcome = async {
            world.scale(WEBHOOK_CA, 0).await?;
            admit(&world.pods(), &pod).await?;
            let old: Vec<_> = world.product(WEBHOOK).await?.into_iter().map(|pod| pod.metadata.name).collect();
            restart(&world.cluster).await?;
            until("all replicas are new and serve", DEFAULT_TIMEOUT, async || {
                let now = world.product(WEBHOOK).await?;
                let new = now.iter().filter(|pod| is_ready(pod) && !old.contains(&pod.metadata.name)).count();
                Ok((new == now.len() && new >= 2).then_some(()))
            })
            .await?;
            admit(&world.pods(), &pod).await
        };
        let outcome = outcome.await;
        world.scale(WEBHOOK_CA, wanted).await?;
        replicas_serve(&world.cluster).await?;
        outcome
    })
    .await;
}

/// Short validity periods and a rotation of authorities, with the configuration applied again in between.
async fn rotate(world: &World, load: &Load) -> Result<()> {
    let deployments = world.cluster.api::<Deployment>(SYSTEM);
    let deployment = deployments.get(WEBHOOK_CA).await?;
    let container = deployment.spec.template.spec.and_then(|spec| spec.containers.into_iter().next());
    let container = container.context("the CA's container")?;
    let mut args = container.args.unwrap_or_default();
    args.extend(SHORT_VALIDITY.map(str::to_owned));
    let patch =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": container.name, "args": args }] } } } });
    deployments
        .patch(WEBHOOK_CA, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .context("set short lives")?;
    restart(&world.cluster).await?;
    replicas_serve(&world.cluster).await?;

    let (mut seen, mut lost, mut applied) = (BTreeSet::new(), Vec::new(), false);
    until(&format!("{ROTATIONS} authorities have gone"), ROTATED_WITHIN, async || {
        let now = match bundle(&world.cluster).await {
            Ok(now) => now,
            Err(error) => {
                lost.push(format!("{error:#}"));
                return Ok(None);
            }
        };
        seen.extend(now.iter().cloned());
        let gone = seen.difference(&now).count();
        if gone >= 1 && !applied {
            on_manifests(&["apply", "--server-side", "--force-conflicts", "-f"], "base/webhook/configuration.yaml")?;
            applied = true;
        }
        let admitted = load.admitted.load(Ordering::Relaxed);
        Ok((gone >= ROTATIONS && admitted >= ADMISSIONS).then_some(()))
    })
    .await?;
    ensure!(lost.is_empty(), "caBundle was not whole: {lost:?}");
    Ok(())
}

/// Pods created as dry runs, by several clients and all the time.
struct Load {
    ended: Arc<AtomicBool>,
    admitted: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    workers: JoinSet<()>,
}

impl Load {
    async fn start(world: &World) -> Result<Self> {
        let mut load =
            Self { ended: Arc::default(), admitted: Arc::default(), failures: Arc::default(), workers: JoinSet::new() };
        let pod = pod(world, "load").await?;
        for _ in 0..4 {
            let (pods, pod) = (world.pods(), pod.clone());
            let (ended, admitted, failures) = (load.ended.clone(), load.admitted.clone(), load.failures.clone());
            load.workers.spawn(async move {
                let mut pace = interval(Duration::from_millis(100));
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !ended.load(Ordering::Relaxed) {
                    pace.tick().await;
                    match admit(&pods, &pod).await {
                        Ok(()) => drop(admitted.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.lock().push(format!("{error:#}")),
                    }
                }
            });
        }
        Ok(load)
    }

    /// Stops, and returns the number of admissions.
    async fn end(mut self) -> Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended?;
        }
        let (admitted, failures) = (self.admitted.load(Ordering::Relaxed), self.failures.lock());
        ensure!(failures.is_empty(), "{} of {admitted} and these failed: {:?}", failures.len(), failures.first());
        Ok(admitted)
    }
}

/// Requests a pod, which must be injected.
async fn admit(pods: &Api<Pod>, pod: &Pod) -> Result<()> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = pods.create(&dry, pod).await?;
    ensure!(made.metadata.annotations.is_some_and(|all| all.contains_key(INJECTED)), "a pod was let through as it was");
    Ok(())
}

async fn pod(world: &World, name: &str) -> Result<Pod> {
    let mut objects = documents(&PodSpec::hold(name).pod(&world.namespace))?;
    let pod = objects.pop().context("a pod is the last")?.try_parse()?;
    for object in &objects {
        world.cluster.apply_object(object).await?;
    }
    Ok(pod)
}

/// The certificates in `caBundle`; an error if an entry has none, or if entries differ.
async fn bundle(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mutating = Api::<MutatingWebhookConfiguration>::all(cluster.client.clone()).get(CONFIGURATION).await?;
    let mutating = mutating.webhooks.unwrap_or_default();
    let validating = Api::<ValidatingWebhookConfiguration>::all(cluster.client.clone()).get(CONFIGURATION).await?;
    let validating = validating.webhooks.unwrap_or_default();
    let entries = mutating.into_iter().map(|entry| (entry.name, entry.client_config.ca_bundle));
    let entries = entries.chain(validating.into_iter().map(|entry| (entry.name, entry.client_config.ca_bundle)));
    let mut all = Vec::new();
    for (name, bundle) in entries {
        let text = String::from_utf8(bundle.with_context(|| format!("{name} has no caBundle"))?.0)?;
        let certificates = text.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned);
        all.push(certificates.collect::<BTreeSet<_>>());
    }
    let last = all.pop().context("there are no entries")?;
    // The two configurations are written one after the other: the last one determines the result.
    ensure!(all.iter().all(|one| !one.is_disjoint(&last)), "the entries have nothing in common");
    Ok(last)
}

/// Replaces the webhook's replicas, as `kubectl rollout restart` does.
async fn restart(cluster: &Cluster) -> Result<()> {
    let annotations = json!({ "kubectl.kubernetes.io/restartedAt": Timestamp::now().to_string() });
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
    let deployments = cluster.api::<Deployment>(SYSTEM);
    deployments.patch(WEBHOOK, &PatchParams::default(), &Patch::Merge(patch)).await.context("restart the webhook")?;
    Ok(())
}

/// Waits until at least two replicas of the webhook and of its CA serve, and no old one is left.
async fn replicas_serve(cluster: &Cluster) -> Result<()> {
    let deployments = cluster.api::<Deployment>(SYSTEM);
    for name in [WEBHOOK, WEBHOOK_CA] {
        until(&format!("the replicas of {name} serve"), Duration::from_secs(180), async || {
            let deployment = deployments.get(name).await?;
            let generation = deployment.metadata.generation;
            let wanted = deployment.spec.replicas.unwrap_or(1);
            ensure!(wanted >= 2, "{name} has {wanted} replicas");
            let status = deployment.status.unwrap_or_default();
            let serving = [status.updated_replicas, status.available_replicas].map(|count| count.unwrap_or(0));
            let named = ListParams::default().labels(&format!("{}={name}", label::NAME));
            let pods = cluster.api::<Pod>(SYSTEM).list(&named).await?.items.len();
            let rolled_out = status.observed_generation >= generation && serving == [wanted, wanted];
            Ok((rolled_out && i32::try_from(pods)? == wanted).then_some(()))
        })
        .await?;
    }
    Ok(())
}
