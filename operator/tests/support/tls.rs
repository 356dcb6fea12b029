//! The issuer on a real socket, with real TLS, and peers that dial it: honest ones, and those that leave off in the middle.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use countersign_issuer::{drain, serving};
use countersign_runtime::{
    connections::{self, ConnectionLimits},
    tls::{ServingCertificate, server_config},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Endpoint, Uri};

use super::{Client, EPOCH, World};

pub const NAME: &str = "issuer.test";

/// Where the issuer listens, and how to know it.
#[derive(Clone)]
pub struct Road {
    pub address: SocketAddr,
    connector: TlsConnector,
}

/// The time of [`World`], to the hour.
#[derive(Debug)]
struct AtEpoch;

impl TimeProvider for AtEpoch {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(EPOCH.unsigned_abs() + 60)))
    }
}

impl World {
    /// Has the issuer listen on the loopback; the control plane's root, DER, is for [`Road::new`].
    pub async fn listen(&self, limits: ConnectionLimits) -> (SocketAddr, Vec<u8>) {
        let published = self.authorities.subscribe();
        let root = published.borrow().control_plane.as_ref().unwrap().certificate().der().to_vec();
        let certificate = Arc::new(ServingCertificate::default());
        let tls = server_config(certificate.clone(), &[b"h2"]).unwrap();
        let names = vec![NAME.to_owned()];
        let check = self.checks.control_plane_root.clone();
        tokio::spawn(serving::keep_fresh(certificate, names, published, self.clock.clone(), check));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, incoming) = mpsc::channel(64);
        let (metrics, closed) = (self.metrics.connections.clone(), drain::closed(self.shutdown.clone()));
        tokio::spawn(connections::accept(listener, tls, limits, metrics, closed, ready));
        tokio::spawn(countersign_issuer::serve(self.context.clone(), connections::incoming(incoming)));
        (address, root)
    }
}

impl Road {
    pub fn new(address: SocketAddr, root: Vec<u8>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root)).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(AtEpoch))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { address, connector: TlsConnector::from(Arc::new(config)) }
    }

    /// TCP from an address of the loopback.
    pub async fn tcp(&self, from: IpAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(self.address).await?;
        // As agents do.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// TCP and TLS.
    pub async fn dial(&self, from: IpAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(ServerName::try_from(NAME).unwrap(), self.tcp(from).await?).await
    }

    /// A client on a connection of its own.
    pub async fn client(&self, from: IpAddr) -> Result<Client, tonic::transport::Error> {
        let road = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let road = road.clone();
            async move { road.dial(from).await.map(TokioIo::new) }
        });
        Ok(Client(Endpoint::from_static("http://issuer.test").connect_with_connector(connector).await?))
    }
}
