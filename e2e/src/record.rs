//! The logs of a run: of every container that ran while the tests did, also of those that are gone by now. A program of its
//! own ([`Record::keep`]) follows them; the tests read.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, ResourceExt as _,
    api::LogParams,
    runtime::{WatchStreamExt as _, watcher},
};
use parking_lot::Mutex;
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::Cluster;

/// A folder with a file for each container that ran, and for each time it did.
#[derive(Clone, Debug)]
pub struct Record(PathBuf);

impl Record {
    /// Of this cluster's life.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e");
        Ok(Self(folder.join(format!("logs-{}", cluster.uid().await?))))
    }

    /// All logs so far, each with the name of what wrote it, such as `namespace_pod_container`.
    ///
    /// # Errors
    /// Nobody keeps a record.
    pub fn logs(&self) -> Result<Vec<(String, String)>> {
        let entries = std::fs::read_dir(&self.0).with_context(|| {
            format!(
                "there is no record of the run's logs in {}: run the program countersign-e2e-logs",
                self.0.display()
            )
        })?;
        let mut logs = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            logs.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
        ensure!(!logs.is_empty(), "the record of the run's logs in {} is empty", self.0.display());
        Ok(logs)
    }

    /// Follows the logs of every container in the cluster, from its beginning and for ever; `ready` is called once those that
    /// run already are known.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub async fn keep(self, cluster: Cluster, ready: impl FnOnce()) -> Result<()> {
        if self.0.exists() {
            std::fs::remove_dir_all(&self.0).context("remove an earlier record")?;
        }
        std::fs::create_dir_all(&self.0).with_context(|| format!("make {}", self.0.display()))?;
        let followed = Arc::new(Mutex::new(BTreeSet::new()));
        let mut ready = Some(ready);
        let pods = watcher(Api::<Pod>::all(cluster.client.clone()), watcher::Config::default()).default_backoff();
        let mut pods = std::pin::pin!(pods);
        while let Some(event) = pods.next().await {
            match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    for run in runs(&pod) {
                        if followed.lock().insert(run.file()) {
                            tokio::spawn(run.follow(cluster.clone(), self.0.clone()));
                        }
                    }
                }
                Ok(watcher::Event::InitDone) => {
                    if let Some(ready) = ready.take() {
                        ready();
                    }
                }
                // What cannot be watched now is, in a moment: the API server may be away on purpose.
                Ok(watcher::Event::Delete(_) | watcher::Event::Init) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// One life of a container.
#[derive(Clone, Debug)]
struct Run {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    restart: i32,
}

/// All containers of a pod that have begun.
fn runs(pod: &Pod) -> Vec<Run> {
    let status = pod.status.clone().unwrap_or_default();
    let statuses = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
    let begun = |status: &ContainerStatus| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    statuses
        .filter(begun)
        .map(|status| Run {
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            container: status.name,
            restart: status.restart_count,
        })
        .collect()
}

impl Run {
    fn file(&self) -> String {
        let Self { namespace, pod, uid, container, restart } = self;
        format!("{namespace}_{pod}_{container}_{}_{restart}.log", uid.split('-').next().unwrap_or_default())
    }

    /// Until the container ends. A log that broke off (the API server was away) is read again from its beginning.
    async fn follow(self, cluster: Cluster, folder: PathBuf) {
        let path = folder.join(self.file());
        let pods = cluster.api::<Pod>(&self.namespace);
        let mut pace = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            pace.tick().await;
            let ended = self.read(&pods, &path).await.is_ok();
            let there = match pods.get_opt(&self.pod).await {
                Ok(pod) => pod.is_some_and(|pod| {
                    pod.uid().as_ref() == Some(&self.uid)
                        && runs(&pod).iter().any(|run| run.restart == self.restart && run.container == self.container)
                }),
                // Unknown: ask again.
                Err(_) => true,
            };
            if ended || !there {
                return;
            }
        }
    }

    async fn read(&self, pods: &Api<Pod>, path: &Path) -> Result<()> {
        let what = LogParams { container: Some(self.container.clone()), follow: true, ..LogParams::default() };
        let mut log = std::pin::pin!(pods.log_stream(&self.pod, &what).await?);
        let mut file = File::create(path).await?;
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let length = futures::AsyncReadExt::read(&mut log, &mut bytes).await?;
            if length == 0 {
                return Ok(());
            }
            file.write_all(bytes.get(..length).unwrap_or_default()).await?;
            file.flush().await?;
        }
    }
}
