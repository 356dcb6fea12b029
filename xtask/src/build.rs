//! Builds the cluster's programs from pinned Go modules into `target/cluster/bin`. A stamp of the inputs of a build (the
//! module's files, the flags, the Go version) avoids rebuilding.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::deps;
use crate::progress::Progress;
use crate::sh::{Run as _, cmd};

/// A Go module below `e2e/cluster`, and the programs built from it.
struct Module {
    dir: &'static str,
    /// Import paths; each becomes a program with the name of its last element.
    packages: &'static [&'static str],
    /// Additional names of the first program, by which it selects its function.
    names: &'static [&'static str],
    /// The program's name, if it is not the last element of the only import path.
    output: Option<&'static str>,
    tags: &'static str,
    /// `-X` settings of the linker.
    variables: &'static [&'static str],
    cgo: bool,
}

const KUBERNETES: Module = Module {
    dir: "tools/kubernetes-1.37",
    packages: &[
        "countersign.local/kubernetes",
        // Called often and briefly: a program of its own starts sooner.
        "k8s.io/kubernetes/cmd/kubectl",
    ],
    names: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"],
    output: None,
    tags: "",
    // Without these the API server reports version v0.0.0, and clients refuse it.
    variables: &[
        "k8s.io/component-base/version.gitVersion=v1.37.0",
        "k8s.io/component-base/version.gitMajor=1",
        "k8s.io/component-base/version.gitMinor=37",
        "k8s.io/component-base/version.gitTreeState=clean",
        "k8s.io/component-base/version.gitCommit=unknown",
        "k8s.io/component-base/version.buildDate=2026-01-01T00:00:00Z",
    ],
    cgo: false,
};

const MODULES: [Module; 7] = [
    KUBERNETES,
    Module {
        dir: "tools/etcd",
        packages: &["go.etcd.io/etcd/server/v3"],
        names: &[],
        output: Some("etcd"),
        tags: "",
        variables: &[],
        cgo: false,
    },
    Module {
        dir: "tools/containerd",
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
        names: &[],
        output: None,
        tags: "no_btrfs no_zfs no_devmapper",
        variables: &["github.com/containerd/containerd/v2/version.Version=v2.3.7"],
        cgo: false,
    },
    // Without the tag no sandbox starts: Kubernetes requires a seccomp profile.
    Module {
        dir: "tools/runc",
        packages: &["github.com/opencontainers/runc"],
        names: &[],
        output: None,
        tags: "seccomp",
        variables: &["main.version=1.5.2"],
        cgo: true,
    },
    Module {
        dir: "tools/cni",
        packages: &[
            "github.com/containernetworking/plugins/plugins/main/bridge",
            "github.com/containernetworking/plugins/plugins/main/loopback",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "github.com/containernetworking/plugins/plugins/meta/portmap",
        ],
        names: &[],
        output: None,
        tags: "",
        variables: &[],
        cgo: false,
    },
    Module {
        dir: "tools/coredns",
        packages: &["."],
        names: &[],
        output: Some("coredns"),
        tags: "",
        variables: &[],
        cgo: false,
    },
    Module {
        dir: "images/pause",
        packages: &["."],
        names: &[],
        output: Some("pause"),
        tags: "",
        variables: &[],
        cgo: false,
    },
];

/// The folder of the programs.
pub(crate) fn bin(root: &Path) -> PathBuf {
    root.join("target/cluster/bin")
}

/// Builds the programs of a cluster, if they are not up to date.
pub(crate) fn cluster_programs(root: &Path) -> Result<()> {
    for module in &MODULES {
        build(root, module)?;
    }
    Ok(())
}

/// `kubectl` of the cluster's version, built together with the other Kubernetes programs.
pub(crate) fn kubectl(root: &Path) -> Result<PathBuf> {
    deps::go()?;
    build(root, &KUBERNETES)?;
    Ok(bin(root).join("kubectl"))
}

/// Builds one Go program without cgo: a static file for an image.
pub(crate) fn static_go(dir: &Path, output: &Path) -> Result<()> {
    deps::go()?;
    cmd("go", ["build", "-trimpath", "-mod=readonly", "-ldflags", "-s -w", "-o"])
        .args([output.as_os_str(), ".".as_ref()])
        .env("CGO_ENABLED", "0")
        .current_dir(dir)
        .run()
        .with_context(|| format!("building the Go program in {}", dir.display()))
}

fn build(root: &Path, module: &Module) -> Result<()> {
    let dir = root.join("e2e/cluster").join(module.dir);
    let bin = bin(root);
    fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    let outputs = module.outputs();
    let args = module.args(&bin);
    let stamp = stamp(&dir, &args)?;
    let stamp_file = bin.join(format!(".{}.stamp", outputs.join("+")));
    let up_to_date = fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp)
        && outputs.iter().chain(module.names).all(|name| bin.join(name).is_file());
    if up_to_date {
        return Ok(());
    }
    let progress = Progress::start(format!("build {}", outputs.join(", ")));
    cmd("go", &args)
        .env("CGO_ENABLED", if module.cgo { "1" } else { "0" })
        .current_dir(&dir)
        .quiet()
        .with_context(|| format!("building e2e/cluster/{}", module.dir))?;
    for name in module.names {
        let link = bin.join(name);
        // An earlier build may have left a program in this place.
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))?;
        }
        symlink(outputs.first().copied().unwrap_or_default(), &link)
            .with_context(|| format!("making {}", link.display()))?;
    }
    fs::write(&stamp_file, stamp).with_context(|| format!("writing {}", stamp_file.display()))?;
    progress.done("built");
    Ok(())
}

impl Module {
    fn outputs(&self) -> Vec<&'static str> {
        match self.output {
            Some(name) => vec![name],
            None => self.packages.iter().map(|p| p.rsplit('/').next().unwrap_or(p)).collect(),
        }
    }

    fn args(&self, bin: &Path) -> Vec<String> {
        let variables = self.variables.iter().map(|v| format!(" -X {v}")).collect::<String>();
        // With a trailing slash, each program in the folder keeps its own name.
        let output = format!("{}/{}", bin.display(), self.output.unwrap_or_default());
        let mut args: Vec<String> = ["build", "-trimpath", "-mod=readonly", "-o"].map(str::to_owned).into();
        args.push(output);
        if !self.tags.is_empty() {
            args.extend(["-tags".to_owned(), self.tags.to_owned()]);
        }
        args.extend(["-ldflags".to_owned(), format!("-s -w{variables}")]);
        args.extend(self.packages.iter().map(|p| (*p).to_owned()));
        args
    }
}

/// A digest of all inputs of the build.
fn stamp(dir: &Path, args: &[String]) -> Result<String> {
    let mut digest = Sha256::new();
    digest.update(args.join("\n"));
    digest.update(cmd("go", ["env", "GOVERSION", "GOARCH"]).current_dir(dir).read()?);
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    for file in files {
        digest.update(fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(format!("{:x}", digest.finalize()))
}
