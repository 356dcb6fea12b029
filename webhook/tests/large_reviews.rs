//! Large reviews have their own budget: incomplete or endless ones do not affect ordinary reviews, memory stays within the
//! budget, and each refused review gets a reason.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody, to_bytes},
    http::{Request, StatusCode},
};
use common::review;
use countersign_webhook::{
    admission::LONGEST_REVIEW,
    consequences::Consequences,
    control_plane::Current,
    large_reviews::{BYTES, LONGEST_ORDINARY, LargeReviews, MOST_IN_FLIGHT_PER_NAMESPACE, SLOTS, SLOTS_PER_NAMESPACE},
    metrics::Metrics,
    server::{self, App},
};
use http_body::{Frame, SizeHint};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, yield_now},
    time::Instant,
};
use tower::Service;

const MUTATE: &str = "/mutate-pods/by-namespace";

fn app() -> Arc<App> {
    let settings = Current::default();
    settings.store(Some(Arc::new(common::settings())));
    Arc::new(App {
        consequences: Consequences::default(),
        options: common::options(),
        settings,
        metrics: Metrics::new(),
        large_reviews: LargeReviews::new(),
        serves_until: watch::channel(None).1,
        draining: AtomicBool::new(false),
    })
}

async fn post(router: Router, path: &str, body: Body) -> (StatusCode, String) {
    let request = Request::builder().method("POST").uri(path).body(body).unwrap();
    let response = { router }.call(request).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap())
}

/// The answer's `response`.
async fn answered(app: &Arc<App>, path: &str, body: Body) -> Value {
    let (status, body) = post(server::admission(app.clone()), path, body).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["response"].take()
}

