//! That `countersign-verify` builds with each of its features alone. Built with the whole workspace, a package has the features that
//! any other one asks for, which hides what is missing in one of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::sh::{Run as _, cmd};

const PACKAGE: &str = "countersign-verify";

/// Checks the package without features, and with each one.
pub(super) fn check(root: &Path) -> Result<()> {
    let metadata = cmd("cargo", ["metadata", "--no-deps", "--format-version", "1"]).current_dir(root).read()?;
    for feature in std::iter::once(String::new()).chain(features(&metadata)?) {
        let args = ["clippy", "--quiet", "--package", PACKAGE, "--no-default-features", "--features", &feature];
        let lints = cmd("cargo", args.into_iter().chain(["--", "-D", "warnings"])).current_dir(root).run();
        lints.with_context(|| format!("{PACKAGE} with the features \"{feature}\""))?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    features: BTreeMap<String, Vec<String>>,
}

/// The features of the package, from what `cargo metadata` prints.
fn features(metadata: &str) -> Result<Vec<String>> {
    let metadata: Metadata = serde_json::from_str(metadata).context("reading what `cargo metadata` prints")?;
    let package = metadata.packages.into_iter().find(|package| package.name == PACKAGE);
    Ok(package.with_context(|| format!("there is no package {PACKAGE}"))?.features.into_keys().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_of_the_package_are_found() {
        let metadata = r#"{"packages": [
            {"name": "another", "features": {"a": []}},
            {"name": "countersign-verify", "features": {"default": ["tls"], "tls": []}}
        ]}"#;
        assert_eq!(features(metadata).unwrap(), ["default", "tls"]);
    }
}
