//! The issuer on a real socket among hostile peers; and what an open stream costs in memory. Figures are printed; what
//! passes or fails is who was served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use countersign_proto::issuer::v1;
use countersign_runtime::connections::ConnectionLimits;
use support::{World, claims, pod, tls::Road};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::timeout,
};

const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HOSTILE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Each measures its own process.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How long the issuer lets a peer stall here, and less than that: who waits for a hostile peer's end is not served in it.
const STALL: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

/// Who was shown out comes back after so long. Its own share of the work is done by this very process.
const PAUSE: Duration = Duration::from_secs(5);

async fn listening(world: &World, limits: ConnectionLimits) -> Road {
    let (address, root) = world.listen(limits).await;
    let road = Road::new(address, root);
    // The first handshakes may come before the certificate.
    let ready = async { while road.dial(HONEST).await.is_err() {} };
    timeout(PATIENCE, ready).await.expect("a certificate");
    road
}

/// One session on a connection of its own: how long until its State.
async fn open(road: &Road, token: String) -> Result<Duration, String> {
    let begin = Instant::now();
    let opening = async {
        let client = road.client(HONEST).await.map_err(|error| format!("{error:?}"))?;
        let hello = v1::Hello { token, ..v1::Hello::default() };
        let mut stream = client.hello(hello).await.map_err(|status| status.to_string())?;
        stream.message().await.map_err(|status| status.to_string())?;
        Ok(begin.elapsed())
    };
    timeout(PATIENCE, opening).await.unwrap_or_else(|_| Err(format!("nothing within {PATIENCE:?}")))
}

async fn percentiles(road: &Road, world: &World) -> (Duration, Duration) {
    let mut took = Vec::new();
    for _ in 0..200 {
        took.push(open(road, world.token()).await.expect("served"));
    }
    took.sort();
    (took[100], took[198])
}

async fn annoy(way: usize, road: Road, seats: Arc<Semaphore>) {
    let mut answer = [0; 4096];
    seats.add_permits(1);
    loop {
        let stay = async {
            match way {
                // Silent; the beginning of a ClientHello; no TLS at all; a handshake, then nothing.
                0..=2 => {
                    let mut tcp = road.tcp(HOSTILE).await?;
                    tcp.write_all([&[][..], &[22, 3, 1, 1, 0, 1, 0, 0], &[0x5a; 100]][way]).await?;
                    while tcp.read(&mut answer).await? > 0 {}
                }
                _ => {
                    let mut tls = road.dial(HOSTILE).await?;
                    while tls.read(&mut answer).await? > 0 {}
                }
            }
            std::io::Result::Ok(())
        };
        let _ = stay.await;
        tokio::time::sleep(PAUSE).await;
    }
}

// Peers that stall, talk nonsense or leave off in the middle cost the honest nothing but processor time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_connections_keep_no_honest_one_out() {
    const PEERS: u32 = 1000;
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let limits = ConnectionLimits { waiting_per_address: 256, handshake_time: STALL, ..ConnectionLimits::default() };
    let road = listening(&world, limits).await;
    let before = percentiles(&road, &world).await;

    let (mut hostile, seats) = (JoinSet::new(), Arc::new(Semaphore::new(0)));
    for peer in 0..PEERS as usize {
        hostile.spawn(annoy(peer % 4, road.clone(), seats.clone()));
    }
    drop(seats.acquire_many(PEERS).await.unwrap());
    let full = async {
        while world.metrics.connections.evicted.get() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, full).await.expect("so many that some make room");
    let during = percentiles(&road, &world).await;
    hostile.abort_all();
    let ratio = during.1.as_secs_f64() / before.1.as_secs_f64();
    println!("honest p50/p99 before {before:?}, among {PEERS} hostile {during:?}: ratio of p99 {ratio:.2}");
    println!("{} hostile connections made room for others", world.metrics.connections.evicted.get());
}

// What one address may hold before it has proven anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_holds_few_connections_that_have_proven_nothing_and_honest_ones_are_not_among_them() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let limits = ConnectionLimits { waiting_per_address: 8, ..ConnectionLimits::default() };
    let road = listening(&world, limits).await;
    let client = road.client(HONEST).await.unwrap();
    let mut stream = client.hello(v1::Hello { token: world.token(), ..v1::Hello::default() }).await.unwrap();
    stream.state().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(road.tcp(HONEST).await.unwrap());
    }
    for tcp in &mut silent[..56] {
        let end = timeout(PATIENCE, tcp.read(&mut [0; 1])).await.expect("the older ones make room");
        assert_eq!(end.unwrap_or(0), 0);
    }
    assert_eq!(stream.x509(Vec::new(), world.token()).await.id, 7, "the proven one stays");
}

const STREAMS: usize = 1000;
const ADDRESS: &str = "COUNTERSIGN_TEST_ADDRESS";
const FOLDER: &str = "COUNTERSIGN_TEST_FOLDER";

/// Resident memory of this process, KiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4
}

// An open stream, with its connection and its TLS, costs the operator little. The other ends are in another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_on_a_connection_of_its_own_costs_little_memory() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let road = listening(&world, ConnectionLimits::default()).await;
    let (address, root) = (road.address, world.authorities.subscribe().borrow().control_plane.clone().unwrap());
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("streams-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("root"), root.certificate().der()).unwrap();
    let tokens: Vec<String> = (0..STREAMS)
        .map(|number| {
            let (name, uid) = (format!("many-{number}"), format!("m{number}"));
            world.index.update(|index| index.apply_pod(pod(&name, &uid)));
            world.signer.sign(&claims(&name, &uid))
        })
        .collect();
    std::fs::write(folder.join("tokens"), tokens.join("\n")).unwrap();
    // What is there only once.
    open(&road, world.token()).await.unwrap();
    let before = resident();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_ends", "--ignored", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .env(FOLDER, &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let opened = tokio::task::spawn_blocking(move || {
        output.lines().map_while(Result::ok).any(|line| line.contains("all streams are open"))
    });
    assert!(timeout(Duration::from_secs(120), opened).await.unwrap().unwrap(), "the other ends");
    let (sessions, after) = (world.metrics.issuer.sessions.get(), resident());
    assert_eq!(usize::try_from(sessions).unwrap(), STREAMS);
    let each = (after.saturating_sub(before)) as f64 / STREAMS as f64;
    println!("{STREAMS} streams, each on a connection of its own: {each:.1} KiB each (aim 32 KiB)");
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    // The figure is for people; this catches what grows without bound.
    assert!(each < 128.0, "{each} KiB a stream");
}

#[tokio::test]
#[ignore = "a part of another test, run by it in a process of its own"]
async fn the_other_ends() {
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).expect("run by the test above"));
    let road = Road::new(std::env::var(ADDRESS).unwrap().parse().unwrap(), std::fs::read(folder.join("root")).unwrap());
    let mut open = Vec::new();
    for token in std::fs::read_to_string(folder.join("tokens")).unwrap().lines() {
        let client = road.client(HONEST).await.unwrap();
        let mut stream = loop {
            match client.hello(v1::Hello { token: token.to_owned(), ..v1::Hello::default() }).await {
                Ok(stream) => break stream,
                Err(status) => {
                    let wait = status.metadata().get("retry-after-ms").expect("a delay").to_str().unwrap();
                    tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
                }
            }
        };
        stream.state().await;
        open.push((client, stream));
    }
    println!("all streams are open");
    std::future::pending::<()>().await;
}
