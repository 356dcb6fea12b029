//! A direct client of the issuer, as anyone with a pod's token could write it.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use countersign_contract::network::port;
use countersign_proto::issuer::v1::{
    Hello, SessionRequest, SessionResponse, State, X509Request, X509Response, issuer_client::IssuerClient,
    session_request, session_response,
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{Cluster, wait::DEFAULT_TIMEOUT};

/// The issuer's address, and how to authenticate it.
#[derive(Clone)]
pub struct IssuerEndpoint {
    connector: TlsConnector,
    name: ServerName<'static>,
    origin: String,
    /// `host:port`.
    pub address: String,
}

/// A connection to the issuer.
pub struct Issuer(Channel);

/// A session, as an agent has it.
pub struct Session {
    requests: mpsc::Sender<SessionRequest>,
    responses: Streaming<SessionResponse>,
    /// The token, sent with every request.
    token: String,
}

impl IssuerEndpoint {
    /// The endpoint that agents use: the address, the pinned name and the published roots.
    ///
    /// # Errors
    /// The control plane has not published them.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let plane = cluster.control_plane().await?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(plane.roots.as_bytes()) {
            roots.add(root.context("the control plane's roots")?)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(plane.issuer_name.clone()).context("the issuer's name")?;
        Ok(Self { connector, name, origin: format!("http://{}", plane.issuer_name), address: plane.issuer })
    }

    /// Selects the replica at this address.
    #[must_use]
    pub fn to_replica(mut self, address: &str) -> Self {
        self.address = format!("{address}:{}", port::ISSUER);
        self
    }

    /// Connects for sessions over an existing connection.
    ///
    /// # Errors
    /// The issuer cannot be authenticated.
    pub async fn connect_over<T>(&self, io: T) -> Result<Issuer>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = self.connector.connect(self.name.clone(), io).await.context("the handshake with the issuer")?;
        let mut stream = Some(TokioIo::new(stream));
        let hand_over = service_fn(move |_: Uri| {
            let stream = stream.take();
            async move { stream.ok_or_else(|| std::io::Error::other("one connection only")) }
        });
        let endpoint = Endpoint::from_shared(self.origin.clone())?;
        Ok(Issuer(endpoint.connect_with_connector(hand_over).await.context("connect to the issuer")?))
    }

    /// Connects with TCP and TLS.
    ///
    /// # Errors
    /// The issuer cannot be reached or authenticated.
    pub async fn dial(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), TcpStream::connect(&self.address).await?).await
    }

    /// Connects for sessions.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub async fn connect(&self) -> Result<Issuer> {
        let endpoint = self.clone();
        let dial = service_fn(move |_: Uri| {
            let endpoint = endpoint.clone();
            async move { endpoint.dial().await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(self.origin.clone())?;
        Ok(Issuer(endpoint.connect_with_connector(dial).await.context("connect to the issuer")?))
    }
}

impl Issuer {
    /// Connects as agents do: by address, with the pinned name and the published roots.
    ///
    /// # Errors
    /// The issuer cannot be reached or authenticated.
    pub async fn connect(cluster: &Cluster) -> Result<Self> {
        IssuerEndpoint::of(cluster).await?.connect().await
    }

    /// Opens the default session of the pod of this token.
    ///
    /// # Errors
    /// The issuer refuses it at once.
    pub async fn open(&self, token: &str) -> Result<Session, Status> {
        self.open_session(token, "").await
    }

    /// Opens a named session of the pod of this token.
    ///
    /// # Errors
    /// The issuer refuses it at once.
    pub async fn open_session(&self, token: &str, session: &str) -> Result<Session, Status> {
        let (requests, queue) = mpsc::channel(8);
        let (version, token_said, session) = ("0.1.0".to_owned(), token.to_owned(), session.to_owned());
        let hello = Hello { version, token: token_said, session, ..Hello::default() };
        let first = SessionRequest { kind: Some(session_request::Kind::Hello(hello)) };
        requests.send(first).await.map_err(|_| Status::internal("nobody listens"))?;
        let responses = IssuerClient::new(self.0.clone()).session(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Session { requests, responses, token: token.to_owned() })
    }

    /// The code and message with which the issuer refuses this token.
    ///
    /// # Errors
    /// The issuer accepts the token.
    pub async fn refusal(&self, token: &str) -> Result<(Code, String)> {
        let status = match self.open(token).await {
            Err(status) => status,
            Ok(mut session) => match session.next().await {
                Err(status) => status,
                Ok(_) => bail!("the issuer accepted the token"),
            },
        };
        Ok((status.code(), status.message().to_owned()))
    }
}

impl Session {
    /// Waits for the first state, or the next one.
    ///
    /// # Errors
    /// The issuer ends the session.
    pub async fn state(&mut self) -> Result<State, Status> {
        loop {
            if let session_response::Kind::State(state) = self.next().await? {
                return Ok(state);
            }
        }
    }

    /// Requests a certificate for this CSR; `id` is empty for the default identity.
    ///
    /// # Errors
    /// The issuer ends the session. A refusal is in the response.
    pub async fn certificate(&mut self, csr: Vec<u8>, id: &str) -> Result<X509Response, Status> {
        let asked = X509Request { id: 1, csr, spiffe_id: id.to_owned(), token: self.token.clone() };
        let request = SessionRequest { kind: Some(session_request::Kind::X509(asked)) };
        self.requests.send(request).await.map_err(|_| Status::internal("the session has ended"))?;
        loop {
            if let session_response::Kind::X509(response) = self.next().await? {
                return Ok(response);
            }
        }
    }

    /// Waits until the issuer ends the session, and returns the status.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::cancelled("the issuer ended the session"),
                Err(status) => return status,
            }
        }
    }

    async fn next(&mut self) -> Result<session_response::Kind, Status> {
        let message = timeout(DEFAULT_TIMEOUT, self.responses.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the issuer said nothing"))??
            .ok_or_else(|| Status::cancelled("the issuer ended the session"))?;
        message.kind.ok_or_else(|| Status::internal("an empty response"))
    }
}

/// A CSR for a new P-256 key. It asks for these names, which the issuer must ignore. Returns its DER and the key.
///
/// # Errors
/// A name is not valid in a certificate.
pub fn csr(uris: &[&str], dns_names: &[&str]) -> Result<(Vec<u8>, KeyPair)> {
    let key = KeyPair::generate()?;
    Ok((csr_of(&key, uris, dns_names)?, key))
}

/// As [`csr`], for this key.
///
/// # Errors
/// A name is not valid in a certificate.
pub fn csr_of(key: &KeyPair, uris: &[&str], dns_names: &[&str]) -> Result<Vec<u8>> {
    let mut parameters = CertificateParams::new(dns_names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    for &uri in uris {
        parameters.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    Ok(parameters.serialize_request(key)?.der().to_vec())
}
