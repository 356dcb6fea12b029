//! Capture of the logs of every container that ran during the tests, including deleted ones. A separate program
//! ([`LogCapture::run`]) writes them; the tests read them.

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

/// A folder with a log file for each run of each container. A run whose log could not be read, or not completely, has a marker
/// file.
#[derive(Clone, Debug)]
pub struct LogCapture(PathBuf);

/// Extension of a log.
const LOG: &str = "log";
/// Extension of the marker of a log that was never read.
const UNREAD: &str = "unread";
/// Extension of the marker of a log whose end may be missing.
const TRUNCATED: &str = "truncated";

/// Runs of containers whose logs are missing or incomplete, by names such as `namespace_pod_container`.
#[derive(Clone, Debug, Default)]
pub struct MissingLogs {
    /// The container was gone before anything was read.
    pub unread: Vec<String>,
    /// The container was gone after its log stream broke off: the end may be missing.
    pub truncated: Vec<String>,
}

impl LogCapture {
    /// The capture of this cluster's logs.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e");
        Ok(Self(folder.join(format!("logs-{}", cluster.uid().await?))))
    }

    /// All logs so far, each with the name of its container, such as `namespace_pod_container`.
    ///
    /// # Errors
    /// No capture is running.
    pub fn logs(&self) -> Result<Vec<(String, String)>> {
        let mut logs = Vec::new();
        for (name, path) in self.files(LOG)? {
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            logs.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
        ensure!(!logs.is_empty(), "the log capture in {} is empty", self.0.display());
        Ok(logs)
    }

    /// The logs that are missing or incomplete so far.
    ///
    /// # Errors
    /// No capture is running.
    pub fn missing(&self) -> Result<MissingLogs> {
        let names = |kind: &str| Ok::<_, anyhow::Error>(self.files(kind)?.into_iter().map(|(name, _)| name).collect());
        Ok(MissingLogs { unread: names(UNREAD)?, truncated: names(TRUNCATED)? })
    }

    /// The names and paths of the files of one kind.
    fn files(&self, kind: &str) -> Result<Vec<(String, PathBuf)>> {
        let entries = std::fs::read_dir(&self.0).with_context(|| {
            format!("there is no log capture in {}: run the program countersign-e2e-logs", self.0.display())
        })?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == kind) {
                files.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path));
            }
        }
        Ok(files)
    }

    /// Follows the logs of every container in the cluster, from their beginning, until it is cancelled. `ready` is called once all
    /// running containers are known.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub async fn run(self, cluster: Cluster, ready: impl FnOnce()) -> Result<()> {
        if self.0.exists() {
            std::fs::remove_dir_all(&self.0).context("remove an earlier capture")?;
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
                // The watcher retries: a test may have stopped the API server on purpose.
                Ok(watcher::Event::Delete(_) | watcher::Event::Init) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// One run of a container.
#[derive(Clone, Debug)]
struct Run {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    restart: i32,
}

/// The runs of all containers of a pod that have started.
fn runs(pod: &Pod) -> Vec<Run> {
    let status = pod.status.clone().unwrap_or_default();
    let statuses = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
    // One that was never created ends too, with its pod.
    let begun = |status: &ContainerStatus| {
        let state = status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        state && status.container_id.is_some()
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

    /// Captures the log until the container ends. A stream that breaks off (the API server was unavailable) is read again from its
    /// beginning. If the container is gone by then, a marker file is written instead.
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
                // Unknown: retry.
                Err(_) => true,
            };
            if ended {
                return;
            }
            if !there {
                let kind = if path.exists() { TRUNCATED } else { UNREAD };
                // This fails only if the folder is gone, and then nothing can be read anyway.
                let _ = std::fs::write(path.with_extension(kind), "");
                return;
            }
        }
    }

    async fn read(&self, pods: &Api<Pod>, path: &Path) -> Result<()> {
        let what = LogParams { container: Some(self.container.clone()), follow: true, ..LogParams::default() };
        let mut log = std::pin::pin!(pods.log_stream(&self.pod, &what).await?);
        // The file is created only now, so that its existence means that something was read.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_log_is_reported_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in
            [("a_b_c_1_0.log", "said"), ("a_b_d_1_0.unread", ""), ("a_b_e_1_0.log", "so"), ("a_b_e_1_0.truncated", "")]
        {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let capture = LogCapture(folder.path().to_owned());
        let mut logs = capture.logs().unwrap();
        logs.sort();
        assert_eq!(logs, [("a_b_c_1_0".to_owned(), "said".to_owned()), ("a_b_e_1_0".to_owned(), "so".to_owned())]);
        let missing = capture.missing().unwrap();
        assert_eq!((missing.unread, missing.truncated), (vec!["a_b_d_1_0".to_owned()], vec!["a_b_e_1_0".to_owned()]));
    }
}
