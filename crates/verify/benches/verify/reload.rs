//! Handshakes at a fixed rate while a Workload API replaces what both sides hold: SVID, authorities, and ten trust domains.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use countersign_verify::{Authorizer, Source};
use tokio::time::{MissedTickBehavior, interval};

use crate::{handshake::shake, workload_api::WorkloadApi};

/// Handshakes a second.
const RATE: u64 = 1000;
const SPAN: Duration = Duration::from_secs(10);
/// Between two replacements.
const EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Reload {
    /// A second, as they were made.
    pub(crate) handshakes: f64,
    pub(crate) replacements: f64,
    pub(crate) failed: f64,
}

pub(crate) async fn run() -> Reload {
    let api = WorkloadApi::start().await;
    let source = Source::from_address(&api.address()).unwrap().ready().await.unwrap();
    let server = Arc::new(source.mtls_server_config(Authorizer::anybody()).unwrap());
    let client = Arc::new(source.mtls_client_config(Authorizer::anybody()).unwrap());
    let (made, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let calls = async {
        let mut tick = interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut running = tokio::task::JoinSet::new();
        while begun.elapsed() < SPAN {
            tick.tick().await;
            let (client, server, made, failed) = (client.clone(), server.clone(), made.clone(), failed.clone());
            running.spawn_blocking(move || {
                let counter = if shake(&client, &server).is_ok() { &made } else { &failed };
                counter.fetch_add(1, Ordering::Relaxed);
            });
            // What is done need not be kept.
            while running.try_join_next().is_some() {}
        }
        running.join_all().await;
    };
    let replaced = async {
        let (mut tick, mut changes) = (interval(EVERY), source.x509_changes());
        let mut count = 0_u32;
        while begun.elapsed() < SPAN {
            tick.tick().await;
            api.replace();
            changes.changed().await.unwrap();
            count += 1;
        }
        count
    };
    let ((), replacements) = tokio::join!(calls, replaced);
    let seconds = begun.elapsed().as_secs_f64();
    let (made, failed) = (made.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    assert!(made + failed >= RATE, "hardly a handshake was made");
    Reload { handshakes: made as f64 / seconds, replacements: f64::from(replacements) / seconds, failed: failed as f64 }
}
