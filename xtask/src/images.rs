//! All images: a table of their contents, and how each kind is built. They are written to `target/images/<name>.tar` and
//! loaded as `countersign.local/<name>:dev`; programs of earlier releases as `countersign.local/<name>:<version>`.

mod debian;
mod stored;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::image::{self, Content, EXECUTABLE_ONLY, READABLE};
use crate::progress::Progress;
use crate::sh::{Run as _, cmd};
use crate::{deps, python};

/// The build profile of the workspace's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// As released: for measurements and soak tests.
    Release,
    /// The same code with a shorter build: for `up` and `test`.
    Quick,
}

impl Build {
    fn profile(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Quick => "quick",
        }
    }
}

/// The purpose of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Installed by users.
    Product,
    /// Run by `up` as a demonstration.
    Demo,
    /// Run only by the end-to-end tests.
    Test,
}

/// An image: its name, purpose and source.
#[derive(Debug, Clone, Copy)]
struct Image {
    name: &'static str,
    group: Group,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// A static binary of this workspace, and its mode in the image.
    Rust { package: &'static str, bin: &'static str, mode: u32 },
    /// As `Rust`: an example of this package.
    Example { package: &'static str, example: &'static str },
    /// A folder with a Go module and its main package.
    Go { dir: &'static str },
    /// A folder with `requirements.txt` and the script.
    Python { dir: &'static str, script: &'static str },
    /// A program of Debian packages, which are downloaded and not installed.
    Debian { packages: &'static [&'static str], program: &'static str },
    /// A binary of an earlier release, in an archive. The image has the current name, and this tag.
    Stored { archive: &'static str, bin: &'static str, of: &'static str, tag: &'static str },
}

/// Redis, and the libraries that a machine without it may lack.
const REDIS: [&str; 7] =
    ["redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1", "libssl3", "libsystemd0"];

/// To add an image, add a line here.
const IMAGES: [Image; 15] = [
    rust("operator", Group::Product, "countersign-operator", "countersign-operator", READABLE),
    rust("webhook", Group::Product, "countersign-webhook", "countersign-webhook", READABLE),
    rust("agent", Group::Product, "countersign-agent", "countersign-agent", EXECUTABLE_ONLY),
    rust("endpoint", Group::Product, "countersign-endpoint", "countersign-endpoint", READABLE),
    rust("demo", Group::Demo, "countersign-e2e", "countersign-demo", READABLE),
    example("verify-service", "countersign-verify", "service"),
    example("verify-client", "countersign-verify", "client"),
    Image { name: "client-go", group: Group::Test, source: Source::Go { dir: "e2e/workloads/go" } },
    Image {
        name: "client-python",
        group: Group::Test,
        source: Source::Python { dir: "e2e/workloads/python", script: "client.py" },
    },
    rust("hop", Group::Demo, "countersign-e2e", "countersign-hop", READABLE),
    Image {
        name: "redis",
        group: Group::Test,
        source: Source::Debian { packages: &REDIS, program: "/usr/bin/redis-server" },
    },
    Image { name: "proofs-go", group: Group::Test, source: Source::Go { dir: "examples/proofs/go" } },
    Image {
        name: "proofs-python",
        group: Group::Test,
        source: Source::Python { dir: "examples/proofs/python", script: "service.py" },
    },
    Image {
        name: "agent-0.1.0",
        group: Group::Test,
        source: Source::Stored {
            archive: "e2e/agents/0.1.0-x86_64.tar.xz",
            bin: "countersign-agent",
            of: "agent",
            tag: "0.1.0",
        },
    },
    Image {
        name: "operator-0.1.0",
        group: Group::Test,
        source: Source::Stored {
            archive: "e2e/operators/0.1.0-x86_64.tar.xz",
            bin: "countersign-operator",
            of: "operator",
            tag: "0.1.0",
        },
    },
];

const fn rust(name: &'static str, group: Group, package: &'static str, bin: &'static str, mode: u32) -> Image {
    Image { name, group, source: Source::Rust { package, bin, mode } }
}

/// What the documentation of a library shows, as the tests run it.
const fn example(name: &'static str, package: &'static str, example: &'static str) -> Image {
    Image { name, group: Group::Test, source: Source::Example { package, example } }
}

/// Builds the images of these groups; returns their archives.
pub(crate) fn make(root: &Path, groups: &[Group], build: Build) -> Result<Vec<PathBuf>> {
    make_all(root, IMAGES.iter().filter(|image| groups.contains(&image.group)).collect(), build)
}

/// Builds the images of these names, or all if none is named; returns their archives.
pub(crate) fn make_named(root: &Path, names: &[String], build: Build) -> Result<Vec<PathBuf>> {
    if let Some(unknown) = names.iter().find(|name| IMAGES.iter().all(|image| image.name != **name)) {
        let known = IMAGES.map(|image| image.name).join(", ");
        bail!("there is no image `{unknown}`; there are {known}");
    }
    let wanted = |image: &&Image| names.is_empty() || names.iter().any(|name| name == image.name);
    make_all(root, IMAGES.iter().filter(wanted).collect(), build)
}

fn make_all(root: &Path, wanted: Vec<&Image>, build: Build) -> Result<Vec<PathBuf>> {
    build_rust(root, &wanted, build)?;
    let progress = Progress::start("make images");
    let mut archives = Vec::new();
    for image in wanted {
        let archive = root.join("target/images").join(format!("{}.tar", image.name));
        let content = image.content(root, build).with_context(|| format!("making the image {}", image.name))?;
        image::write(&archive, &image.reference(), &content)?;
        let megabytes = archive.metadata()?.len().div_ceil(1_000_000);
        progress.note(format!("{} ({megabytes} MB): {}", image.reference(), archive.display()));
        archives.push(archive);
    }
    progress.done(format!("{} images", archives.len()));
    Ok(archives)
}

impl Image {
    fn reference(&self) -> String {
        match self.source {
            Source::Stored { of, tag, .. } => format!("countersign.local/{of}:{tag}"),
            _ => format!("countersign.local/{}:dev", self.name),
        }
    }

