//! A case's surroundings: a trust domain, a mock Workload API that serves a valid identity of it, and a harness that has it.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::authority::{Authority, Svid};
use super::control::Decision;
use super::failure::{Failure, Verdict, control, error, expect, fail};
use super::mock::{Listening, Method, Mock, X509Update};
use super::process::{Harness, Program, READY, Start};
use super::tls::{Probe, probe};
use super::tokens::{JwtKey, jwks};
use super::wait::{UPDATE, until};

/// The trust domain of the client under test.
pub(crate) const OWN: &str = "example.org";
/// A trust domain with which it federates.
pub(crate) const FEDERATED: &str = "fed.example.org";
/// A trust domain of which it has no bundle.
pub(crate) const UNKNOWN: &str = "other.example.org";

/// Everything but the harness.
pub(crate) struct Scene {
    pub(crate) mock: Mock,
    /// The authority of [`OWN`].
    pub(crate) own: Authority,
    /// The key of JWT-SVIDs of [`OWN`].
    pub(crate) key: JwtKey,
    /// The identity that is served first.
    pub(crate) first: Svid,
    /// What the suite connects with: a valid X509-SVID of [`OWN`].
    pub(crate) probe: Svid,
    folder: TempDir,
}

/// A scene with a harness that is ready.
pub(crate) struct Env {
    scene: Scene,
    harness: Harness,
}

/// Runs a case with a harness that is ready.
pub(crate) async fn case(test: impl AsyncFnOnce(&Env) -> Verdict) -> Verdict {
    let scene = Scene::new()?;
    let _listening = scene.listen()?;
    let harness = scene.ready(&scene.endpoint(), READY).await?;
    let env = Env { scene, harness };
    let verdict = test(&env).await;
    let delegated = !env.mock.calls_of(Method::ValidateJwtSvid).is_empty();
    let log = env.harness.log();
    env.harness.end().await;
    match verdict {
        Err(Failure::Error(why)) => error(format!("{why}\n{log}")),
        _ if delegated => error("delegated: the client had the Workload API validate a token"),
        verdict => verdict,
    }
}

impl Scene {
    /// One whose mock does not listen yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let own = Authority::new(OWN);
        let key = JwtKey::generate("ES256");
        let (first, probe) = (own.issue(&own.id("/first")), own.issue(&own.id("/probe")));
        let mock = Mock::new();
        mock.push_x509(X509Update { svids: &[&first], bundle: &[&own], federated: &[] });
        mock.push_jwt_bundles([(OWN, jwks([key.jwk()]))]);
        mock.set_jwt_svids([(first.id.clone(), key.token(&first.id))]);
        Ok(Self { mock, own, key, first, probe, folder: TempDir::new()? })
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("workload.sock")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn listen(&self) -> anyhow::Result<Listening> {
        self.mock.listen_unix(&self.socket())
    }

    /// A harness at this address that became ready in time; otherwise the client failed the case.
    pub(crate) async fn ready(&self, endpoint: &str, limit: Duration) -> Verdict<Harness> {
        let mut harness = Program::examined().start(endpoint)?;
        match harness.ready(limit).await? {
            Start::Ready => Ok(harness),
            Start::Ended => fail(format!("the harness ended before it was ready: {}", harness.log())),
            Start::Waiting => {
                let log = harness.log();
                harness.end().await;
                fail(format!("the harness was not ready within {} s: {log}", limit.as_secs()))
            }
        }
    }

    /// The harness presents the first identity; then it is ended.
    pub(crate) async fn presents_first(&self, harness: Harness) -> Verdict {
        let port = harness.x509_port()?;
        let presented = presents(port, &self.probe, &self.first.id).await;
        harness.end().await;
        presented.map(drop)
    }
}

impl Env {
    pub(crate) fn harness(&self) -> &Harness {
        &self.harness
    }

    /// Serves these identities with the bundle of [`OWN`].
    pub(crate) fn serve(&self, svids: &[&Svid]) {
        self.mock.push_x509(X509Update { svids, bundle: &[&self.own], federated: &[] });
    }

    /// Serves these bundles with a new identity, and waits until the client presents it: then it has the bundles too.
    pub(crate) async fn apply_bundles(&self, bundle: &[&Authority], federated: &[&Authority]) -> Verdict {
        let marker = self.own.issue(&self.own.id(&format!("/marker-{}", next_marker())));
        self.mock.push_x509(X509Update { svids: &[&marker], bundle, federated });
        self.presents(&marker.id).await.map(drop)
    }

    pub(crate) async fn probe(&self) -> Verdict<Probe> {
        probe(self.harness.x509_port()?, &self.probe).await
    }

    /// Waits until the client presents this identity.
    pub(crate) async fn presents(&self, id: &str) -> Verdict<Probe> {
        presents(self.harness.x509_port()?, &self.probe, id).await
    }

    /// The client accepts a valid token; it may need a moment to get bundles at all.
    pub(crate) async fn jwt_control(&self) -> Verdict {
        control(self.accepts_soon(&self.key.token(&self.own.id("/control")), &self.own.id("/control")).await)
    }

    /// Waits until the client accepts a token of this identity.
    pub(crate) async fn accepts_soon(&self, token: &str, id: &str) -> Verdict {
        until("a valid token is accepted", UPDATE, async || {
            Ok(match self.harness.control()?.validate(token).await? {
                Decision::Accepted(read) if read == id => Ok(()),
                Decision::Accepted(read) => Err(format!("accepted as {read:?}, not {id}")),
                Decision::Rejected(why) => Err(why),
            })
        })
        .await
    }

    /// The client rejects this token, after it accepted a valid one.
    pub(crate) async fn rejects_token(&self, token: &str) -> Verdict {
        self.jwt_control().await?;
        self.rejects_now(token).await
    }

    /// The client rejects this token.
    pub(crate) async fn rejects_now(&self, token: &str) -> Verdict {
        let decision = self.harness.control()?.validate(token).await?;
        expect(matches!(decision, Decision::Rejected(_)), || format!("{decision:?}"))
    }

    /// Serves JWT bundles of these trust domains, each with these keys.
    pub(crate) fn serve_keys(&self, bundles: &[(&str, &[&JwtKey])]) {
        let bundles = bundles.iter().map(|(name, keys)| (*name, jwks(keys.iter().map(|key| key.jwk()))));
        self.mock.push_jwt_bundles(bundles);
    }
}

impl Deref for Env {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

/// Waits until the X.509 port presents this identity to a client that it accepts.
async fn presents(port: u16, own: &Svid, id: &str) -> Verdict<Probe> {
    until(&format!("{id} is presented"), UPDATE, async || {
        let probe = probe(port, own).await?;
        Ok(if probe.serves(id) { Ok(probe) } else { Err(format!("{:?}, {:?}", probe.ids(), probe.decision)) })
    })
    .await
}

/// A number that no earlier marker has.
fn next_marker() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}
