//! Users who create large pods do not slow down the admission of others.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World, apply::documents, fixture::PodSpec, pods::container_statuses, replicas::WEBHOOK, scenario,
};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Concurrent large pods, and how many each caller sends one after the other.
const CALLERS: usize = 4;
const EACH: usize = 6;
/// The least number of ordinary pods that are admitted meanwhile.
const ORDINARY: usize = 5;
/// The API server's limit on a request, and the webhook's on a review.
const LONGEST: usize = 3 * 1024 * 1024;

/// Pods of the test's namespace, as untyped JSON.
async fn pods(world: &World) -> Result<Api<DynamicObject>> {
    world.cluster.kind(&GroupVersionKind::gvk("", "v1", "Pod"), &world.namespace).await
}

/// A pod with a changed spec.
fn pod(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Result<DynamicObject> {
    let mut pod = documents(&PodSpec::hold(name).pod(&world.namespace))?.pop().context("a pod")?;
    change(&mut pod.data["spec"]);
    Ok(pod)
}

/// Admits a pod as a dry run: one of this size could not be stored.
async fn admit(pods: &Api<DynamicObject>, pod: &DynamicObject) -> Result<DynamicObject, kube::Error> {
    pods.create(&PostParams { dry_run: true, ..PostParams::default() }, pod).await
}

/// The restarts of each of the webhook's containers, by pod.
async fn restarts(world: &World) -> Result<BTreeMap<String, i32>> {
    let pods = world.product(WEBHOOK).await?;
    Ok(pods
        .iter()
        .map(|pod| (pod.name_any(), container_statuses(pod).map(|status| status.restart_count).sum()))
        .collect())
}

/// The admission plugin for service accounts requires it.
async fn account(world: &World) -> Result<()> {
    let yaml = PodSpec::hold("large").pod(&world.namespace);
    let account = documents(&yaml)?.into_iter().next().context("an account")?;
    world.cluster.apply_object(&account).await.map(drop)
}

/// A pod of 2.7 MB, which took hundreds of MB of memory when all of its JSON was built.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_reviews_neither_end_the_webhook_nor_keep_it_from_the_pods_of_others() {
    scenario("large-others", async |ordinary| {
        account(ordinary).await?;
        scenario("large-flood", async |flood| {
            account(flood).await?;
            let before = restarts(flood).await?;
            ensure!(!before.is_empty(), "the webhook has no pods");
            let large = Arc::new(pod(flood, "large", |spec| {
                spec["tolerations"] = json!(vec![json!({ "key": "a" }); 230_000]);
            })?);
            let (ended, admitted, mut callers) =
                (Arc::new(AtomicBool::new(false)), Arc::<AtomicUsize>::default(), JoinSet::new());
            for _ in 0..CALLERS {
                let (pods, large, admitted) = (pods(flood).await?, large.clone(), admitted.clone());
                callers.spawn(async move {
                    for _ in 0..EACH {
                        // A refusal because too many are in flight is expected.
                        let admission = admit(&pods, &large).await;
                        admitted.fetch_add(usize::from(admission.is_ok()), Ordering::Relaxed);
                    }
                });
            }
            let all = tokio::spawn({
                let ended = ended.clone();
                async move {
                    callers.join_all().await;
                    ended.store(true, Ordering::Relaxed);
                }
            });
            let (pods, small) = (pods(ordinary).await?, pod(ordinary, "large", |_| {})?);
            let mut meanwhile = 0;
            while !ended.load(Ordering::Relaxed) {
                let made = admit(&pods, &small).await.context("an ordinary pod is admitted while large ones come")?;
                assert_eq!(made.data["spec"]["initContainers"][0]["name"], "countersign-agent");
                meanwhile += 1;
            }
            all.await?;
            ensure!(meanwhile >= ORDINARY, "only {meanwhile} ordinary pods were made among the large ones");
            ensure!(admitted.load(Ordering::Relaxed) > 0, "no large pod was admitted");
            assert_eq!(restarts(flood).await?, before, "the webhook was started again");
            Ok(())
        })
        .await;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_beyond_the_limits_of_large_reviews_is_refused_with_the_reason() {
    scenario("large-beyond", async |world| {
        account(world).await?;
        let pods = pods(world).await?;
        let refusal = async |pod: &DynamicObject| match admit(&pods, pod).await {
            Ok(_) => Err(anyhow::anyhow!("it is admitted")),
            Err(kube::Error::Api(status)) => Ok(status.message.clone()),
            Err(error) => Err(error.into()),
        };
        // The request is just below the API server's limit; the review also has what the API server adds to the pod.
        let padded = |length: usize| {
            pod(world, "large", |spec| {
                spec["containers"][0]["env"] = json!([{ "name": "PADDING", "value": "x".repeat(length) }]);
            })
        };
        let bare = serde_json::to_vec(&padded(0)?)?.len();
        let message = refusal(&padded(LONGEST - bare)?).await?;
        assert!(message.contains("longer than 3145728 bytes: make the object smaller"), "{message}");

        let many = pod(world, "large", |spec| {
            let container = spec["containers"][0].clone();
            let named = |index: usize| {
                let mut container = container.clone();
                container["name"] = json!(format!("app-{index}"));
                container
            };
            spec["containers"] = (0..300).map(named).collect();
        })?;
        let message = refusal(&many).await?;
        assert!(
            message.contains("spec.containers has 300 items, of which Countersign accepts at most 256"),
            "{message}"
        );
        Ok(())
    })
    .await;
}
