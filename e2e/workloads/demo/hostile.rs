//! A bundle endpoint whose answers are lies, one for each path. The query `trust-domain` names the trust domain that a bundle is
//! for. Whatever it answers holds a marker, by which tests search what became of it.
//!
//! HTTP is written by hand: no server would send most of this.

mod answer;
mod document;

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::{
    answer::Answer,
    document::{Document, Marker},
};
use crate::report::say;

/// Of a handshake and the request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// Serves with this certificate and key, PEM, until terminated.
pub(crate) async fn run(listen: SocketAddr, certificate: &Path, key: &Path, marker: String) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("read {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("read {}", key.display()))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("use the certificate")?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Arc::new(Server {
        acceptor: TlsAcceptor::from(Arc::new(tls)),
        marker: Marker::new(marker),
        documents: Mutex::default(),
    });
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen at {listen}"))?;
    say(&json!({ "event": "listening", "address": listen.to_string() }));
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.context("accept a connection")?;
            let server = server.clone();
            // That a client goes away is what these answers are for.
            tokio::spawn(async move { server.serve(stream).await.ok() });
        }
    };
    tokio::select! {
        ended = crate::ended() => ended,
        failed = accept => failed,
    }
}

struct Server {
    acceptor: TlsAcceptor,
    marker: Marker,
    /// Those that stay the same, by path and query, each with the number of requests so far.
    documents: Mutex<HashMap<String, (Document, u64)>>,
}

impl Server {
    async fn serve(&self, stream: TcpStream) -> Result<()> {
        let accepted = async {
            let mut stream = self.acceptor.accept(stream).await.context("accept a handshake")?;
            let request = Request::read(&mut stream).await?;
            anyhow::Ok((stream, request))
        };
        let (mut stream, request) = timeout(REQUEST_TIMEOUT, accepted).await.context("no request in time")??;
        say(&json!({ "event": "asked", "path": request.path, "trust_domain": request.trust_domain }));
        self.answer(&request)?.send(&mut stream, &self.marker).await?;
        stream.shutdown().await.context("end the connection")
    }

    /// A lie for each path, and the truth for those that begin with `/honest/`.
    fn answer(&self, request: &Request) -> Result<Answer> {
        let Request { path, host, .. } = request;
        let marker = &self.marker;
        let document = || anyhow::Ok(self.document(request)?.0);
        Ok(match path.as_str() {
            "/html" => Answer::text("200 OK", "text/html", format!("<html><title>{marker}</title></html>")),
            "/status-500" => Answer::text("500 Internal Server Error", "text/plain", marker.to_string()),
            "/empty" => Answer::json(Document::empty(marker).without_sequence()),
            "/many" => Answer::json(self.made(request, |document| document.with_jwt_keys(1000, marker))?),
            "/unknown" => Answer::json(document()?.with_unknown_keys(marker)),
            "/duplicate" => Answer::json(document()?.with_the_last_key_twice()),
            "/deep" => Answer::text("200 OK", "application/json", document::deep(marker)),
            "/no-sequence" => Answer::json(document()?.without_sequence()),
            "/backwards" => {
                let (document, asked) = self.document(request)?;
                Answer::json(document.with_hint(0).with_sequence(1_000_000_u64.saturating_sub(asked)))
            }
            "/reused" => Answer::json(Document::honest(&request.trust_domain, marker)?.with_hint(0)),
            "/hint-zero" => Answer::json(document()?.with_hint(0)),
            "/hint-year" => Answer::json(document()?.with_hint(365 * 24 * 3600)),
            "/numbers-max" => Answer::json(document()?.with_hint(u64::MAX).with_sequence(u64::MAX)),
            "/other-domain" => {
                let other = format!("{}.example", marker.to_string().to_lowercase());
                Answer::json(Document::honest(&other, marker)?)
            }
            "/slow" => Answer::Slow,
            "/gigabyte" => Answer::Announced(1 << 30),
            "/endless" => Answer::Endless,
            "/gzip" => Answer::Bomb(document()?),
            "/broken-off" => Answer::BrokenOff(document()?),
            "/long-head" => Answer::LongHead,
            "/redirect-http" => Answer::Redirect(format!("http://{host}/honest/redirected")),
            "/redirect-private" => Answer::Redirect("https://169.254.169.254/latest/meta-data".to_owned()),
            "/redirect-loopback" => Answer::Redirect("https://127.0.0.1:8080/metrics".to_owned()),
            "/redirect-cluster" => Answer::Redirect(format!("https://{}/version", api_server()?)),
            "/redirect-loop" => Answer::Redirect(request.target.clone()),
            path if path.starts_with("/honest/") => Answer::json(document()?),
            path => bail!("there is no lie at {path}"),
        })
    }

    /// The honest document of this path and trust domain, and how often it was asked for before.
    fn document(&self, request: &Request) -> Result<(Document, u64)> {
        let mut documents = self.documents.lock();
        if !documents.contains_key(&request.target) {
            let made = Document::honest(&request.trust_domain, &self.marker)?;
            documents.insert(request.target.clone(), (made, 0));
        }
        let (document, asked) = documents.get_mut(&request.target).context("it was made")?;
        *asked += 1;
        Ok((document.clone(), *asked - 1))
    }

    /// As [`Self::document`], changed at the first request.
    fn made(&self, request: &Request, change: impl FnOnce(Document) -> Result<Document>) -> Result<Document> {
        let (document, asked) = self.document(request)?;
        if asked > 0 {
            return Ok(document);
        }
        let changed = change(document)?;
        self.documents.lock().insert(request.target.clone(), (changed.clone(), 1));
        Ok(changed)
    }
}

/// What a client asks for.
struct Request {
    /// Path and query.
    target: String,
    path: String,
    /// In the query.
    trust_domain: String,
    /// The header.
    host: String,
}

impl Request {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.context("read a request")?);
            if head.len() > LONGEST_HEAD {
                bail!("the head of a request has more than {LONGEST_HEAD} bytes");
            }
        }
        let head = String::from_utf8(head).context("a request in UTF-8")?;
        let mut lines = head.split("\r\n");
        let target = lines.next().and_then(|line| line.split(' ').nth(1)).context("a request line")?.to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("host").then(|| value.trim().to_owned())
        };
        let host = lines.find_map(header).context("no Host")?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let trust_domain = query.split('&').find_map(|pair| pair.strip_prefix("trust-domain=")).unwrap_or_default();
        Ok(Self { path: path.to_owned(), trust_domain: trust_domain.to_owned(), host, target: target.clone() })
    }
}

/// A server of the cluster that no redirect may reach.
fn api_server() -> Result<String> {
    std::env::var("KUBERNETES_SERVICE_HOST").context("the address of the API server")
}
