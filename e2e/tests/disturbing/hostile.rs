//! A thousand hostile connections beside honest ones.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    faults::{alone, report_counts},
    issuer::IssuerEndpoint,
    wait::{DEFAULT_TIMEOUT, until},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// Concurrent hostile connections, all from the address of the honest ones.
const HOSTILE: usize = 1_000;
/// The number of honest sessions before, and again during the attack.
const HONEST: usize = 200;
/// The delay before an evicted hostile peer reconnects.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a hostile peer waits for an answer.
const STUBBORN: Duration = Duration::from_secs(60);

/// The behaviour of a hostile peer.
#[derive(Clone, Copy)]
enum Way {
    /// Connects, and sends nothing.
    Silent,
    /// Sends one byte of a TLS record each second.
    SlowLoris,
    /// Sends bytes that are not TLS.
    Garbage,
    /// Completes a TLS handshake, then sends nothing.
    TlsThenSilent,
    /// Opens a session with an invalid token.
    BadToken,
}

const WAYS: [Way; 5] = [Way::Silent, Way::SlowLoris, Way::Garbage, Way::TlsThenSilent, Way::BadToken];

/// The counts of the hostile peers.
#[derive(Default)]
struct Done {
    connected: AtomicU64,
    shown_out: AtomicU64,
}

/// No honest session fails; the cost to them is reported beside the cost without an attack.
#[tokio::test]
async fn a_thousand_hostile_connections_keep_no_honest_one_out() {
    alone("hostile", async |world| {
        let (endpoint, token) = prepared(world).await?;
        let before = honest(&endpoint, &token).await?;

        let done = Arc::new(Done::default());
        let mut hostile = JoinSet::new();
        for way in WAYS.into_iter().cycle().take(HOSTILE) {
            hostile.spawn(annoy(way, endpoint.clone(), done.clone()));
        }
        let enough = HOSTILE as u64;
        until("all hostile peers have connected", DEFAULT_TIMEOUT, async || {
            Ok((done.connected.load(Ordering::Relaxed) >= enough).then_some(()))
        })
        .await?;
        let during = honest(&endpoint, &token).await?;
        hostile.abort_all();

        let ratio = during.p99.as_secs_f64() / before.p99.as_secs_f64();
        report_counts(
            "hostile",
            &json!({
                "hostile": HOSTILE,
                "hostile_connected": done.connected.load(Ordering::Relaxed),
                "hostile_shown_out": done.shown_out.load(Ordering::Relaxed),
                "honest": HONEST,
                "honest_failed": during.failed,
                "p50_before_ms": milliseconds(before.p50), "p99_before_ms": milliseconds(before.p99),
                "p50_during_ms": milliseconds(during.p50), "p99_during_ms": milliseconds(during.p99),
                "p99_ratio": ratio, "p99_ratio_aim": 2.0,
            }),
        )?;
        ensure!(before.failed == 0 && during.failed == 0, "{} failed before, {} during", before.failed, during.failed);
        Ok(())
    })
    .await;
}

/// A pod that exists and never runs, its token, and the issuer that accepts it.
async fn prepared(world: &World) -> Result<(IssuerEndpoint, String)> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    world.cluster.apply(&world.identity_yaml("account", "")).await?;
    let pod = world.never_runs("honest", "account").await?;
    let audience = world.cluster.control_plane().await?.audience;
    let token = world.service_account_token("account", &[&audience], Some(&pod)).await?;
    let endpoint = IssuerEndpoint::of(&world.cluster).await?;
    until("the issuer accepts a good token", DEFAULT_TIMEOUT, async || {
        let state = endpoint.connect().await?.open(&token).await?.state().await?;
        Ok((!state.identities.is_empty()).then_some(()))
    })
    .await?;
    Ok((endpoint, token))
}

/// Durations of honest sessions, from the first packet to the first State, each on a new connection.
struct Honest {
    p50: Duration,
    p99: Duration,
    failed: usize,
}

async fn honest(endpoint: &IssuerEndpoint, token: &str) -> Result<Honest> {
    let (mut took, mut failed) = (Vec::with_capacity(HONEST), 0);
    for _ in 0..HONEST {
        let begin = Instant::now();
        let state = async { anyhow::Ok(endpoint.connect().await?.open(token).await?.state().await?) };
        match timeout(DEFAULT_TIMEOUT, state).await {
            Ok(Ok(state)) if !state.identities.is_empty() => took.push(begin.elapsed()),
            _ => failed += 1,
        }
    }
    ensure!(!took.is_empty(), "no honest session was opened at all");
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    Ok(Honest { p50: at(50), p99: at(99), failed })
}

async fn annoy(way: Way, endpoint: IssuerEndpoint, done: Arc<Done>) {
    loop {
        // Any result is expected: evicted, or not accepted.
        let _ = timeout(STUBBORN, once(way, &endpoint, &done)).await;
        done.shown_out.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(way: Way, endpoint: &IssuerEndpoint, done: &Done) -> Result<()> {
    let connected = || done.connected.fetch_add(1, Ordering::Relaxed);
    let mut answer = [0; 4096];
    match way {
        Way::TlsThenSilent => {
            let mut tls = endpoint.dial().await?;
            connected();
            while tls.read(&mut answer).await? > 0 {}
        }
        Way::BadToken => {
            let issuer = endpoint.connect().await?;
            connected();
            let _ = issuer.refusal("e30.e30.e30").await;
        }
        Way::Silent | Way::SlowLoris | Way::Garbage => {
            let mut tcp = TcpStream::connect(&endpoint.address).await?;
            connected();
            match way {
                Way::SlowLoris => {
                    // The beginning of a TLS record that announces more bytes than ever arrive.
                    for byte in [22, 3, 1, 1, 0].into_iter().chain(std::iter::repeat(1)) {
                        tcp.write_all(&[byte]).await?;
                        if timeout(Duration::from_secs(1), tcp.read(&mut answer)).await.is_ok_and(|read| read.is_ok()) {
                            break;
                        }
                    }
                }
                Way::Garbage => {
                    tcp.write_all(&[0x5a; 1024]).await?;
                    while tcp.read(&mut answer).await? > 0 {}
                }
                _ => while tcp.read(&mut answer).await? > 0 {},
            }
        }
    }
    Ok(())
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
