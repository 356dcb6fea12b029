//! What one peer may cost: connections, streams and messages that are too many, too slow or of no use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use countersign_policy as policy;
use std::time::Duration;

use countersign_issuer::registry::StreamLimits;
use countersign_proto::issuer::v1;
use countersign_runtime::rate::Rate;
use h2::client::SendRequest;
use serde_json::json;
use support::{World, claims, identity, pod};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::Instant,
};
use tonic::Code;

type Bytes = tonic::codegen::Bytes;

/// A client that does what it likes within HTTP/2, and the end of its connection.
async fn http2(
    connection: DuplexStream,
    client: &h2::client::Builder,
) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let (sender, connection) = client.handshake(connection).await.unwrap();
    let end = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, end)
}

fn request() -> http::Request<()> {
    http::Request::post("http://issuer/countersign.issuer.v1.Issuer/Session")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// A message as gRPC frames it.
fn framed(message: &impl prost::Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend(body);
    frame.into()
}

fn hello(token: String) -> v1::SessionRequest {
    let hello = v1::Hello { token, ..v1::Hello::default() };
    v1::SessionRequest { kind: Some(v1::session_request::Kind::Hello(hello)) }
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_is_said_ends_after_five_seconds() {
    let world = World::new().await;
    let begin = Instant::now();
    let mut silent = world.connection().await;
    let mut said = Vec::new();
    silent.read_to_end(&mut said).await.unwrap();
    assert!((5..=6).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_stream_ends_after_five_seconds() {
    let world = World::new().await;
    let begin = Instant::now();
    let (_sender, end) = http2(world.connection().await, &h2::client::Builder::new()).await;
    end.await.unwrap();
    assert!((5..=6).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_streams_have_ended_is_kept_a_while_and_no_longer() {
    let world = World::new().await;
    let (sender, end) = http2(world.connection().await, &h2::client::Builder::new()).await;
    let mut sender = sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request(), false).unwrap();
    stream.send_data(framed(&hello(world.token())), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    body.data().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!end.is_finished(), "a stream is open");
    let begin = Instant::now();
    drop((stream, body));
    end.await.unwrap();
    assert!((15..=16).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn streams_that_prove_nothing_end_their_connection() {
    let world = World::new().await;
    let (sender, end) = http2(world.connection().await, &h2::client::Builder::new()).await;
    let mut ended = 0;
    let mut sender = sender.ready().await.unwrap();
    for _ in 0..20 {
        let Ok((response, mut stream)) = sender.send_request(request(), false) else { break };
        let _ = stream.send_data(framed(&hello("no token".to_owned())), true);
        let Ok(response) = response.await else { break };
        let mut body = response.into_body();
        while body.data().await.is_some() {}
        ended += 1;
        tokio::task::yield_now().await;
    }
    assert!((4..20).contains(&ended), "{ended} streams");
    drop(sender);
    end.await.unwrap();
    // Beside them everything is as ever.
    world.opened().await;
}

// One bad token must not cost the healthy streams beside it theirs.
#[tokio::test(start_paused = true)]
async fn streams_that_fail_beside_a_healthy_one_are_refused_for_a_while_and_it_goes_on() {
    let world = World::new().await;
    let client = world.client().await;
    let hello = |token: String| v1::Hello { token, ..v1::Hello::default() };
    let mut healthy = client.hello(hello(world.token())).await.unwrap();
    healthy.state().await;
    let refused = loop {
        let Ok(stream) = client.hello(hello("no token".to_owned())).await else { break client.stream().await.err() };
        assert_eq!(stream.end().await.code(), Code::Unauthenticated);
    };
    let status = refused.expect("the budget is used up");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let wait: u64 = status.metadata().get("retry-after-ms").expect("a delay").to_str().unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(healthy.x509(Vec::new(), world.token()).await.id, 7, "the healthy one goes on");
    assert!(wait <= 1250, "{wait}");
    world.index.update(|index| index.apply_pod(pod("orders-1", "p1")));
    let mut second = client.hello(hello(world.signer.sign(&claims("orders-1", "p1")))).await.unwrap();
    second.state().await;
}

// What the issuer lacks is not its peers' fault.
#[tokio::test(start_paused = true)]
async fn streams_that_fail_by_the_issuers_fault_never_end_their_connection() {
    let world = World::new().await;
    world.live.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let client = world.client().await;
    for _ in 0..20 {
        let token = world.signer.sign(&claims("unknown-0", "u0"));
        let stream = client.hello(v1::Hello { token, ..v1::Hello::default() }).await.expect("a connection of one life");
        assert_eq!(stream.end().await.code(), Code::Unavailable);
    }
    let mut stream = client.hello(v1::Hello { token: world.token(), ..v1::Hello::default() }).await.unwrap();
    stream.state().await;
}

// "Rapid reset", CVE-2023-44487: what is opened and taken back at once costs the server, and the client nothing.
#[tokio::test(start_paused = true)]
async fn opening_and_resetting_streams_without_end_ends_the_connection() {
    let world = World::new().await;
    let (mut sender, end) = http2(world.connection().await, &h2::client::Builder::new()).await;
    let mut opened = 0;
    while opened < 10_000 {
        sender = match sender.ready().await {
            Ok(sender) => sender,
            Err(_) => break,
        };
        let Ok((_, mut stream)) = sender.send_request(request(), false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        opened += 1;
        tokio::task::yield_now().await;
    }
    assert!(opened < 5000, "{opened} streams on one connection");
    end.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.metrics.issuer.sessions.get(), 0, "nothing is left of them");
    world.opened().await;
}

// A peer that grants no window: it costs one state, whatever changes, and when it reads at last it is told what is so by then.
#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_held_the_newest_state_only() {
    let world = World::new().await;
    let mut client = h2::client::Builder::new();
    client.initial_window_size(0);
    let (sender, mut connection) = client.handshake::<_, Bytes>(world.connection().await).await.unwrap();
    let (reads, begins) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            ended = &mut connection => ended.unwrap(),
            _ = begins => {
                connection.set_initial_window_size(1 << 20).unwrap();
                let _ = connection.await;
            }
        }
    });
    let mut sender = sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request(), false).unwrap();
    stream.send_data(framed(&hello(world.token())), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    for change in 0..50 {
        let hint = json!({"hint": format!("hint-{change}")});
        world.index.update(|index| index.apply_identity(policy::workload_identity(&identity("orders", hint))));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let pushed = world.metrics.issuer.states_pushed.get();
    assert!(pushed <= 4, "{pushed} states for a reader that reads none");

    reads.send(()).unwrap();
    let mut read = Vec::new();
    while let Ok(Some(data)) = tokio::time::timeout(Duration::from_secs(5), body.data()).await {
        read.extend_from_slice(&data.unwrap());
    }
    let hints: Vec<_> = states(&read).iter().map(|state| state.identities[0].hint.clone()).collect();
    assert_eq!(hints.last().unwrap(), "hint-49");
    assert_eq!(hints.iter().filter(|hint| *hint == "hint-49").count(), 1, "{hints:?}");
    assert!(hints.len() <= 5, "what was under way, and the newest: {hints:?}");
}

/// The states in what a stream brought.
fn states(mut frames: &[u8]) -> Vec<v1::State> {
    let mut states = Vec::new();
    while let Some((head, rest)) = frames.split_first_chunk::<5>() {
        let (body, next) =
            rest.split_at(usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap());
        let message: v1::SessionResponse = prost::Message::decode(body).unwrap();
        let Some(v1::session_response::Kind::State(state)) = message.kind else { panic!("not a state: {message:?}") };
        states.push(state);
        frames = next;
    }
    states
}

#[tokio::test(start_paused = true)]
async fn headers_beyond_the_limit_are_refused() {
    let world = World::new().await;
    let (sender, _end) = http2(world.connection().await, &h2::client::Builder::new()).await;
    let mut sender = sender.ready().await.unwrap();
    let mut huge = request();
    huge.headers_mut().insert("x-huge", "x".repeat(20 * 1024).parse().unwrap());
    let (response, _stream) = sender.send_request(huge, false).unwrap();
    match response.await {
        Ok(response) => assert_eq!(response.status(), http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    assert_eq!(world.metrics.issuer.sessions.get(), 0);
}

// PING here; SETTINGS, WINDOW_UPDATE and whatever else is small and asked for in masses come no faster.
#[tokio::test(start_paused = true)]
async fn a_flood_of_frames_is_read_at_the_connections_pace() {
    const PINGS: usize = 3 * 1024 * 1024 / 17;
    let world = World::new().await;
    let (mut reader, mut writer) = tokio::io::split(world.connection().await);
    let answers = tokio::spawn(async move {
        let mut read = 0;
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(bytes @ 1..) = reader.read(&mut buffer).await {
            read += bytes;
        }
        read
    });
    let begin = Instant::now();
    writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let ping = b"\0\0\x08\x06\0\0\0\0\0countsgn";
    let flood: Vec<u8> = ping.iter().copied().cycle().take(PINGS * ping.len()).collect();
    let written = writer.write_all(&flood).await;
    // 2 MiB come at once, the third at 256 KiB a second; of it the pipe itself holds 256 KiB.
    assert!(written.is_err() || begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    drop(writer);
    answers.await.unwrap();
    world.opened().await;
}

// Back-pressure: nobody is lost, each is told when to come back, and all are served at the rate.
#[tokio::test(start_paused = true)]
async fn a_herd_is_put_off_with_delays_of_its_own_and_served_at_the_rate() {
    const HERD: usize = 200;
    let rate = Rate { each: Duration::from_millis(50), burst: 10 };
    let limits = StreamLimits { begin: rate, begin_per_address: rate, ..StreamLimits::default() };
    let world = World::with_limits(limits).await;
    let client = world.client().await;
    let begin = Instant::now();
    let agents = (0..HERD).map(|number| {
        let (name, uid) = (format!("orders-{number}"), format!("h{number}"));
        world.index.update(|index| index.apply_pod(pod(&name, &uid)));
        let token = world.signer.sign(&claims(&name, &uid));
        let client = &client;
        async move {
            let mut asked = 0;
            loop {
                asked += 1;
                let hello = v1::Hello { token: token.clone(), ..v1::Hello::default() };
                match client.hello(hello).await {
                    Ok(mut stream) => {
                        assert_eq!(stream.state().await.identities.len(), 1);
                        return (asked, stream);
                    }
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unavailable, "{status}");
                        let wait = status.metadata().get("retry-after-ms").expect("a delay").to_str().unwrap();
                        tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
                    }
                }
            }
        }
    });
    let served = futures::future::join_all(agents).await;
    let asked: u32 = served.iter().map(|(asked, _)| asked).sum();
    let (at_least, took) = (Duration::from_millis(50) * 190, begin.elapsed());
    println!("{HERD} agents, {asked} attempts, {took:?} at 20 a second");
    assert!(took >= at_least && took < at_least * 2, "{took:?}");
    assert!(asked < 4 * HERD as u32, "{asked} attempts");
}

// A bundle that changes for everyone is one push a stream, however many steps the change has.
#[tokio::test(start_paused = true)]
async fn changes_that_come_together_are_one_push() {
    const STREAMS: u64 = 20;
    let world = World::new().await;
    let client = world.client().await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let (name, uid) = (format!("orders-{number}"), format!("c{number}"));
        world.index.update(|index| index.apply_pod(pod(&name, &uid)));
        let token = world.signer.sign(&claims(&name, &uid));
        let mut stream = client.hello(v1::Hello { token, ..v1::Hello::default() }).await.unwrap();
        stream.state().await;
        streams.push(stream);
    }
    let before = world.metrics.issuer.states_pushed.get();
    for change in 0..30 {
        let hint = json!({"hint": format!("hint-{change}")});
        world.index.update(|index| index.apply_identity(policy::workload_identity(&identity("orders", hint))));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for stream in &mut streams {
        assert_eq!(stream.state().await.identities[0].hint, "hint-29");
    }
    assert_eq!(world.metrics.issuer.states_pushed.get() - before, STREAMS);
}
