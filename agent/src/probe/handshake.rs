//! One mutual handshake. Both sides exchange a byte after it: in TLS 1.3 a client learns only then that it was refused.

use std::{error::Error as StdError, io, net::SocketAddr, sync::Arc, time::Duration};

use countersign_core::id::SpiffeId;
use countersign_verify::{
    Authorizer, PeerError, PeerIdentity,
    tls::{mtls_client_config, mtls_server_config},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Credentials, Outcome};

/// How often a caller tries again while nobody listens yet.
const RETRY: Duration = Duration::from_millis(200);

/// What is sent after the handshake.
const BYTE: u8 = b'.';

/// The peer, or how it ended and why.
pub(super) type Made = Result<SpiffeId, (Outcome, String)>;

/// Accepts one caller. Connections that end before they say anything, as a port scan makes, do not count.
pub(super) async fn serve(credentials: &Credentials, address: SocketAddr, timeout: Duration) -> Made {
    let deadline = tokio::time::Instant::now() + timeout;
    let config = mtls_server_config(credentials.svid(), credentials.bundles(), Authorizer::anybody());
    let acceptor = TlsAcceptor::from(Arc::new(config.map_err(|error| failed(&error))?));
    let listener = TcpListener::bind(address).await.map_err(|error| failed(&error))?;
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.map_err(|error| failed(&error))?;
            match exchange(acceptor.accept(stream).await, true).await {
                Err(error) if is_silence(&error) => {}
                Err(error) => return Err(refusal(&error)),
                Ok(peer) => return Ok(peer),
            }
        }
    };
    let nobody = || (Outcome::Unreachable, format!("nobody called {address} within {}s", timeout.as_secs()));
    timeout_at(deadline, accept).await.map_err(|_| nobody())?
}

/// Calls one server, again for as long as nobody listens.
pub(super) async fn dial(credentials: &Credentials, address: SocketAddr, timeout: Duration) -> Made {
    let deadline = tokio::time::Instant::now() + timeout;
    let config = mtls_client_config(credentials.svid(), credentials.bundles(), Authorizer::anybody());
    let connector = TlsConnector::from(Arc::new(config.map_err(|error| failed(&error))?));
    let mut last = "no answer".to_owned();
    let call = async {
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(error) => last = error.to_string(),
            }
            sleep(RETRY).await;
        };
        let name = ServerName::from(address.ip());
        exchange(connector.connect(name, stream).await, false).await.map_err(|error| refusal(&error))
    };
    let ended = timeout_at(deadline, call).await;
    let nobody = || (Outcome::Unreachable, format!("{address} was not reached within {}s: {last}", timeout.as_secs()));
    ended.map_err(|_| nobody())?
}

/// A stream of either side.
trait Handshaken: AsyncRead + AsyncWrite + Unpin {
    fn peer(&self) -> Option<PeerIdentity>;
}

impl Handshaken for tokio_rustls::server::TlsStream<TcpStream> {
    fn peer(&self) -> Option<PeerIdentity> {
        PeerIdentity::of(self.get_ref().1)
    }
}

impl Handshaken for tokio_rustls::client::TlsStream<TcpStream> {
    fn peer(&self) -> Option<PeerIdentity> {
        PeerIdentity::of(self.get_ref().1)
    }
}

async fn exchange<S: Handshaken>(stream: io::Result<S>, first: bool) -> io::Result<SpiffeId> {
    let mut stream = stream?;
    let peer = stream.peer().ok_or_else(|| io::Error::other("the peer has no SPIFFE ID"))?;
    if first {
        stream.write_all(&[BYTE]).await?;
        stream.flush().await?;
        stream.read_u8().await?;
    } else {
        stream.read_u8().await?;
        stream.write_all(&[BYTE]).await?;
        stream.flush().await?;
    }
    // The peer may have closed already; it has its answer.
    let _ = stream.shutdown().await;
    Ok(peer.id().clone())
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

fn refusal(error: &io::Error) -> (Outcome, String) {
    if let Some(refused) = PeerError::within(error) {
        return (Outcome::RefusedPeer, refused.to_string());
    }
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => {
            (Outcome::RefusedByPeer, format!("the peer refused this pod's certificate (TLS alert {alert:?})"))
        }
        Some(error) => (Outcome::Failed, error.to_string()),
        None => (Outcome::Failed, error.to_string()),
    }
}

fn failed(error: &dyn StdError) -> (Outcome, String) {
    (Outcome::Failed, error.to_string())
}
