//! Requirements of the machine. On Debian, missing packages and the Rust target are installed and reported; requirements
//! that cannot be installed from here (Rust, Go, Node.js) are named in an error.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::progress::Progress;
use crate::sh::{Run as _, cmd, on_path};

/// The target of all binaries in images, which are static files.
pub(crate) const MUSL: &str = "x86_64-unknown-linux-musl";

/// The oldest major version of Node.js on which the package `jose` runs.
const OLDEST_NODE: u32 = 20;

/// How an installed package is recognized.
#[derive(Debug, Clone, Copy)]
enum Sign {
    Program(&'static str),
    File(&'static str),
}

/// A Debian package, and how it is recognized.
type Package = (&'static str, Sign);

/// Packages to build and run a cluster.
const CLUSTER: [Package; 6] = [
    ("nftables", Sign::Program("nft")),
    ("iproute2", Sign::Program("ip")),
    ("util-linux", Sign::Program("unshare")),
    ("gcc", Sign::Program("gcc")),
    ("pkg-config", Sign::Program("pkg-config")),
    ("libseccomp-dev", Sign::File("/usr/include/seccomp.h")),
];

/// Packages to build static binaries for images.
const IMAGES: [Package; 2] = [("gcc", Sign::Program("gcc")), ("musl-tools", Sign::Program("musl-gcc"))];

/// Packages to assemble an image with Python.
const PYTHON: [Package; 2] = [
    ("python3", Sign::Program("python3")),
    ("python3-pip", Sign::File("/usr/lib/python3/dist-packages/pip/__init__.py")),
];

/// Packages to unpack stored binaries of earlier releases.
const STORED: [Package; 1] = [("xz-utils", Sign::Program("xz"))];

/// Packages that the end-to-end tests need in addition to the cluster.
const TESTS: [Package; 1] = [("openssl", Sign::Program("openssl"))];

/// Packages to build libFuzzer.
const FUZZING: [Package; 1] = [("g++", Sign::Program("c++"))];

/// Ensures the requirements of a cluster.
pub(crate) fn for_cluster() -> Result<()> {
    go()?;
    packages(&CLUSTER)
}

/// Ensures the requirements of static binaries.
pub(crate) fn for_images() -> Result<()> {
    packages(&IMAGES)?;
    rust_target()
}

/// Ensures the requirements of an image with Python.
pub(crate) fn for_python() -> Result<()> {
    packages(&PYTHON)
}

/// Ensures the requirements of stored binaries.
pub(crate) fn for_stored() -> Result<()> {
    packages(&STORED)
}

/// Ensures the requirements of the end-to-end tests.
pub(crate) fn for_tests() -> Result<()> {
    packages(&TESTS)
}

/// Ensures the requirements of the fuzzer.
pub(crate) fn for_fuzzing() -> Result<()> {
    packages(&FUZZING)
}

/// Go is not installed automatically: Debian 12 has only an older version.
pub(crate) fn go() -> Result<()> {
    if on_path("go").is_none() {
        bail!("Go is not on PATH; install Go 1.26.8 or newer (https://go.dev/doc/install) and try again");
    }
    Ok(())
}

/// Node.js is not installed automatically: Debian 12 has only an older version.
pub(crate) fn node() -> Result<()> {
    let version = cmd("node", ["--version"]).read().unwrap_or_default();
    let major = version.strip_prefix('v').and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST_NODE) || on_path("npm").is_none() {
        bail!(
            "Node.js {OLDEST_NODE} or newer with npm is not on PATH; install it (https://nodejs.org/en/download) and try again"
        );
    }
    Ok(())
}

/// A cluster consists of namespaces, mounts and links, which require root.
pub(crate) fn root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a cluster of its own needs root; run as root, or set KUBECONFIG to the cluster to use");
    }
    Ok(())
}

fn packages(wanted: &[Package]) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().filter(|(_, sign)| !is_there(*sign)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if on_path("apt-get").is_none() || !nix::unistd::geteuid().is_root() {
        bail!("missing packages: {list}; install them (on Debian as root: apt-get install {list}) and try again");
    }
    let progress = Progress::start(format!("install {list}"));
    let apt = |args: &[&str]| cmd("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive").quiet();
    apt(&["update", "-qq"]).context("refreshing the lists of packages")?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)?;
    progress.done("installed");
    Ok(())
}

/// Downloads Debian packages into `folder`, unless they are there. Returns their archives.
pub(crate) fn download(packages: &[&str], folder: &Path) -> Result<Vec<PathBuf>> {
    if on_path("apt-get").is_none() {
        bail!("apt-get is not on PATH; the packages {} are downloaded with it", packages.join(" "));
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    packages.iter().map(|package| download_one(package, folder)).collect()
}

fn download_one(package: &str, folder: &Path) -> Result<PathBuf> {
    if let Some(archive) = archive_of(package, folder)? {
        return Ok(archive);
    }
    let apt = |args: &[&str]| cmd("apt-get", args).args(["-o", "APT::Sandbox::User=root"]).current_dir(folder).quiet();
    if apt(&["download", "-qq", package]).is_err() {
        apt(&["update", "-qq"]).context("refreshing the lists of packages")?;
        apt(&["download", "-qq", package])?;
    }
    archive_of(package, folder)?.with_context(|| format!("apt-get did not download {package}"))
}

/// The archive of a package: `name_version_architecture.deb`.
fn archive_of(package: &str, folder: &Path) -> Result<Option<PathBuf>> {
    let prefix = format!("{package}_");
    let is_of = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(".deb")
    };
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_of))
}

fn rust_target() -> Result<()> {
    let sysroot = cmd("rustc", ["--print", "sysroot"]).read()?;
    if Path::new(&sysroot).join("lib/rustlib").join(MUSL).is_dir() {
        return Ok(());
    }
    let progress = Progress::start(format!("install the Rust target {MUSL}"));
    cmd("rustup", ["target", "add", MUSL])
        .quiet()
        .with_context(|| format!("the Rust target {MUSL} is missing, and rustup could not add it"))?;
    progress.done("installed");
    Ok(())
}

fn is_there(sign: Sign) -> bool {
    match sign {
        Sign::Program(name) => on_path(name).is_some(),
        Sign::File(path) => Path::new(path).exists(),
    }
}
