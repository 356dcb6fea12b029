//! Writes OCI image archives (OCI image layout in a tar) without a container engine: one layer, from static binaries or
//! from a folder. The same content gives the same bytes.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest as _, Sha256};

/// The annotation with the name under which containerd imports an image.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// Not root, and numeric: `runAsNonRoot` accepts no names.
const USER: &str = "65532:65532";

/// Readable and executable by all.
pub(crate) const READABLE: u32 = 0o755;
/// Executable by all and readable by nobody: the kernel then makes the process non-dumpable from its first instruction, so
/// that other processes of its user cannot read its memory through `/proc`.
pub(crate) const EXECUTABLE_ONLY: u32 = 0o111;

/// The content of an image, and how it is started.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    entries: Vec<Entry>,
    entrypoint: Vec<String>,
    /// `NAME=value`.
    env: Vec<String>,
}

/// A file, folder or link: its relative path within the image, and its source.
#[derive(Debug, Clone)]
struct Entry {
    path: PathBuf,
    source: PathBuf,
    /// The source's mode if `None`.
    mode: Option<u32>,
}

impl Content {
    /// `FROM scratch` with one static binary at `/<its name>` with this mode, as the entrypoint.
    pub(crate) fn binary(file: &Path, mode: u32) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            entrypoint: vec![format!("/{name}")],
            entries: vec![Entry { path: name.into(), source: file.to_owned(), mode: Some(mode) }],
            env: Vec::new(),
        }
    }

    /// A folder as the root file system, with its links and modes; root owns everything.
    pub(crate) fn from_tree(dir: &Path, entrypoint: &[&str], env: &[&str]) -> Result<Self> {
        let mut entries = Vec::new();
        collect(dir, Path::new(""), &mut entries)?;
        let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Ok(Self { entries, entrypoint: own(entrypoint), env: own(env) })
    }
}

/// Writes an image archive, to be imported under `reference` (`name:tag`).
pub(crate) fn write(archive: &Path, reference: &str, content: &Content) -> Result<()> {
    let layer = Blob::new(MediaType::ImageLayer, layer(content)?);
    let config = Blob::new(MediaType::ImageConfig, config(content, &layer)?);
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor()?)
        .layers([layer.descriptor()?])
        .build()?;
    let manifest = Blob::new(MediaType::ImageManifest, manifest.to_string()?.into_bytes());
    let mut listed = manifest.descriptor()?;
    listed.set_platform(Some(PlatformBuilder::default().architecture(Arch::Amd64).os(Os::Linux).build()?));
    listed.set_annotations(Some(HashMap::from([(NAME_ANNOTATION.to_owned(), reference.to_owned())])));
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests([listed])
        .build()?;

    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", index.to_string()?.as_bytes())?;
    for blob in [&layer, &config, &manifest] {
        append(&mut tar, &format!("blobs/sha256/{}", blob.digest), &blob.data)?;
    }
    let bytes = tar.into_inner()?;
    if let Some(parent) = archive.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let mut file = fs::File::create(archive).with_context(|| format!("making {}", archive.display()))?;
    file.write_all(&bytes).with_context(|| format!("writing {}", archive.display()))
}

/// The digest of a file, hexadecimal, by which an already loaded archive is recognized.
pub(crate) fn digest(file: &Path) -> Result<String> {
    Ok(sha256(&fs::read(file).with_context(|| format!("reading {}", file.display()))?))
}

struct Blob {
    kind: MediaType,
    data: Vec<u8>,
    /// Hexadecimal.
    digest: String,
}

impl Blob {
    fn new(kind: MediaType, data: Vec<u8>) -> Self {
        Self { kind, digest: sha256(&data), data }
    }

    fn descriptor(&self) -> Result<Descriptor> {
        let digest: Sha256Digest = self.digest.parse()?;
        let size = u64::try_from(self.data.len())?;
        Ok(DescriptorBuilder::default().media_type(self.kind.clone()).digest(digest).size(size).build()?)
    }
}

fn config(content: &Content, layer: &Blob) -> Result<Vec<u8>> {
    let how =
        ConfigBuilder::default().entrypoint(content.entrypoint.clone()).env(content.env.clone()).user(USER).build()?;
    let layers = RootFsBuilder::default().typ("layers").diff_ids([format!("sha256:{}", layer.digest)]).build()?;
    let image = ImageConfigurationBuilder::default()
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .config(how)
        .rootfs(layers)
        .history([])
        .build()?;
    Ok(image.to_string()?.into_bytes())
}

