//! The cluster for all commands, one of three:
//! - the cluster of `KUBECONFIG`, unless `KUBECONFIG` names one of our own: `up` prints that path for `kubectl`, and later
//!   commands in the same shell must recognize it;
//! - with a working Docker and `kind` on `PATH`, a cluster created by kind from `kind-config.yaml`;
//! - otherwise a cluster of our own on this machine (`e2e/cluster`).
//!
//! Every change is tested on our own cluster. The kind variant has not been run yet: it follows kind's documentation, for
//! `.github/workflows/kind.yml`.

mod components;
mod fault;
mod host;
mod layout;
mod leftovers;
mod node;
mod own;
mod pki;
mod state;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use countersign_contract::environment::test::LOAD;

use crate::image;
use crate::kube::Kubectl;
use crate::progress::{Progress, say};
use crate::sh::{Run as _, cmd, on_path};
use crate::{build, deps};

pub(crate) use fault::{Component, Node, signal};
pub(crate) use layout::Layout;
pub(crate) use node::init as node_init;
pub(crate) use state::Extent;

/// The name of the cluster of `cargo xtask up`.
pub(crate) const DEFAULT: &str = "countersign";

/// A running cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) kubectl: Kubectl,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Own(Layout),
    /// A cluster of kind, by its name.
    Docker(String),
    /// The cluster of `KUBECONFIG`, with the command that loads images, if there is one.
    Given(Option<String>),
}

/// Whether `KUBECONFIG` names a cluster that we must not start or end.
pub(crate) fn is_given(root: &Path) -> bool {
    given_kubeconfig(root).is_some()
}

/// Starts the cluster, or finds it running.
pub(crate) fn up(root: &Path, name: &str) -> Result<Cluster> {
    match Choice::make(root) {
        Choice::Given(kubeconfig) => given(root, kubeconfig),
        Choice::Kind => up_kind(root, name),
        Choice::Own => {
            let layout = own::up(root, name, Extent::Whole)?;
            Ok(Cluster { kubectl: own::kubectl(&layout), kind: Kind::Own(layout) })
        }
    }
}

/// Starts a cluster of our own with only etcd and an API server, or finds it running.
pub(crate) fn up_api_server(root: &Path, name: &str) -> Result<Cluster> {
    let layout = own::up(root, name, Extent::ApiServer)?;
    Ok(Cluster { kubectl: own::kubectl(&layout), kind: Kind::Own(layout) })
}

/// Ends a cluster of our own, whatever `KUBECONFIG` is.
pub(crate) fn down_own(root: &Path, name: &str) -> Result<()> {
    own::down(root, name)
}

/// Finds the cluster, which must be running.
pub(crate) fn find(root: &Path, name: &str) -> Result<Cluster> {
    let cluster = match Choice::make(root) {
        Choice::Given(kubeconfig) => return given(root, kubeconfig),
        Choice::Kind => {
            let kubeconfig = kind_kubeconfig(root, name);
            kubeconfig.is_file().then_some((kubeconfig, Kind::Docker(name.to_owned())))
        }
        Choice::Own => own::running(root, name).map(|layout| (layout.kubeconfig(), Kind::Own(layout))),
    };
    let (kubeconfig, kind) =
        cluster.with_context(|| format!("cluster {name} is not up; start it with `cargo xtask up`"))?;
    Ok(Cluster { kubectl: Kubectl { program: kubectl_program(root)?, kubeconfig }, kind })
}

/// Ends the cluster, unless it is that of `KUBECONFIG`.
pub(crate) fn down(root: &Path, name: &str) -> Result<()> {
    match Choice::make(root) {
        Choice::Given(kubeconfig) => {
            bail!("KUBECONFIG is set ({}): that cluster is not ours to end; unset it", kubeconfig.display())
        }
        Choice::Kind => {
            let progress = Progress::start(format!("end kind's cluster {name}"));
            cmd("kind", ["delete", "cluster", "--name", name]).quiet()?;
            let kubeconfig = kind_kubeconfig(root, name);
            if kubeconfig.exists() {
                fs::remove_file(&kubeconfig).with_context(|| format!("removing {}", kubeconfig.display()))?;
            }
            progress.done("deleted");
            Ok(())
        }
        Choice::Own => own::down(root, name),
    }
}

