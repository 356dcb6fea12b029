use std::sync::{Arc, Mutex, PoisonError};

use axum::body::to_bytes;
use axum::http::{Method, Request, Response, StatusCode};
use countersign_contract::objects::WEBHOOK_CONFIGURATION as CONFIGURATION;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SECRETS: &str = "/api/v1/namespaces/countersign-system/secrets";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A write by another replica.
type Write = fn(&mut Stored);

/// A fake API server with the four objects: each by its path, with the version at which it was written, and the writes in
/// order.
#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    version: u64,
    /// A write by another replica, done once after this object was read.
    meanwhile: Option<(String, Write)>,
}

impl Stored {
    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let is_create = *method == Method::POST;
        let path = if is_create { format!("{path}/{name}") } else { path.to_owned() };
        let before = self.objects.get(&path).cloned();
        if *method == Method::GET {
            if let Some((_, write)) = self.meanwhile.take_if(|(read, _)| *read == path) {
                write(self);
            }
            return before.map_or((404, json!({})), |found| (200, found));
        }
        let is_current = before.as_ref().map(|found| &found["metadata"]["resourceVersion"])
            == (!is_create).then(|| &body["metadata"]["resourceVersion"]);
        if !is_current {
            return (409, json!({}));
        }
        self.writes.push(path.rsplit('/').take(2).collect::<Vec<_>>().join(" of "));
        let written = match before {
            Some(mut found) if *method == Method::PATCH => {
                for webhook in found["webhooks"].as_array_mut().unwrap() {
                    let asked = body["webhooks"].as_array().unwrap();
                    let asked = asked.iter().find(|asked| asked["name"] == webhook["name"]).unwrap();
                    webhook["clientConfig"]["caBundle"] = asked["clientConfig"]["caBundle"].clone();
                }
                found
            }
            _ => body.clone(),
        };
        (200, self.write(&path, written))
    }
}

struct Server(Arc<Mutex<Stored>>);

impl Server {
    /// With both configurations as applied from the manifests, and nothing else.
    fn new() -> Self {
        let mut stored = Stored::default();
        for (plural, entries) in [("mutatingwebhookconfigurations", 2), ("validatingwebhookconfigurations", 1)] {
            let entry = |number| {
                json!({ "name": format!("{number}.countersign.dev"), "clientConfig": {}, "sideEffects": "None",
                    "admissionReviewVersions": ["v1"] })
            };
            let webhooks: Vec<_> = (0..entries).map(entry).collect();
            let configuration = json!({ "metadata": { "name": CONFIGURATION }, "webhooks": webhooks });
            stored.write(&format!("{CONFIGURATIONS}/{plural}/{CONFIGURATION}"), configuration);
        }
        Self(Arc::new(Mutex::new(stored)))
    }

    fn stored<T>(&self, access: impl FnOnce(&mut Stored) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publisher(&self, periods: ValidityPeriods) -> Publisher {
        let stored = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let stored = stored.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(axum::body::Body::new(body), usize::MAX).await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
                let (code, answer) = stored.answer(&parts.method, parts.uri.path(), &body);
                let answer = if code == 200 {
                    answer
                } else {
                    let reason = if code == 404 { "NotFound" } else { "Conflict" };
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason,
                        "code": code })
                };
                let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
                Ok::<_, kube::Error>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        let place = ("countersign-system", "countersign-webhook");
        Publisher::new(Client::new(service, "countersign-system"), place, periods, PathBuf::new())
    }

    /// The writes since the last call.
    fn writes(&self) -> Vec<String> {
        self.stored(|stored| std::mem::take(&mut stored.writes))
    }

    fn bundle(&self, plural: &str) -> String {
        let path = format!("{CONFIGURATIONS}/{plural}/{CONFIGURATION}");
        let bundle = self.stored(|stored| stored.objects[&path]["webhooks"][0]["clientConfig"]["caBundle"].clone());
        let bundle: ByteString = serde_json::from_value(bundle).unwrap();
        String::from_utf8(bundle.0).unwrap()
    }

    fn secret(&self, name: &str) -> Secret {
        serde_json::from_value(self.stored(|stored| stored.objects[&format!("{SECRETS}/{name}")].clone())).unwrap()
    }

    /// Whether an API server accepts the stored serving certificate.
    fn is_trusted(&self, now: Timestamp) -> bool {
        let serving = StoredCertificate::stored(&self.secret(SERVING_SECRET)).unwrap();
        let served = CaState::default().served(&serving, now);
        let name = &names("countersign-system", "countersign-webhook")[0];
        ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]
            .iter()
            .all(|plural| served.verify_for(&self.bundle(plural), name, now).is_ok())
    }
}

