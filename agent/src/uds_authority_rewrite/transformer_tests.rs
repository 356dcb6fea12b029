use std::future::poll_fn;

use proptest::prelude::{any, prop, prop_assert_eq, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CONTINUATION, END_HEADERS, HEADERS, MAX_BLOCK, PREFACE, RewriteError, Transformer};
use crate::uds_authority_rewrite::hpack::{Decoder, Field, encode};

/// What grpcio 1.85.1 sent to `unix:///run/countersign/workload.sock`: two calls on one connection, the second naming the
/// authority by its index in the dynamic table.
const PYTHON: &[u8] = include_bytes!("../../tests/data/grpc-python-1.85.bin");

#[derive(Debug, Clone, PartialEq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u8,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    [&[(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

fn frames(connection: &[u8]) -> Vec<Frame> {
    let mut rest = connection.strip_prefix(PREFACE).expect("the preface passes");
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        frames.push(Frame { kind: rest[3], flags: rest[4], stream: rest[8], payload: rest[9..9 + length].to_vec() });
        rest = &rest[9 + length..];
    }
    frames
}

fn transform(input: &[u8]) -> Result<Vec<u8>, RewriteError> {
    let mut output = Vec::new();
    Transformer::default().push(input, &mut output).map(|()| output)
}

fn request(authority: &str, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", authority)];
    for (name, value) in fields.iter().chain(extra) {
        encode(&Field { name: (*name).into(), value: (*value).into(), never_indexed: false }, &mut block);
    }
    block
}

fn value_of(block: &[u8], name: &str) -> Option<String> {
    let fields = Decoder::default().decode(block).unwrap();
    let field = fields.into_iter().find(|field| field.name == name.as_bytes())?;
    Some(String::from_utf8(field.value).unwrap())
}

#[test]
fn python_s_socket_path_becomes_an_authority_on_every_request() {
    let (before, after) = (frames(PYTHON), frames(&transform(PYTHON).unwrap()));
    let headers: Vec<&Frame> = after.iter().filter(|frame| frame.kind == HEADERS).collect();
    assert_eq!(headers.len(), 2);
    for (frame, path) in headers.iter().zip(["FetchX509SVID", "FetchX509Bundles"]) {
        assert_eq!(value_of(&frame.payload, ":authority").unwrap(), "localhost");
        assert_eq!(value_of(&frame.payload, ":path").unwrap(), format!("/SpiffeWorkloadAPI/{path}"));
        assert_eq!(value_of(&frame.payload, "workload.spiffe.io").unwrap(), "true");
        assert!(value_of(&frame.payload, "user-agent").unwrap().starts_with("grpc-python/"));
    }
    let other = |frames: &[Frame]| frames.iter().filter(|f| f.kind != HEADERS).cloned().collect::<Vec<_>>();
    assert_eq!(other(&before), other(&after), "every other frame passes byte for byte");
}

#[test]
fn an_authority_that_is_one_stays() {
    for authority in ["localhost", "example.org:8443", "[::1]:1"] {
        let input = [PREFACE.as_slice(), &frame(HEADERS, END_HEADERS, 1, &request(authority, &[]))].concat();
        assert_eq!(transform(&input).unwrap(), input);
    }
    for authority in ["", "run%2Fcountersign%2Fworkload.sock", "/run/x.sock", "a b"] {
        let input = [PREFACE.as_slice(), &frame(HEADERS, END_HEADERS, 1, &request(authority, &[]))].concat();
        let block = &frames(&transform(&input).unwrap())[0].payload;
        assert_eq!(value_of(block, ":authority").unwrap(), "localhost", "{authority:?}");
    }
}

#[test]
fn padding_goes_priority_and_end_of_stream_stay() {
    let block = request("a/b", &[]);
    let payload = [&[3][..], &[0, 0, 0, 9, 16], &block, &[0, 0, 0]].concat();
    let input = [PREFACE.as_slice(), &frame(HEADERS, 0x1 | 0x4 | 0x8 | 0x20, 1, &payload)].concat();
    let out = &frames(&transform(&input).unwrap())[0];
    assert_eq!(out.flags, 0x1 | 0x4 | 0x20);
    assert_eq!(out.payload[..5], [0, 0, 0, 9, 16]);
    assert_eq!(value_of(&out.payload[5..], ":authority").unwrap(), "localhost");
}

#[test]
fn a_block_over_several_frames_is_one_block() {
    let block = request("a/b", &[("x", "y")]);
    let (first, second) = block.split_at(11);
    let input = [
        PREFACE.as_slice(),
        &frame(HEADERS, 0, 1, first),
        &frame(CONTINUATION, 0, 1, &[]),
        &frame(CONTINUATION, END_HEADERS, 1, second),
    ]
    .concat();
    let out = frames(&transform(&input).unwrap());
    assert_eq!(out.len(), 1);
    assert_eq!(value_of(&out[0].payload, "x").unwrap(), "y");
}

/// Huffman code may halve a string, so that a block which fits one frame needs two when it is re-encoded.
#[test]
fn a_block_that_grows_beyond_a_frame_is_continued() {
    let mut block = request("a/b", &[]);
    block.extend_from_slice(&[0x00, 1, b'x', 0xff, 0x91, 0x6d]); // a Huffman string of 127 + 0x11 + (0x6d << 7) = 14096
    block.extend(std::iter::repeat_n(0_u8, 14_096)); // '0' is five zero bits
    block.pop();
    block.push(0b0000_0111); // padding of ones
    let input = [PREFACE.as_slice(), &frame(HEADERS, END_HEADERS | 1, 1, &block)].concat();
    let out = frames(&transform(&input).unwrap());
    assert_eq!(out.iter().map(|f| (f.kind, f.flags)).collect::<Vec<_>>(), [(HEADERS, 1), (CONTINUATION, END_HEADERS)]);
    let whole = out.iter().flat_map(|f| f.payload.clone()).collect::<Vec<_>>();
    assert!(value_of(&whole, "x").unwrap().bytes().all(|byte| byte == b'0'));
}