impl Cluster {
    /// Loads image archives that differ from those already loaded; returns whether there were any.
    pub(crate) fn load(&self, archives: &[PathBuf]) -> Result<bool> {
        let known_file = self.known_images_file();
        let mut known: BTreeMap<String, String> =
            known_file.as_ref().and_then(|file| serde_json::from_slice(&fs::read(file).ok()?).ok()).unwrap_or_default();
        let mut any = false;
        for archive in archives {
            let (name, digest) = (archive.display().to_string(), image::digest(archive)?);
            if known.get(&name) == Some(&digest) {
                continue;
            }
            let progress = Progress::start(format!("load {name}"));
            self.load_one(archive)?;
            progress.done("loaded");
            known.insert(name, digest);
            any = true;
        }
        if let (true, Some(file)) = (any, known_file) {
            fs::write(&file, serde_json::to_vec(&known)?).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(any)
    }

    /// The command that breaks parts of the cluster, if it supports faults.
    pub(crate) fn fault_command(&self) -> Result<Option<String>> {
        match &self.kind {
            Kind::Own(layout) => {
                let this = std::env::current_exe().context("finding this program")?;
                Ok(Some(format!("{} fault --name {}", this.display(), layout.name)))
            }
            Kind::Docker(_) | Kind::Given(_) => Ok(None),
        }
    }

    /// The API server's audit log, if there is one.
    pub(crate) fn audit_log(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Own(layout) => Some(layout.audit_log()),
            Kind::Docker(_) | Kind::Given(_) => None,
        }
    }

    /// The folder with the components' logs, if there is one.
    pub(crate) fn logs(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Own(layout) => Some(layout.log()),
            Kind::Docker(_) | Kind::Given(_) => None,
        }
    }

    /// Prints the state of the cluster.
    pub(crate) fn report(&self) -> Result<()> {
        let version = self.kubectl.server_version();
        say(format!("API server: {}", version.as_deref().unwrap_or("does not answer")));
        say(format!("export KUBECONFIG={}", self.kubectl.kubeconfig.display()));
        say(format!("kubectl is {}", self.kubectl.program.display()));
        self.kubectl.cmd(&["get", "nodes,pods", "--all-namespaces", "--output=wide"]).run()
    }

    fn load_one(&self, archive: &Path) -> Result<()> {
        match &self.kind {
            Kind::Own(layout) => own::load(layout, archive),
            Kind::Docker(name) => cmd("kind", ["load", "image-archive", "--name", name]).arg(archive).quiet(),
            Kind::Given(Some(command)) => {
                let mut words = command.split_whitespace();
                let program = words.next().with_context(|| format!("{LOAD} is empty"))?;
                cmd(program, words).arg(archive).quiet()
            }
            Kind::Given(None) => {
                bail!("{LOAD} is not set: how are images loaded into the cluster of KUBECONFIG?")
            }
        }
    }

    /// The file that lists the images loaded into our own cluster; other clusters may lose images unnoticed.
    fn known_images_file(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Own(layout) => Some(layout.dir().join("images.json")),
            Kind::Docker(_) | Kind::Given(_) => None,
        }
    }
}

/// The kinds of clusters.
enum Choice {
    Given(PathBuf),
    Kind,
    Own,
}

impl Choice {
    fn make(root: &Path) -> Self {
        if let Some(kubeconfig) = given_kubeconfig(root) {
            return Self::Given(kubeconfig);
        }
        let docker = on_path("kind").is_some() && cmd("docker", ["info"]).succeeds();
        if docker { Self::Kind } else { Self::Own }
    }
}

/// The value of `KUBECONFIG`, if it names a cluster that we did not create. It is read only here.
fn given_kubeconfig(root: &Path) -> Option<PathBuf> {
    std::env::var_os("KUBECONFIG").filter(|value| !is_ours(root, value)).map(PathBuf::from)
}

/// Whether every path in a value of `KUBECONFIG` is one that we write, so that none leads to another cluster.
fn is_ours(root: &Path, value: &OsStr) -> bool {
    let clusters = resolved(&root.join("target/cluster"));
    let ours = |path: PathBuf| {
        let path = resolved(&path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let name = name.to_string_lossy();
        let own = name == "kubeconfig" && parent.parent() == Some(&clusters);
        own || (parent == clusters && name.starts_with("kind-") && name.ends_with(".kubeconfig"))
    };
    std::env::split_paths(value).filter(|path| !path.as_os_str().is_empty()).all(ours)
}

/// Resolves links and relative parts of the path, as far as it exists: `down` deletes the file, and the shell still names
/// it.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path,
    }
}

fn given(root: &Path, kubeconfig: PathBuf) -> Result<Cluster> {
    let kubectl = Kubectl { program: kubectl_program(root)?, kubeconfig };
    let context = kubectl.cmd(&["config", "current-context"]).read()?;
    say(format!("==> KUBECONFIG is set: cluster `{context}` is used"));
    let command = std::env::var(LOAD).ok().filter(|command| !command.trim().is_empty());
    let kind = match (command, context.strip_prefix("kind-")) {
        (None, Some(name)) => Kind::Docker(name.to_owned()),
        (command, _) => Kind::Given(command),
    };
    Ok(Cluster { kubectl, kind })
}

