//! The test programs, built once by `cargo test` for the whole workspace, so that shared crates are compiled only once.
//! They are run directly, because concurrent `cargo test` commands block each other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Test;
use crate::sh::{Run as _, cmd};

/// The folder of the package of the end-to-end tests.
const PACKAGE: &str = "e2e";

/// A program built by cargo.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The folder name of its package.
    package: String,
    /// The package's folder, the working directory of its tests.
    folder: PathBuf,
    /// The target's name, such as `undisturbed`.
    target: String,
    /// Whether it is an integration test of `tests/`.
    integration: bool,
    /// Whether it contains tests, rather than being run by them.
    tests: bool,
    executable: PathBuf,
}

/// All test programs of the workspace.
#[derive(Debug)]
pub(crate) struct Programs(Vec<Program>);

/// A line of `cargo build --message-format=json`
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>).
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Programs {
    /// Builds them, and shows the compiler's messages.
    pub(crate) fn build(root: &Path) -> Result<Self> {
        Self::build_selected(root, &["--workspace"])
    }

    /// Builds those of one package.
    pub(crate) fn build_package(root: &Path, package: &str) -> Result<Self> {
        Self::build_selected(root, &["--package", package])
    }

    fn build_selected(root: &Path, selection: &[&str]) -> Result<Self> {
        let args = ["test", "--quiet", "--no-run", "--message-format=json-render-diagnostics"];
        let mut cargo = cmd("cargo", args.iter().chain(selection));
        let output = cargo.current_dir(root).stderr(Stdio::inherit()).output().context("starting cargo")?;
        if !output.status.success() {
            bail!("`cargo test {} --no-run` failed: {}", selection.join(" "), output.status);
        }
        let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
        messages.lines().map(Program::read).filter_map(Result::transpose).collect::<Result<_>>().map(Self)
    }

    /// The programs of unit, property and integration tests, which need no cluster.
    pub(crate) fn without_cluster(&self) -> impl Iterator<Item = &Program> {
        self.0.iter().filter(|program| program.tests && !(program.package == PACKAGE && program.integration))
    }

    /// A program of the end-to-end tests, or one that they run.
    pub(crate) fn end_to_end(&self, target: &str) -> Result<&Program> {
        self.program(PACKAGE, target)
    }

    /// An integration test of the package in this folder, or a program that it runs.
    pub(crate) fn program(&self, package: &str, target: &str) -> Result<&Program> {
        // Of a program that is no test there is another, which runs its unit tests.
        let is_it = |program: &&Program| program.target == target && (program.integration || !program.tests);
        let found = self.0.iter().filter(|program| program.package == package).find(is_it);
        found.with_context(|| format!("cargo built no program {target} of {package}"))
    }

    /// The tests of an end-to-end program: the long ones, which `cargo xtask soak` runs, or all others.
    pub(crate) fn list(&self, program: &'static str, long: bool) -> Result<Vec<Test>> {
        let program_of = self.end_to_end(program)?;
        let read = |args: &[&str]| Ok::<_, anyhow::Error>(names(&program_of.command().args(args).read()?));
        let ignored = read(&["--list", "--ignored"])?;
        let names = if long {
            ignored
        } else {
            read(&["--list"])?.into_iter().filter(|name| !ignored.contains(name)).collect()
        };
        Ok(names.into_iter().map(|name| Test { program, name }).collect())
    }
}

impl Program {
    fn read(line: &str) -> Result<Option<Self>> {
        let message: Message = serde_json::from_str(line).with_context(|| format!("reading cargo's message {line}"))?;
        let (Some(target), Some(profile), Some(executable)) = (message.target, message.profile, message.executable)
        else {
            return Ok(None);
        };
        if message.reason != "compiler-artifact" {
            return Ok(None);
        }
        let folder = message.manifest_path.parent().context("a manifest in no folder")?.to_owned();
        let is = |kind: &str| target.kind.iter().any(|known| known == kind);
        Ok(Some(Self {
            package: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            folder,
            integration: is("test"),
            // Programs built with the test harness; a `[[bench]]` without it is built only on request.
            tests: profile.test,
            target: target.name,
            executable,
        }))
    }

    pub(crate) fn executable(&self) -> &Path {
        &self.executable
    }

    /// The command, as cargo would run it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.package, self.target)
    }
}

/// The tests in the list printed by a test program.
fn names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_programs_list_is_read() {
        let list = "a_b: test\nc: benchmark\n\n1 test, 1 benchmark\n";
        assert_eq!(names(list), ["a_b"]);
    }

    #[test]
    fn of_cargos_messages_the_programs_are_read() {
        let program = r#"{"reason":"compiler-artifact","manifest_path":"/r/e2e/Cargo.toml","executable":"/r/x",
            "target":{"name":"last","kind":["test"]},"profile":{"test":true}}"#;
        let read = Program::read(program).unwrap().unwrap();
        assert_eq!((read.package.as_str(), read.target.as_str(), read.integration), (PACKAGE, "last", true));
        let library = r#"{"reason":"compiler-artifact","manifest_path":"/r/core/Cargo.toml","executable":null,
            "target":{"name":"countersign_core","kind":["lib"]},"profile":{"test":false}}"#;
        assert!(Program::read(library).unwrap().is_none());
        assert!(Program::read(r#"{"reason":"build-finished","success":true}"#).unwrap().is_none());
    }
}