#[test]
fn what_breaks_the_rules_ends_the_connection() {
    let with = |tail: &[u8]| transform(&[PREFACE.as_slice(), tail].concat());
    assert_eq!(transform(b"GET / HTTP/1.1\r\n"), Err(RewriteError::Preface));
    assert_eq!(transform(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), Err(RewriteError::Preface));
    assert_eq!(with(&[0, 0x40, 1, 0, 0, 0, 0, 0, 1]), Err(RewriteError::FrameSize(16_385)));
    assert_eq!(with(&frame(CONTINUATION, 0, 1, &[])), Err(RewriteError::Order));
    assert_eq!(with(&[frame(HEADERS, 0, 1, &[]), frame(0, 0, 1, &[])].concat()), Err(RewriteError::Order));
    assert_eq!(with(&[frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 4, 3, &[])].concat()), Err(RewriteError::Order));
    assert_eq!(with(&frame(HEADERS, END_HEADERS | 0x8, 1, &[9, 0])), Err(RewriteError::Padding));
    assert_eq!(with(&frame(5, END_HEADERS, 1, &[0; 8])), Err(RewriteError::Push));
    let endless = [frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[]).repeat(20)].concat();
    assert_eq!(with(&endless), Err(RewriteError::BlockSize));
    let long = [frame(HEADERS, 0, 1, &[0; MAX_BLOCK]), frame(CONTINUATION, 0, 1, &[0])].concat();
    assert_eq!(with(&long), Err(RewriteError::BlockSize));
    assert!(matches!(with(&frame(HEADERS, END_HEADERS, 1, &[0xff])), Err(RewriteError::Hpack(_))));
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut_the_result_is_the_same(cuts in prop::collection::vec(1_usize..80, 1..60)) {
        let (mut transformer, mut output) = (Transformer::default(), Vec::new());
        let mut rest = PYTHON;
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break; }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            transformer.push(head, &mut output).unwrap();
            rest = tail;
        }
        prop_assert_eq!(output, transform(PYTHON).unwrap());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), preface in any::<bool>()) {
        let start: &[u8] = if preface { PREFACE } else { &[] };
        let _ = transform(&[start, &bytes].concat());
    }

    /// Arbitrary header blocks inside well-formed frames, which reach the decoder.
    #[test]
    fn arbitrary_blocks_never_panic(blocks in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..120), any::<u8>()), 1..8)) {
        let tail = blocks.iter().flat_map(|(block, flags)| frame(HEADERS, flags | END_HEADERS, 1, block)).collect::<Vec<_>>();
        let _ = transform(&[PREFACE.as_slice(), &tail].concat());
    }
}

/// The server behind the rewriting accepts its output, and refuses its input.
#[tokio::test]
async fn h2_accepts_what_comes_out() {
    let served = h2_requests(&transform(PYTHON).unwrap()).await;
    assert_eq!(served.unwrap(), ["/SpiffeWorkloadAPI/FetchX509SVID", "/SpiffeWorkloadAPI/FetchX509Bundles"]);
    assert_ne!(h2_requests(PYTHON).await.ok(), Some(vec![String::from("/SpiffeWorkloadAPI/FetchX509SVID")]));
}

/// h2's own client compresses with Huffman code and the dynamic table: its requests arrive unchanged.
#[tokio::test]
async fn what_h2_s_client_sends_arrives_unchanged() {
    let (client_io, server_io) = tokio::io::duplex(1 << 16);
    let rewritten = crate::uds_authority_rewrite::RewriteStream::new(server_io);
    let server = tokio::spawn(async move {
        let mut connection = h2::server::handshake(rewritten).await.unwrap();
        let mut seen = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            seen.push((request.uri().to_string(), request.headers().clone()));
            respond.send_response(http::Response::new(()), true).unwrap();
        }
        seen
    });
    let (client, connection) = h2::client::handshake(client_io).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut sent = Vec::new();
    for n in 0..40 {
        let request = http::Request::post(format!("http://some.authority:{}/call/{n}", 1000 + n % 3))
            .header("x-same", "the very same value, again and again")
            .header("x-other", "v".repeat(n * 20))
            .body(())
            .unwrap();
        sent.push((request.uri().to_string(), request.headers().clone()));
        poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
        client.send_request(request, true).unwrap().0.await.unwrap();
    }
    drop(client);
    let _ = driver.await;
    assert_eq!(server.await.unwrap(), sent);
}

/// The paths of the requests that h2's server reads from a client which sent `bytes` and closed.
async fn h2_requests(bytes: &[u8]) -> Result<Vec<String>, h2::Error> {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    client.write_all(bytes).await.unwrap();
    let reader = tokio::spawn(async move {
        client.shutdown().await.unwrap();
        let mut sink = Vec::new();
        client.read_to_end(&mut sink).await
    });
    let mut connection = h2::server::handshake(server).await?;
    let mut paths = Vec::new();
    while let Some(request) = connection.accept().await {
        match request {
            Ok((request, _)) => paths.push(request.uri().path().to_owned()),
            Err(error) if paths.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    drop(connection);
    let _ = reader.await;
    Ok(paths)
}
