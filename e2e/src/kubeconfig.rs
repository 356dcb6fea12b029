//! Kubeconfigs of programs that tests run: for another user of the cluster, or for two clusters.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use std::io::Write as _;

use anyhow::{Context as _, Result};
use countersign_contract::environment::test::PEER;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// The name of a context of [`of_both`]: the cluster in `KUBECONFIG`.
pub const HERE: &str = "here";

/// The name of a context of [`of_both`]: the second cluster.
pub const THERE: &str = "there";

/// Where a cluster is, and who asks it.
struct Access {
    cluster: Value,
    user: Value,
}

/// For the cluster in `KUBECONFIG`, with a token instead of its user.
///
/// # Errors
/// `KUBECONFIG` is not set or invalid, or the file cannot be written.
pub fn of_token(token: &str) -> Result<NamedTempFile> {
    let access = Access { user: json!({ "token": token }), ..here()? };
    write(&[(HERE, access)])
}

/// For both clusters, as two contexts; the current one is [`HERE`].
///
/// # Errors
/// A variable is not set, what it names is invalid, or the file cannot be written.
pub fn of_both() -> Result<NamedTempFile> {
    let path = std::env::var_os(PEER).with_context(|| format!("{PEER} names the second cluster"))?;
    let there = Kubeconfig::read_from(path).context("read the kubeconfig of the second cluster")?;
    write(&[(HERE, here()?), (THERE, current(&there)?)])
}

fn here() -> Result<Access> {
    current(&Kubeconfig::from_env().context("read KUBECONFIG")?.context("KUBECONFIG names the cluster to test")?)
}

/// That of the current context.
fn current(config: &Kubeconfig) -> Result<Access> {
    let config = serde_json::to_value(config)?;
    let context = &named(&config["contexts"], &config["current-context"])?["context"];
    Ok(Access {
        cluster: named(&config["clusters"], &context["cluster"])?["cluster"].clone(),
        user: named(&config["users"], &context["user"])?["user"].clone(),
    })
}

fn named<'a>(entries: &'a Value, name: &Value) -> Result<&'a Value> {
    let found = entries.as_array().and_then(|all| all.iter().find(|one| one["name"] == *name));
    found.with_context(|| format!("the kubeconfig has no {name}"))
}

fn write(contexts: &[(&str, Access)]) -> Result<NamedTempFile> {
    let entries = |member: &str, value: fn(&str, &Access) -> Value| -> Value {
        contexts.iter().map(|(name, access)| json!({ "name": name, member: value(name, access) })).collect()
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": entries("cluster", |_, access| access.cluster.clone()),
        "users": entries("user", |_, access| access.user.clone()),
        "contexts": entries("context", |name, _| json!({ "cluster": name, "user": name })),
        "current-context": HERE,
    });
    let mut file = NamedTempFile::new().context("make a kubeconfig")?;
    file.write_all(config.to_string().as_bytes()).context("write a kubeconfig")?;
    Ok(file)
}