    fn content(&self, root: &Path, build: Build) -> Result<Content> {
        match self.source {
            Source::Rust { bin, mode, .. } => Ok(Content::binary(&built(root, build).join(bin), mode)),
            Source::Example { example, .. } => {
                Ok(Content::binary(&built(root, build).join("examples").join(example), READABLE))
            }
            Source::Go { dir } => {
                let binary = root.join("target/images/go").join(self.name);
                crate::build::static_go(&root.join(dir), &binary)?;
                Ok(Content::binary(&binary, READABLE))
            }
            Source::Python { dir, script } => {
                python::content(&root.join(dir), script, &root.join("target/images").join(self.name))
            }
            Source::Debian { packages, program } => {
                debian::content(packages, program, &root.join("target/images").join(self.name))
            }
            Source::Stored { archive, bin, .. } => {
                let dir = root.join("target/images/stored").join(self.name);
                Ok(Content::binary(&stored::unpack(root, archive, &dir, bin)?, READABLE))
            }
        }
    }
}

fn build_rust(root: &Path, images: &[&Image], build: Build) -> Result<()> {
    let programs = images.iter().filter_map(|image| match image.source {
        Source::Rust { package, bin, .. } => Some(Program { package, kind: "--bin", name: bin }),
        Source::Example { package, example } => Some(Program { package, kind: "--example", name: example }),
        _ => None,
    });
    build_programs(root, &programs.collect::<Vec<_>>(), build).map(drop)
}

/// A program of this workspace.
struct Program<'a> {
    package: &'a str,
    /// The option of Cargo that selects such a target.
    kind: &'a str,
    name: &'a str,
}

/// Builds static binaries (package and program). Returns their folder.
pub(crate) fn build_static(root: &Path, programs: &[(&str, &str)], build: Build) -> Result<PathBuf> {
    let programs = programs.iter().map(|&(package, name)| Program { package, kind: "--bin", name });
    build_programs(root, &programs.collect::<Vec<_>>(), build)
}

/// In one build, so that shared crates are compiled once.
fn build_programs(root: &Path, programs: &[Program<'_>], build: Build) -> Result<PathBuf> {
    if programs.is_empty() {
        return Ok(built(root, build));
    }
    let mut args: Vec<&str> = vec!["build", "--profile", build.profile(), "--target", deps::MUSL];
    args.extend(programs.iter().flat_map(|program| ["--package", program.package, program.kind, program.name]));
    deps::for_images()?;
    let progress = Progress::start(format!("build static binaries (profile {})", build.profile()));
    cmd("cargo", args)
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .env("CARGO_TARGET_DIR", root.join("target"))
        .current_dir(root)
        .run()?;
    progress.done("built");
    Ok(built(root, build))
}

fn built(root: &Path, build: Build) -> PathBuf {
    root.join("target").join(deps::MUSL).join(build.profile())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_holds_keys_of_workloads_is_not_readable() {
        let agent = IMAGES.iter().find(|image| image.name == "agent").unwrap();
        assert!(matches!(agent.source, Source::Rust { mode: EXECUTABLE_ONLY, .. }));
    }
}