/// The beginning of a review, as an API server writes it.
fn beginning(namespace: &str) -> Vec<u8> {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u1",
        "kind":{{"group":"","version":"v1","kind":"Pod"}},"namespace":"{namespace}","operation":"CREATE","object":{{"kind":"Pod","x":""#
    )
    .into_bytes()
}

/// A large body that sends its beginning, and the rest once released.
struct Held {
    chunks: Vec<Bytes>,
    length: u64,
    /// The number of such bodies that were read beyond their beginning.
    read: Arc<AtomicUsize>,
    is_read: bool,
    go_on: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.chunks.len() == 1 {
            if !this.is_read {
                this.read.fetch_add(1, Ordering::SeqCst);
                this.is_read = true;
            }
            if this.go_on.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(this.chunks.pop().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// Large reviews that are kept open.
struct Flood {
    app: Arc<App>,
    read: Arc<AtomicUsize>,
    go_on: Arc<Notify>,
    answers: Vec<JoinHandle<(StatusCode, String)>>,
}

impl Flood {
    fn new(app: &Arc<App>) -> Self {
        Self { app: app.clone(), read: Arc::default(), go_on: Arc::default(), answers: vec![] }
    }

    /// Starts another one, which stops after its beginning.
    fn begin(&mut self, namespace: &str, path: &'static str, length: usize) {
        let mut first = beginning(namespace);
        first.resize(16 * 1024, b'x');
        let rest = vec![b'x'; length - first.len()];
        let go_on = self.go_on.clone();
        let body = Held {
            chunks: vec![rest.into(), first.into()],
            length: length as u64,
            read: self.read.clone(),
            is_read: false,
            go_on: Box::pin(async move { go_on.notified().await }),
        };
        self.answers.push(tokio::spawn(post(server::admission(self.app.clone()), path, Body::new(body))));
    }

    /// The number read beyond their beginning, once nothing changes any more.
    async fn read(&self) -> usize {
        for _ in 0..1000 {
            yield_now().await;
        }
        self.read.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn ordinary_reviews_are_answered_while_every_large_slot_is_held() {
    let app = app();
    let mut flood = Flood::new(&app);
    for index in 0..64 {
        flood.begin(&format!("flood-{}", index % 8), if index % 2 == 0 { MUTATE } else { "/validate" }, LONGEST_REVIEW);
    }
    assert_eq!(flood.read().await, BYTES / LONGEST_REVIEW);
    assert_eq!((app.large_reviews.free_bytes(), app.large_reviews.in_flight()), (0, 64));
    for _ in 0..100 {
        let response = answered(&app, MUTATE, Body::from(review(&common::pod()))).await;
        assert_eq!(response["auditAnnotations"], json!({ "injected": "sidecar" }));
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_large_reviews_are_read_at_once_than_there_are_slots() {
    let app = app();
    let mut flood = Flood::new(&app);
    for index in 0..64 {
        flood.begin(&format!("n-{index}"), MUTATE, LONGEST_ORDINARY + 1);
    }
    assert_eq!(flood.read().await, SLOTS);
    // Each one that ends makes room for exactly one more.
    for ended in 1..=64 - SLOTS {
        flood.go_on.notify_one();
        while flood.answers.iter().filter(|answer| answer.is_finished()).count() < ended {
            yield_now().await;
        }
        assert_eq!(flood.read().await, SLOTS + ended);
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_floods_leaves_slots_for_others() {
    let app = app();
    let mut flood = Flood::new(&app);
    for _ in 0..MOST_IN_FLIGHT_PER_NAMESPACE {
        flood.begin("flood", MUTATE, LONGEST_REVIEW);
    }
    assert_eq!(flood.read().await, SLOTS_PER_NAMESPACE);
    let mut pod = common::pod();
    pod["spec"]["tolerations"] = json!(vec![json!({ "key": "a" }); 200_000]);
    let response = answered(&app, MUTATE, Body::from(review(&pod))).await;
    assert_eq!(response["auditAnnotations"], json!({ "injected": "sidecar" }));
    // One more of the same namespace is refused, with a reason and its uid.
    flood.begin("flood", MUTATE, LONGEST_REVIEW);
    // Its body is received and discarded.
    assert_eq!(flood.read().await, SLOTS_PER_NAMESPACE + 1);
    flood.go_on.notify_waiters();
    let (status, body) = flood.answers.pop().unwrap().await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&body["response"]["uid"], &body["response"]["allowed"]), (&json!("u1"), &json!(false)));
    assert_eq!(body["response"]["status"]["code"], 429);
    let message = body["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("other objects of this namespace") && message.contains("try again"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn one_that_sends_nothing_more_gives_its_slot_back_in_time() {
    let app = app();
    let begun = Instant::now();
    let mut flood = Flood::new(&app);
    for _ in 0..=SLOTS_PER_NAMESPACE {
        flood.begin("flood", MUTATE, LONGEST_REVIEW);
    }
    assert_eq!(flood.read().await, SLOTS_PER_NAMESPACE);
    for answer in flood.answers {
        assert_eq!(answer.await.unwrap().0, StatusCode::REQUEST_TIMEOUT);
    }
    assert!(begun.elapsed() <= Duration::from_secs(5), "API servers wait no longer");
    assert_eq!((app.large_reviews.free_bytes(), app.large_reviews.in_flight()), (BYTES, 0));
}

#[tokio::test(start_paused = true)]
async fn the_attack_is_an_ordinary_pod_with_much_beside_it() {
    let app = app();
    let mut pod = common::pod();
    pod["spec"]["tolerations"] = json!(vec![json!({ "key": "a" }); 230_000]);
    let large = review(&pod);
    assert!(large.len() > 2_700_000 && large.len() < LONGEST_REVIEW);
    let response = answered(&app, MUTATE, Body::from(large)).await;
    assert_eq!(response, answered(&app, MUTATE, Body::from(review(&common::pod()))).await);
    assert_eq!((app.large_reviews.free_bytes(), app.large_reviews.in_flight()), (BYTES, 0));
}

#[tokio::test(start_paused = true)]
async fn a_review_that_is_too_long_is_refused_by_its_uid_with_or_without_a_length() {
    let app = app();
    let mut long = beginning("shop");
    long.resize(LONGEST_REVIEW + 1, b'x');
    let chunks: Vec<Vec<u8>> = long.chunks(16 * 1024).map(<[u8]>::to_vec).collect();
    let stream = || Body::from_stream(futures::stream::iter(chunks.clone().into_iter().map(Ok::<_, io::Error>)));
    for path in [MUTATE, "/validate"] {
        for body in [Body::from(long.clone()), stream()] {
            let response = answered(&app, path, body).await;
            assert_eq!((&response["uid"], &response["allowed"]), (&json!("u1"), &json!(false)));
            assert_eq!(response["status"]["code"], 413);
            let message = response["status"]["message"].as_str().unwrap();
            assert!(message.contains("longer than 3145728 bytes"), "{message}");
        }
    }
    assert!(app.metrics.text().contains(r#"endpoint="mutate",outcome="denied",reason="TooLarge"} 2"#));
    assert_eq!((app.large_reviews.free_bytes(), app.large_reviews.in_flight()), (BYTES, 0));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_too_long_is_refused_by_name_count_and_limit() {
    let app = app();
    let mut pod = common::pod();
    pod["spec"]["containers"] = json!(vec![common::container("app"); 300]);
    let response = answered(&app, MUTATE, Body::from(review(&pod))).await;
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("spec.containers has 300 items, of which Countersign accepts at most 256"), "{message}");
    assert_eq!(response["status"]["details"]["causes"][0]["reason"], "LimitExceeded");
}
