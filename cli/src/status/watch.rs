//! Draws the screen again when an object of it changes. The watches say only that something changed: what is shown is read anew, so
//! that it is never a mixture.

use std::{pin::pin, time::Duration};

use anyhow::Result;
use countersign_crds::{TrustDomain, WorkloadIdentity};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Event};
use kube::{
    Api, Resource,
    api::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};

use super::{look, observe::selector};
use crate::{
    Options, Outcome,
    cluster::Cluster,
    installation::Installation,
    output::{self, Format},
};

/// How long changes are collected before the screen is drawn: one change of the world is several of objects.
const COLLECT: Duration = Duration::from_millis(300);

/// Ages on the screen move on even if nothing changes.
const AT_LEAST: Duration = Duration::from_secs(30);

/// Clears a terminal, and begins at its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) async fn run(cluster: &Cluster, installation: &Installation, options: &Options) -> Result<Outcome> {
    let mut changes = pin!(changes(cluster, &installation.system_namespace));
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        // An API server that does not answer may take longer than somebody who has seen enough.
        let report = tokio::select! {
            _ = &mut interrupt => return Ok(Outcome::Well),
            report = look(cluster, installation) => report,
        };
        if options.output == Format::Text && output::is_terminal() {
            output::print_text(CLEAR);
        }
        options.print(&report)?;
        tokio::select! {
            _ = &mut interrupt => return Ok(Outcome::Well),
            _ = tokio::time::timeout(AT_LEAST, changes.next()) => {}
        }
        // More of the same change.
        let collected = async { while changes.next().await.is_some() {} };
        tokio::select! {
            _ = &mut interrupt => return Ok(Outcome::Well),
            _ = tokio::time::timeout(COLLECT, collected) => {}
        }
    }
}

/// An item for each change of an object that the screen shows. A kind that may not be watched changes nothing.
fn changes(cluster: &Cluster, system: &str) -> impl Stream<Item = ()> + use<> {
    let client = &cluster.client;
    stream::select_all([
        of::<TrustDomain>(Api::all(client.clone()), "").boxed(),
        of::<WorkloadIdentity>(Api::all(client.clone()), "").boxed(),
        of::<Deployment>(Api::namespaced(client.clone(), system), "").boxed(),
        of::<Event>(Api::all(client.clone()), &selector("Warning")).boxed(),
    ])
}

/// Watches metadata alone: what is shown is read anew.
fn of<K>(api: Api<PartialObjectMeta<K>>, fields: &str) -> impl Stream<Item = ()> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
{
    let changes = watcher(api, watcher::Config::default().fields(fields)).default_backoff();
    changes.filter_map(async |event| match event {
        // What changed between the last look and the begin of the watch is in its first list.
        Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => Some(()),
        _ => None,
    })
}