/// An uncompressed layer: its digest is then also that of its content.
fn layer(content: &Content) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in &content.entries {
        append_entry(&mut tar, entry).with_context(|| format!("packing {}", entry.source.display()))?;
    }
    Ok(tar.into_inner()?)
}

fn append_entry(tar: &mut tar::Builder<Vec<u8>>, entry: &Entry) -> Result<()> {
    let metadata = fs::symlink_metadata(&entry.source)?;
    let mut header = header(entry.mode.unwrap_or_else(|| metadata.permissions().mode() & 0o7777));
    if metadata.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, &entry.path, fs::read_link(&entry.source)?)?;
    } else if metadata.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, &entry.path, std::io::empty())?;
    } else if metadata.is_file() {
        let data = fs::read(&entry.source)?;
        header.set_size(u64::try_from(data.len())?);
        tar.append_data(&mut header, &entry.path, data.as_slice())?;
    } else {
        bail!("neither a file, a folder nor a link");
    }
    Ok(())
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, data: &[u8]) -> Result<()> {
    let mut header = header(0o644);
    header.set_size(u64::try_from(data.len())?);
    tar.append_data(&mut header, path, data)?;
    Ok(())
}

/// Without owner and time.
fn header(mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// The content of a folder, in order: parents before children, siblings by name.
fn collect(root: &Path, below: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let dir = root.join(below);
    let names = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names: Vec<_> = names.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    names.sort();
    for name in names {
        let path = below.join(name);
        let source = root.join(&path);
        let is_dir = fs::symlink_metadata(&source)?.is_dir();
        entries.push(Entry { path: path.clone(), source, mode: None });
        if is_dir {
            collect(root, &path, entries)?;
        }
    }
    Ok(())
}

fn sha256(data: &[u8]) -> String {
    format!("{:x}", Sha256::digest(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("usr/lib")).unwrap();
        fs::write(dir.join("usr/lib/b"), "b").unwrap();
        fs::write(dir.join("usr/lib/a"), "a").unwrap();
        symlink("usr/lib", dir.join("lib")).unwrap();
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let digests = ["one", "two"].map(|name| {
            let root = dir.path().join(name);
            tree(&root);
            let archive = dir.path().join(format!("{name}.tar"));
            write(&archive, "countersign.local/x:dev", &Content::from_tree(&root, &["/x"], &["A=b"]).unwrap()).unwrap();
            digest(&archive).unwrap()
        });
        assert_eq!(digests[0], digests[1]);
    }

    #[test]
    fn a_tree_keeps_its_links_and_its_order() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let layer = layer(&Content::from_tree(dir.path(), &["/x"], &[]).unwrap()).unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                (e.path().unwrap().display().to_string(), e.header().entry_type().is_symlink())
            })
            .collect();
        let expected = [("lib", true), ("usr", false), ("usr/lib", false), ("usr/lib/a", false), ("usr/lib/b", false)];
        assert_eq!(found, expected.map(|(path, link)| (path.to_owned(), link)));
    }

    /// Independent of the mode on disk, and readable by nobody: the kernel then makes the process non-dumpable.
    #[test]
    fn a_binary_has_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "#!").unwrap();
        let layer = layer(&Content::binary(&program, EXECUTABLE_ONLY)).unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let modes: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().header().mode().unwrap()).collect();
        assert_eq!(modes, [0o111]);
    }

    #[test]
    fn an_index_names_the_image_and_the_manifest_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "#!").unwrap();
        let archive = dir.path().join("x.tar");
        write(&archive, "countersign.local/x:dev", &Content::binary(&program, READABLE)).unwrap();
        let mut tar = tar::Archive::new(fs::File::open(&archive).unwrap());
        let files: HashMap<String, Vec<u8>> = tar
            .entries()
            .unwrap()
            .map(|e| {
                let mut e = e.unwrap();
                let mut data = Vec::new();
                std::io::copy(&mut e, &mut data).unwrap();
                (e.path().unwrap().display().to_string(), data)
            })
            .collect();
        let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let listed = &index["manifests"][0];
        assert_eq!(listed["annotations"][NAME_ANNOTATION], "countersign.local/x:dev");
        let hex = listed["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(sha256(&files[&format!("blobs/sha256/{hex}")]), hex);
    }
}
