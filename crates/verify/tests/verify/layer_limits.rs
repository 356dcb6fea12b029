//! How much of a request the layer of servers takes.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use countersign_verify::layer::AuthenticationLayer;
use http::Request;
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower::ServiceExt as _;

use crate::{
    fixtures::{Domain, TTL},
    orders::{Orders, SERVICE, accepting_all, application},
    sender::{PATH, Sent},
};

// R24.
#[tokio::test]
async fn a_request_with_a_thousand_headers_is_answered() {
    let domain = Domain::new("a.test");
    let (app, _) = application(AuthenticationLayer::new(accepting_all(&domain).build().unwrap()));
    let wit = domain.wit("/caller");
    // Without a server before it, which would refuse so many.
    let ask = async |sent: Sent| {
        let mut request = Request::builder().method(sent.method).uri(sent.path);
        for (name, value) in &sent.headers {
            request = request.header(name, value);
        }
        app.clone().oneshot(request.body(Body::from(sent.body)).unwrap()).await.unwrap().status().as_u16()
    };
    let many = |sent: Sent, name: fn(usize) -> String| {
        (0..1000).fold(sent, |sent, number| sent.with(&name(number), &format!("value {number}")))
    };
    assert_eq!(ask(many(Sent::get().wpt(&wit), |number| format!("x-{number}"))).await, 200);
    assert_eq!(ask(many(Sent::get().signed(&wit, false), |number| format!("x-{number}"))).await, 200);
    assert_eq!(ask(many(Sent::get().wpt(&wit), |_| "workload-identity-token".to_owned())).await, 400);
    assert_eq!(ask(many(Sent::get(), |_| "authorization".to_owned())).await, 400);
    assert_eq!(ask(many(Sent::get().signed(&wit, false), |_| "signature-input".to_owned())).await, 400);

    let orders = Orders::start(AuthenticationLayer::new(accepting_all(&domain).build().unwrap())).await;
    let refused = orders.send(&many(Sent::get(), |number| format!("x-{number}"))).await;
    assert_eq!(refused.status, 431);
}

#[tokio::test]
async fn a_signed_body_is_kept_up_to_the_limit_and_others_are_not_kept() {
    let domain = Domain::new("a.test");
    let wit = domain.wit("/caller");
    let layer = AuthenticationLayer::new(accepting_all(&domain).build().unwrap()).body_limit(5);
    let orders = Orders::start(layer).await;
    assert_eq!(orders.send(&Sent::post(b"seven").signed(&wit, false)).await.status, 200);
    let refused = orders.send(&Sent::post(b"eleven").signed(&wit, false)).await;
    assert_eq!((refused.status, refused.body.as_str()), (413, ""));
    assert_eq!(orders.send(&Sent::post(b"eleven").wpt(&wit)).await.status, 200);
    assert_eq!(orders.send(&Sent::post(b"eleven").bearer(&domain.token("/caller", SERVICE, TTL))).await.status, 200);
}

#[tokio::test]
async fn a_signed_body_without_a_length_is_limited_too() {
    let domain = Domain::new("a.test");
    let layer = AuthenticationLayer::new(accepting_all(&domain).build().unwrap()).body_limit(4);
    let (app, _) = application(layer);
    let sent = Sent::post(b"seven").signed(&domain.wit("/caller"), false);
    let mut request = Request::builder().method(sent.method).uri(sent.path);
    for (name, value) in &sent.headers {
        request = request.header(name, value);
    }
    let frames = futures::stream::iter(
        [&b"sev"[..], b"en"].map(|part| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(part)))),
    );
    let request = request.body(Body::new(StreamBody::new(frames))).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), 413);
}

#[tokio::test]
async fn a_body_that_is_longer_than_it_says_is_not_the_one_that_was_signed() {
    let domain = Domain::new("a.test");
    let orders = Orders::start(AuthenticationLayer::new(accepting_all(&domain).build().unwrap())).await;
    let sent = Sent::post(b"seven").signed(&domain.wit("/caller"), false);
    for (length, body) in [("5", "seven eleven"), ("4", "seven")] {
        let mut head =
            format!("POST {PATH} HTTP/1.1\r\nhost: orders\r\ncontent-length: {length}\r\nconnection: close\r\n");
        for (name, value) in &sent.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut connection = TcpStream::connect(("127.0.0.1", orders.port)).await.unwrap();
        connection.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        // The server may reset a connection on which it did not read everything.
        let _ = connection.read_to_string(&mut answer).await;
        // What is beyond the length is no part of the request; with less the hash is another.
        assert!(
            answer.is_empty() || answer.starts_with(if length == "5" { "HTTP/1.1 200" } else { "HTTP/1.1 400" }),
            "{answer}"
        );
        assert!(!answer.contains("12 bytes"));
    }
}

/// Otherwise anybody who can connect could make the service keep any number of bodies, and forget which proofs were used.
#[tokio::test]
async fn the_body_of_a_request_whose_signature_does_not_hold_is_not_read() {
    let domain = Domain::new("a.test");
    let stranger = Domain::new("a.test").wit("/caller");
    let (app, served) = application(AuthenticationLayer::new(accepting_all(&domain).build().unwrap()));
    let sent = Sent::post(b"seven").signed(&stranger, false);
    let mut request = Request::builder().method(sent.method).uri(sent.path);
    for (name, value) in &sent.headers {
        request = request.header(name, value);
    }
    let never = futures::stream::poll_fn(|_| -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        panic!("the body is read")
    });
    let request = request.body(Body::new(StreamBody::new(never))).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), 400);
    assert_eq!(served.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_signed_body_that_does_not_arrive_is_given_up() {
    let domain = Domain::new("a.test");
    let (app, _) = application(AuthenticationLayer::new(accepting_all(&domain).build().unwrap()));
    let sent = Sent::post(b"seven").signed(&domain.wit("/caller"), false);
    let mut request = Request::builder().method(sent.method).uri(sent.path);
    for (name, value) in &sent.headers {
        request = request.header(name, value);
    }
    let never = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
    let request = request.body(Body::new(StreamBody::new(never))).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), 408);
}
