//! Hand-driven streams of the Issuer API over the agent's transport. The operator is measured, so the client does as little
//! as possible: keys and requests are created beforehand.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use countersign_agent::upstream::{ControlPlaneRoots, Upstream};
use countersign_contract::objects::control_plane::{AUDIENCE, CONFIG_MAP, ISSUER_NAME, ROOTS};
use countersign_core::{
    csr::Csr,
    key::{KeyType, PrivateKey},
};
use countersign_proto::issuer::v1::{
    Hello, SessionRequest, SessionResponse, State, X509Request, session_request::Kind as Request,
    session_response::Kind as Response,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{cluster::Cluster, install::SYSTEM, tokens::Proven};

/// The settings of an injected agent.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) name: ServerName<'static>,
    pub(crate) audience: String,
}

impl ControlPlane {
    /// Waits for the settings that the operator publishes for the webhook.
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self> {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), SYSTEM);
        let begun = Instant::now();
        let data = loop {
            if let Some(data) = maps.get_opt(CONFIG_MAP).await?.and_then(|map| map.data) {
                break data;
            }
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("the operator published no ConfigMap {CONFIG_MAP} within a minute");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let value = |key: &str| data.get(key).with_context(|| format!("the ConfigMap has no {key}"));
        let roots = CertificateDer::pem_slice_iter(value(ROOTS)?.as_bytes()).collect::<Result<_, _>>()?;
        let name = ServerName::try_from(value(ISSUER_NAME)?.clone())?;
        Ok(Self { roots, name, audience: value(AUDIENCE)?.clone() })
    }

    /// The connection settings for an issuer; pushed roots are stored in `private`.
    pub(crate) fn upstream(&self, issuer: SocketAddr, private: &Path) -> Upstream {
        let roots = ControlPlaneRoots::load(self.roots.clone(), private);
        Upstream::new(issuer.to_string(), self.name.clone(), roots)
    }
}

/// An open stream of one pod, on its own connection.
pub(crate) struct OpenStream {
    requests: mpsc::Sender<SessionRequest>,
    responses: Streaming<SessionResponse>,
    csr: Vec<u8>,
    pub(crate) proven: Proven,
    next: u64,
}

/// The result of an issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Issue {
    Issued(Duration),
    Refused,
}

impl OpenStream {
    /// Opens a stream for each pod.
    pub(crate) async fn open_all(
        control_plane: &ControlPlane,
        issuer: SocketAddr,
        pods: Vec<Proven>,
        private: &Path,
    ) -> Result<Vec<Self>> {
        let opening = stream::iter(pods).map(|proven| Self::open(control_plane, issuer, proven, private));
        opening.buffer_unordered(16).try_collect().await
    }

    /// Opens a stream on a new connection, up to the first state.
    pub(crate) async fn open(
        control_plane: &ControlPlane,
        issuer: SocketAddr,
        proven: Proven,
        private: &Path,
    ) -> Result<Self> {
        let upstream = control_plane.upstream(issuer, private);
        let mut client = upstream.client().await?;
        let (requests, outgoing) = mpsc::channel(4);
        let hello = Hello { version: "load".to_owned(), token: proven.token.clone(), ..Hello::default() };
        requests.send(SessionRequest { kind: Some(Request::Hello(hello)) }).await?;
        let responses = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
        let csr = Csr::create(&PrivateKey::generate(KeyType::EcP256)?)?;
        let mut stream = Self { requests, responses, csr, proven, next: 1 };
        let state = stream.state().await?;
        if state.identities.is_empty() {
            bail!("pod {} has no identity: {}", stream.proven.pod.name, state.reason);
        }
        Ok(stream)
    }

    /// Requests a certificate, and waits for the answer.
    pub(crate) async fn issue(&mut self) -> Result<Issue> {
        let request = X509Request {
            id: self.next,
            csr: self.csr.clone(),
            spiffe_id: String::new(),
            token: self.proven.token.clone(),
        };
        self.next += 1;
        let begun = Instant::now();
        self.requests.send(SessionRequest { kind: Some(Request::X509(request)) }).await?;
        loop {
            match self.next().await? {
                Response::X509(answer) if answer.refusal.is_some() => return Ok(Issue::Refused),
                Response::X509(_) => return Ok(Issue::Issued(begun.elapsed())),
                _ => {}
            }
        }
    }

    /// The next pushed state.
    pub(crate) async fn state(&mut self) -> Result<State> {
        loop {
            if let Response::State(state) = self.next().await? {
                return Ok(state);
            }
        }
    }

    async fn next(&mut self) -> Result<Response> {
        let message = self.responses.message().await.context("a stream broke")?;
        message.and_then(|message| message.kind).context("the operator ended a stream")
    }
}
