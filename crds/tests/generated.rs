//! The YAML beside the types is what the types say.

use std::{fs, path::Path};

#[test]
fn the_yaml_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, yaml) in countersign_crds::all().unwrap() {
        for folder in [root.to_path_buf(), root.join("../manifests/base/crds")] {
            let path = folder.join(name);
            let found = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(found == yaml, "{} is stale: run `cargo xtask codegen`", path.display());
        }
    }
}
