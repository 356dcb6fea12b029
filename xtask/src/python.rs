//! Builds an image with Python: the interpreter from this machine's packages, and pinned packages fetched by pip.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

use crate::deps;
use crate::image::Content;
use crate::sh::{Run as _, cmd};

/// Debian's interpreter; another `python3` on `PATH` may be of another version.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Debian packages that the interpreter and compiled extensions need. Names differ between releases; packages that are not
/// installed are skipped. `@` stands for the interpreter's version.
const PACKAGES: [&str; 15] = [
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libssl3",
    "libssl3t64",
    "libbz2-1.0",
    "liblzma5",
    "libuuid1",
    "libcrypt1",
    "python@-minimal",
    "libpython@-minimal",
    "libpython@-stdlib",
];

/// Not needed at run time.
const LEFT_OUT: [&str; 5] =
    ["/usr/share/doc", "/usr/share/man", "/usr/share/lintian", "/usr/share/locale", "/usr/share/binfmts"];

/// An image that runs `script` of `source`, assembled in the folder `tree`, which is recreated.
pub(crate) fn content(source: &Path, script: &str, tree: &Path) -> Result<Content> {
    deps::for_python()?;
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    let version = cmd(PYTHON, ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).read()?;
    merge_usr(tree)?;
    for package in PACKAGES {
        copy_package(&package.replace('@', &version), tree)?;
    }
    let app = tree.join("app");
    fs::create_dir_all(&app)?;
    let from = source.join(script);
    fs::copy(&from, app.join(script)).with_context(|| format!("copying {}", from.display()))?;
    cmd(
        PYTHON,
        ["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:", "--root-user-action=ignore"],
    )
    .args(["--disable-pip-version-check", "--target"])
    .arg(app.join("packages"))
    .arg("--requirement")
    .arg(source.join("requirements.txt"))
    .quiet()?;
    let (interpreter, script) = (format!("/usr/bin/python{version}"), format!("/app/{script}"));
    let env = ["PYTHONPATH=/app/packages", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "HOME=/tmp"];
    Content::from_tree(tree, &[&interpreter, &script], &env)
}

/// Creates the links of `/lib` and similar folders into `/usr` if this machine has them: packages list files under both
/// names.
fn merge_usr(tree: &Path) -> Result<()> {
    for name in ["bin", "lib", "lib64", "sbin"] {
        let Ok(target) = fs::read_link(Path::new("/").join(name)) else { continue };
        fs::create_dir_all(tree.join(&target))?;
        symlink(target, tree.join(name))?;
    }
    Ok(())
}

/// Copies the files of an installed Debian package.
fn copy_package(package: &str, tree: &Path) -> Result<()> {
    let Ok(list) = cmd("dpkg", ["--listfiles", package]).read() else {
        return Ok(());
    };
    for line in list.lines().filter(|line| !LEFT_OUT.iter().any(|prefix| line.starts_with(prefix))) {
        let from = Path::new(line);
        let to = tree.join(line.trim_start_matches('/'));
        // A package may list files that have been removed or moved.
        let Ok(metadata) = fs::symlink_metadata(from) else {
            continue;
        };
        if to.symlink_metadata().is_ok() || metadata.is_dir() {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        if metadata.is_symlink() {
            symlink(fs::read_link(from)?, &to).with_context(|| format!("linking {line}"))?;
        } else {
            fs::copy(from, &to).with_context(|| format!("copying {line}"))?;
        }
    }
    Ok(())
}
