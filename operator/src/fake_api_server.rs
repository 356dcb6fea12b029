//! For tests: an API server whose answers a test chooses, which remembers what was asked of it, and a replica that leads.

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use countersign_runtime::leader::Leadership;
use countersign_runtime::readiness::Readiness;
use countersign_runtime::{
    clock::Clock,
    clock_skew::{ClockMetrics, ClockSkewMonitor},
};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Without its query.
    pub(crate) path: String,
    /// Null where there was none.
    pub(crate) body: Value,
    /// When, by tokio's clock.
    pub(crate) at: Instant,
}

/// What was asked, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions(Arc<Mutex<Vec<Asked>>>);

impl Questions {
    /// All of them.
    pub(crate) fn all(&self) -> Vec<Asked> {
        self.0.lock().clone()
    }

    /// The methods alone.
    pub(crate) fn methods(&self) -> Vec<Method> {
        self.0.lock().iter().map(|asked| asked.method.clone()).collect()
    }
}

/// A client whose server answers with the status and the object that `answer` says.
pub(crate) fn answering(answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> (Client, Questions) {
    let (answer, questions) = (Arc::new(answer), Questions::default());
    let asked = questions.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, asked) = (answer.clone(), asked.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let question = Asked { method: parts.method, path: parts.uri.path().to_owned(), body, at: Instant::now() };
            asked.0.lock().push(question.clone());
            let (status, object) = answer(&question);
            let body = Body::from(object.to_string().into_bytes());
            Response::builder().status(status).body(body).map_err(std::io::Error::other)
        }
    });
    (Client::new(service, "default"), questions)
}

/// A refusal as the API server words it.
pub(crate) fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code,
    });
    (code, status)
}

/// Of a replica that leads for an hour.
pub(crate) fn leading(clock: &Clock) -> Leadership {
    let clock_skew =
        ClockSkewMonitor::new(clock.clone(), Readiness::default().check("the clock agrees"), ClockMetrics::default());
    let leadership = Leadership::new(clock.clone(), clock_skew);
    leadership.lead_for(Duration::from_secs(3600));
    leadership
}
