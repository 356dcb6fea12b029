//! What the operator uses, as the kubelet counts it.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::{
    World,
    cluster::SYSTEM,
    replicas::OPERATOR,
    wait::{DEFAULT_TIMEOUT, until},
};

/// What one replica uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub resident: u64,
    /// Processor time since its start, in seconds.
    pub cpu: f64,
}

impl World {
    /// What each replica of the operator uses, by the names of pods, measured after `then`.
    ///
    /// # Errors
    /// The kubelet has not measured in time.
    pub async fn operator_usage(&self, then: Timestamp) -> Result<BTreeMap<String, Usage>> {
        until("the kubelet has measured the operator", DEFAULT_TIMEOUT, async || {
            let mut all = BTreeMap::new();
            for pod in self.product(OPERATOR).await? {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a pod without a node")?;
                let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/stats/summary"));
                let stats: Value = self.cluster.client.request(request.body(Vec::new())?).await?;
                let usage = usage(&stats, &pod.name_any(), then).with_context(|| format!("of {}", pod.name_any()))?;
                all.insert(pod.name_any(), usage);
            }
            ensure!(!all.is_empty(), "there is no operator");
            Ok(Some(all))
        })
        .await
    }
}

fn usage(stats: &Value, pod: &str, then: Timestamp) -> Result<Usage> {
    let is_it = |one: &&Value| one["podRef"]["namespace"] == SYSTEM && one["podRef"]["name"] == pod;
    let found = stats["pods"].as_array().and_then(|pods| pods.iter().find(is_it)).context("no statistics")?;
    let container = &found["containers"][0];
    for measured in ["memory", "cpu"] {
        let at: Timestamp = container[measured]["time"].as_str().context("no time")?.parse()?;
        ensure!(at > then, "measured at {at}, not yet after {then}");
    }
    let resident = container["memory"]["rssBytes"].as_u64().context("no rssBytes")? / 1024;
    let cpu = container["cpu"]["usageCoreNanoSeconds"].as_f64().context("no usageCoreNanoSeconds")? / 1e9;
    Ok(Usage { resident, cpu })
}