fn up_kind(root: &Path, name: &str) -> Result<Cluster> {
    let kubeconfig = kind_kubeconfig(root, name);
    let clusters = cmd("kind", ["get", "clusters"]).read()?;
    if clusters.lines().any(|line| line == name) {
        say(format!("==> kind's cluster {name} is up"));
        cmd("kind", ["export", "kubeconfig", "--name", name, "--kubeconfig"]).arg(&kubeconfig).quiet()?;
    } else {
        let progress = Progress::start(format!("kind create cluster {name}"));
        fs::create_dir_all(root.join("target/cluster"))?;
        cmd("kind", ["create", "cluster", "--wait=180s", "--name", name, "--config"])
            .arg(root.join("kind-config.yaml"))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .quiet()?;
        progress.done("created");
    }
    let kubectl = Kubectl { program: kubectl_program(root)?, kubeconfig };
    Ok(Cluster { kubectl, kind: Kind::Docker(name.to_owned()) })
}

fn kind_kubeconfig(root: &Path, name: &str) -> PathBuf {
    root.join("target/cluster").join(format!("kind-{name}.kubeconfig"))
}

/// `kubectl` of our cluster's version if it is built, otherwise the one on `PATH`; built if there is none.
fn kubectl_program(root: &Path) -> Result<PathBuf> {
    let own = build::bin(root).join("kubectl");
    if own.is_file() {
        return Ok(own);
    }
    match on_path("kubectl") {
        Some(program) => Ok(program),
        None => build::kubectl(root),
    }
}

/// The layout for `node-init`.
pub(crate) fn layout(root: &Path, name: &str, number: u8) -> Result<Layout> {
    deps::root()?;
    layout::check_name(name)?;
    Ok(Layout { root: root.to_owned(), name: name.to_owned(), number })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A checkout with a cluster of our own, a cluster of kind, and a folder elsewhere.
    fn checkout() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("checkout");
        fs::create_dir_all(root.join("target/cluster/countersign")).unwrap();
        fs::write(root.join("target/cluster/countersign/kubeconfig"), "").unwrap();
        fs::write(root.join("target/cluster/kind-countersign.kubeconfig"), "").unwrap();
        (dir, root)
    }

    fn ours(root: &Path, paths: &[&Path]) -> bool {
        is_ours(root, &std::env::join_paths(paths).unwrap())
    }

    #[test]
    fn the_kubeconfig_that_up_prints_names_no_given_cluster() {
        let (_dir, root) = checkout();
        let clusters = root.join("target/cluster");
        let (own, kind) = (clusters.join("countersign/kubeconfig"), clusters.join("kind-countersign.kubeconfig"));
        assert!(ours(&root, &[&own]));
        assert!(ours(&root, &[&kind]));
        assert!(ours(&root, &[&own, &kind, Path::new("")]));
        assert!(ours(&root, &[&clusters.join("countersign/../countersign/kubeconfig")]));
        assert!(ours(&root, &[Path::new("")]), "an empty variable names none");
    }

    #[test]
    fn it_is_known_again_after_down_has_taken_it_away() {
        let (_dir, root) = checkout();
        fs::remove_dir_all(root.join("target/cluster/countersign")).unwrap();
        assert!(ours(&root, &[&root.join("target/cluster/countersign/kubeconfig")]));
        fs::remove_dir_all(root.join("target")).unwrap();
        assert!(ours(&root, &[&root.join("target/cluster/countersign/kubeconfig")]));
    }

    #[test]
    fn it_is_known_under_another_name_of_the_same_folder() {
        let (dir, root) = checkout();
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(root.join("target"), &elsewhere).unwrap();
        symlink(&elsewhere, root.join("target")).unwrap();
        let link = dir.path().join("link");
        symlink(&root, &link).unwrap();
        for path in [&root.join("target"), &elsewhere, &link.join("target")] {
            assert!(ours(&root, &[&path.join("cluster/countersign/kubeconfig")]), "{}", path.display());
            assert!(ours(&link, &[&path.join("cluster/countersign/kubeconfig")]), "{}", path.display());
        }
    }

    #[test]
    fn any_other_kubeconfig_names_a_given_cluster() {
        let (dir, root) = checkout();
        let clusters = root.join("target/cluster");
        let own = clusters.join("countersign/kubeconfig");
        let others = [
            dir.path().join("config"),
            root.join("kubeconfig"),
            clusters.join("kubeconfig"),
            clusters.join("mine.kubeconfig"),
            clusters.join("countersign/lib/kubeconfig"),
            dir.path().join("target/cluster/countersign/kubeconfig"),
            clusters.join("../../../config"),
        ];
        for other in &others {
            assert!(!ours(&root, &[other]), "{}", other.display());
            assert!(!ours(&root, &[&own, other]), "{}", other.display());
        }
        // A link counts as its target.
        fs::write(dir.path().join("config"), "").unwrap();
        fs::create_dir(clusters.join("linked")).unwrap();
        symlink(dir.path().join("config"), clusters.join("linked/kubeconfig")).unwrap();
        assert!(!ours(&root, &[&clusters.join("linked/kubeconfig")]));
    }
}
