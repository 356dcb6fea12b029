//! Installs the clients that the end-to-end tests run on this machine, with pinned packages, into `target/clients`. A stamp of
//! their files avoids installing them again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use countersign_contract::environment::test::{AUTHLIB, JOSE};
use sha2::{Digest as _, Sha256};

use crate::deps;
use crate::progress::Progress;
use crate::python::PYTHON;
use crate::sh::{Run as _, cmd};

/// A script of `e2e/clients`, and what it needs.
struct Client {
    /// The variable with its path.
    variable: &'static str,
    /// Its folder in `target/clients`.
    name: &'static str,
    script: &'static str,
    /// The files that pin its packages.
    pins: &'static [&'static str],
    /// Installs the packages into a folder in which the script and the pins are.
    install: fn(&Path) -> Result<()>,
}

const CLIENTS: [Client; 2] = [
    Client {
        variable: JOSE,
        name: "jose",
        script: "jose.mjs",
        pins: &["package.json", "package-lock.json"],
        install: with_npm,
    },
    Client {
        variable: AUTHLIB,
        name: "authlib",
        script: "authlib_client.py",
        pins: &["requirements.txt"],
        install: with_pip,
    },
];

/// Installs those that are not up to date; returns the variables by which the tests find them.
pub(crate) fn install(root: &Path) -> Result<Vec<(&'static str, String)>> {
    let mut variables = Vec::new();
    for client in &CLIENTS {
        let folder = root.join("target/clients").join(client.name);
        client.make(&root.join("e2e/clients"), &folder).with_context(|| format!("installing {}", client.script))?;
        variables.push((client.variable, folder.join(client.script).display().to_string()));
    }
    Ok(variables)
}

impl Client {
    fn files(&self) -> impl Iterator<Item = &'static str> {
        [self.script].into_iter().chain(self.pins.iter().copied())
    }

    fn make(&self, source: &Path, folder: &Path) -> Result<()> {
        let mut digest = Sha256::new();
        for file in self.files() {
            let file = source.join(file);
            digest.update(fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
        }
        let stamp = format!("{:x}", digest.finalize());
        let stamp_file = folder.join(".stamp");
        if fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
            return Ok(());
        }
        let progress = Progress::start(format!("install what {} needs", self.script));
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        for file in self.files() {
            fs::copy(source.join(file), folder.join(file)).with_context(|| format!("copying {file}"))?;
        }
        (self.install)(folder)?;
        fs::write(&stamp_file, stamp).with_context(|| format!("writing {}", stamp_file.display()))?;
        progress.done("installed");
        Ok(())
    }
}

fn with_npm(folder: &Path) -> Result<()> {
    deps::node()?;
    cmd("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder).quiet()
}

fn with_pip(folder: &Path) -> Result<()> {
    deps::for_python()?;
    cmd(PYTHON, ["-m", "pip", "install", "--quiet", "--only-binary=:all:", "--require-hashes", "--no-deps"])
        .args(["--root-user-action=ignore", "--disable-pip-version-check", "--target", "packages"])
        .args(["--requirement", "requirements.txt"])
        .current_dir(folder)
        .quiet()
}
