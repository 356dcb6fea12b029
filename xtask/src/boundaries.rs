//! That crates depend on nothing that they must not know: the layout in ARCHITECTURE.md, held by Cargo.

use std::path::Path;

use crate::sh::{Run as _, cmd};

/// What a crate depends on, directly or not, outside of its tests.
fn dependencies(package: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let args = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", package];
    let tree = cmd("cargo", args).current_dir(root).read().unwrap();
    let names = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    names.collect()
}

#[test]
fn crates_depend_on_nothing_that_they_must_not_know() {
    let kubernetes = ["kube", "kube-core", "k8s-openapi", "countersign-crds", "countersign-policy"];
    for (package, forbidden) in [
        ("countersign-core", [&kubernetes[..], &["tokio", "hyper", "tonic"]].concat()),
        ("countersign-federation", [&kubernetes[..], &["tonic", "countersign-index", "countersign-runtime"]].concat()),
        ("countersign-index", [&kubernetes[..], &["tonic", "hyper", "countersign-issuer"]].concat()),
        ("countersign-issuer", [&kubernetes[..], &["countersign-operator"]].concat()),
        ("countersign-runtime", [&kubernetes[..], &["countersign-index", "countersign-proto"]].concat()),
        ("countersign-policy", ["countersign-index", "countersign-issuer", "countersign-runtime"].to_vec()),
        ("countersign-agent", [&kubernetes[..], &["countersign-index", "countersign-issuer"]].concat()),
        (
            "countersign-endpoint",
            [&kubernetes[..], &["countersign-index", "countersign-issuer", "countersign-proto", "countersign-agent"]]
                .concat(),
        ),
        (
            "countersign-verify",
            [&kubernetes[..], &["countersign-runtime", "countersign-index", "countersign-issuer", "countersign-agent"]]
                .concat(),
        ),
        ("countersign-webhook", ["countersign-issuer", "countersign-proto"].to_vec()),
        ("countersign-reasons", ["countersign-contract", "countersign-core"].to_vec()),
        ("countersign-cli", ["countersign-issuer", "countersign-runtime", "countersign-operator"].to_vec()),
    ] {
        let found = dependencies(package);
        assert!(found.iter().any(|name| name == package), "{package} has no tree");
        let wrong: Vec<_> = found.iter().filter(|name| forbidden.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{package} depends on {wrong:?}");
    }
    assert_eq!(dependencies("countersign-contract"), ["countersign-contract"]);
}
