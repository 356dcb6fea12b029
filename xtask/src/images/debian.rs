//! A program of Debian packages as an image: the packages are downloaded and unpacked, not installed, and the shared libraries that the
//! program is linked with are copied.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::deps;
use crate::image::Content;
use crate::sh::{Run as _, cmd};

/// An image that runs `program` of `packages`, assembled in the folder `tree`, which is recreated.
pub(super) fn content(packages: &[&str], program: &str, tree: &Path) -> Result<Content> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    let (unpacked, root) = (tree.join("unpacked"), tree.join("root"));
    fs::create_dir_all(&unpacked).with_context(|| format!("making {}", unpacked.display()))?;
    for archive in deps::download(packages, &tree.with_extension("archives"))? {
        cmd("dpkg-deb", ["--extract"]).args([&archive, &unpacked]).run()?;
    }
    let inside = unpacked.join(program.trim_start_matches('/'));
    // A link to another name of the program.
    let binary = fs::canonicalize(&inside).with_context(|| format!("{program} in {packages:?}"))?;
    copy(&binary, &root, program)?;
    for library in libraries(&binary, &unpacked)? {
        let path = library.strip_prefix(&unpacked).map_or(library.clone(), |inside| Path::new("/").join(inside));
        copy(&library, &root, &path.display().to_string())?;
    }
    Content::from_tree(&root, &[program], &[])
}

/// The shared libraries of a program, with the loader: those of the unpacked packages, and those of this machine.
fn libraries(program: &Path, unpacked: &Path) -> Result<Vec<PathBuf>> {
    let folder = unpacked.join("usr/lib/x86_64-linux-gnu");
    let text = cmd("ldd", [program]).env("LD_LIBRARY_PATH", folder).read()?;
    ensure!(!text.contains("not found"), "a shared library is missing: {text}");
    // `name => path (address)`, or for the loader `path (address)`.
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}

fn copy(from: &Path, root: &Path, path: &str) -> Result<()> {
    let to = root.join(path.trim_start_matches('/'));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::copy(from, &to).map(drop).with_context(|| format!("copying {path}"))
}