fn periods() -> ValidityPeriods {
    ValidityPeriods::new(DAY * 90, DAY * 30, HOUR * 2).unwrap()
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

const ALL: [&str; 4] = [
    "countersign-webhook-ca of secrets",
    "countersign of mutatingwebhookconfigurations",
    "countersign of validatingwebhookconfigurations",
    "countersign-webhook-tls of secrets",
];

#[tokio::test]
async fn a_bundle_is_in_place_before_its_certificate_is_stored_and_what_is_in_place_is_not_written() {
    let server = Server::new();
    let publisher = server.publisher(periods());
    publisher.reconcile(start()).await.unwrap();
    assert_eq!(server.writes(), ALL);
    assert!(server.is_trusted(start()));
    assert_eq!(server.secret(SECRET).type_.as_deref(), Some(SECRET_TYPE));
    assert_eq!(server.secret(SERVING_SECRET).type_.as_deref(), Some(serving::TYPE));

    // Another replica, or this one after a restart, uses the existing objects.
    assert_eq!(server.publisher(periods()).reconcile(start() + HOUR).await.unwrap(), INTERVAL);
    assert_eq!(server.writes(), [""; 0]);
    // At half its life the certificate is renewed, of the same CA.
    publisher.reconcile(start() + DAY * 15).await.unwrap();
    assert_eq!(server.writes(), ALL[3..]);
    assert!(server.is_trusted(start() + DAY * 40));
}

#[tokio::test]
async fn what_somebody_took_away_is_put_back() {
    let server = Server::new();
    let publisher = server.publisher(periods());
    publisher.reconcile(start()).await.unwrap();
    let bundle = server.bundle("mutatingwebhookconfigurations");
    let secret = |name| format!("{SECRETS}/{name}");
    let take = |change: &dyn Fn(&mut Stored)| {
        server.stored(|stored| change(stored));
        server.writes();
    };

    take(&|stored| {
        let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/{CONFIGURATION}");
        let mut cleared = stored.objects[&path].clone();
        cleared["webhooks"][0]["clientConfig"] = json!({});
        stored.write(&path, cleared);
    });
    // The bundle was just written: API servers are given time before a certificate is issued.
    publisher.reconcile(start() + HOUR).await.unwrap();
    assert_eq!(server.writes(), ALL[2..3]);
    assert_eq!(server.bundle("validatingwebhookconfigurations"), bundle);

    take(&|stored| drop(stored.objects.remove(&secret(SERVING_SECRET))));
    publisher.reconcile(start() + HOUR).await.unwrap();
    assert_eq!(server.writes(), ALL[3..]);

    take(&|stored| {
        let mut damaged = stored.objects[&secret(SERVING_SECRET)].clone();
        damaged["data"]["tls.key"] = json!("");
        stored.write(&secret(SERVING_SECRET), damaged);
    });
    publisher.reconcile(start() + HOUR).await.unwrap();
    assert_eq!(server.writes(), ALL[3..]);
    assert_eq!(server.bundle("mutatingwebhookconfigurations"), bundle);

    take(&|stored| drop(stored.objects.remove(&secret(SECRET))));
    publisher.reconcile(start() + HOUR).await.unwrap();
    assert_eq!(server.writes(), ALL);
    assert_ne!(server.bundle("mutatingwebhookconfigurations"), bundle);
    assert!(server.is_trusted(start() + HOUR));
}

/// The CA of an earlier release, in which each replica had its own certificate in memory.
#[tokio::test]
async fn the_ca_of_an_earlier_release_is_taken_over() {
    let server = Server::new();
    server.publisher(periods()).reconcile(start()).await.unwrap();
    let bundle = server.bundle("mutatingwebhookconfigurations");
    server.stored(|stored| drop(stored.objects.remove(&format!("{SECRETS}/{}", SERVING_SECRET))));
    server.writes();
    server.publisher(periods()).reconcile(start() + HOUR).await.unwrap();
    assert_eq!(server.writes(), ALL[3..]);
    assert_eq!(server.bundle("mutatingwebhookconfigurations"), bundle);
    assert!(server.is_trusted(start() + HOUR));
}

/// Writes of another replica are never overwritten, whenever they happen. The CA's Secret is read last.
#[tokio::test]
async fn what_another_replica_wrote_meanwhile_is_not_written_over() {
    const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/countersign";
    let cases: [(&str, Timestamp, Write); 3] = [
        ("the CA", start() + DAY * 45, |stored| touch(stored, &format!("{SECRETS}/{SECRET}"))),
        ("the certificate", start() + DAY * 15, |stored| touch(stored, &format!("{SECRETS}/{}", SERVING_SECRET))),
        ("a configuration", start() + HOUR, |stored| touch(stored, MUTATING)),
    ];
    for (what, at, write) in cases {
        let server = Server::new();
        let publisher = server.publisher(periods());
        publisher.reconcile(start()).await.unwrap();
        if what == "a configuration" {
            server
                .stored(|stored| stored.objects.get_mut(MUTATING).unwrap()["webhooks"][0]["clientConfig"] = json!({}));
        }
        server.writes();
        server.stored(|stored| stored.meanwhile = Some((format!("{SECRETS}/{SECRET}"), write)));
        let error = publisher.reconcile(at).await.unwrap_err();
        assert!(matches!(error, PublishError::Conflict(_)), "{what}: {error}");
        assert_eq!(server.writes(), [""; 0], "{what}");
        publisher.reconcile(at).await.unwrap();
        assert!(server.is_trusted(at), "{what}");
    }
}

fn touch(stored: &mut Stored, path: &str) {
    let object = stored.objects[path].clone();
    stored.write(path, object);
}

#[test]
fn a_secret_without_its_key_is_damaged_and_not_overwritten() {
    assert!(stored(Some(&Secret::default())).is_err());
    assert_eq!(stored(None).unwrap(), CaState::default());
}

#[test]
fn the_keys_of_a_secret_are_wiped() {
    let data = BTreeMap::from([(KEY.to_owned(), ByteString(b"key".to_vec()))]);
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    wipe(&mut secret);
    assert!(secret.data.unwrap()[KEY].0.is_empty());
}
