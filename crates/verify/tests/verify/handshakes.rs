//! Handshakes over TCP between configurations of this crate, and what each side learns of a refusal.

use std::{io, sync::Arc};

use countersign_verify::{
    Authorizer, MtlsListener, PeerError, PeerIdentity,
    tls::{mtls_client_config, mtls_server_config, tls_client_config, tls_server_config},
};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::fixtures::{Domain, trusting};

/// What each side has of a connection: who the other is, or the error. The server says one byte, since a client of TLS 1.3 learns of
/// a refusal only when it reads.
struct Met {
    by_server: Result<Option<PeerIdentity>, io::Error>,
    by_client: Result<Option<PeerIdentity>, io::Error>,
}

async fn meet(server: ServerConfig, client: ClientConfig) -> Met {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(stream).await?;
        stream.write_all(b"!").await?;
        stream.shutdown().await?;
        Ok(PeerIdentity::of(stream.get_ref().1))
    };
    let call = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        stream.read_u8().await?;
        Ok(PeerIdentity::of(stream.get_ref().1))
    };
    let (by_server, by_client) = tokio::join!(serve, call);
    Met { by_server, by_client }
}

fn refusal(result: &Result<Option<PeerIdentity>, io::Error>) -> &PeerError {
    PeerError::within(result.as_ref().unwrap_err()).expect("a refusal of the peer")
}

// R77.
#[tokio::test]
async fn each_side_knows_the_other_by_its_id_whatever_address_was_called() {
    let domain = Domain::new("a.test");
    let (server, client) = (Arc::new(domain.svid("/server")), Arc::new(domain.svid("/client")));
    let bundles = trusting(&[&domain]);
    let met = meet(
        mtls_server_config(server, bundles.clone(), Authorizer::id("spiffe://a.test/client").unwrap()).unwrap(),
        mtls_client_config(client, bundles, Authorizer::id("spiffe://a.test/server").unwrap()).unwrap(),
    )
    .await;
    assert_eq!(*met.by_server.unwrap().unwrap().id(), domain.id("/client"));
    assert_eq!(*met.by_client.unwrap().unwrap().id(), domain.id("/server"));
}

// R77: the wrong server instance is refused, and the right one is the positive control above.
#[tokio::test]
async fn a_server_of_another_id_is_refused_and_gets_a_reason_that_tells_nothing() {
    let domain = Domain::new("a.test");
    let (server, client) = (Arc::new(domain.svid("/other")), Arc::new(domain.svid("/client")));
    let bundles = trusting(&[&domain]);
    let met = meet(
        mtls_server_config(server, bundles.clone(), Authorizer::anybody()).unwrap(),
        mtls_client_config(client, bundles, Authorizer::id("spiffe://a.test/server").unwrap()).unwrap(),
    )
    .await;
    assert_eq!(*refusal(&met.by_client), PeerError::NotAccepted { id: domain.id("/other") });
    let learnt = met.by_server.unwrap_err().to_string();
    assert!(learnt.contains("CertificateUnknown") && !learnt.contains("spiffe"), "{learnt}");
}

#[tokio::test]
async fn every_refusal_of_a_certificate_sends_the_same_alert() {
    let (known, stranger) = (Domain::new("a.test"), Domain::new("b.test"));
    let impostor = Domain::new("a.test");
    let mut learnt = Vec::new();
    for (domain, path) in [(&known, "/other"), (&stranger, "/client"), (&impostor, "/client")] {
        let bundles = trusting(&[&known]);
        let callers = Authorizer::id("spiffe://a.test/client").unwrap();
        let met = meet(
            mtls_server_config(Arc::new(known.svid("/server")), bundles.clone(), callers).unwrap(),
            mtls_client_config(Arc::new(domain.svid(path)), bundles, Authorizer::anybody()).unwrap(),
        )
        .await;
        refusal(&met.by_server);
        learnt.push(met.by_client.unwrap_err().to_string());
    }
    assert!(learnt[0].contains("CertificateUnknown"), "{learnt:?}");
    learnt.dedup();
    assert_eq!(learnt.len(), 1, "{learnt:?}");
}

// R12: the modes, and that neither stands in for the other.
#[tokio::test]
async fn a_caller_without_a_certificate_is_known_to_tls_alone_and_refused_by_mutual_tls() {
    let domain = Domain::new("a.test");
    let (server, bundles) = (Arc::new(domain.svid("/server")), trusting(&[&domain]));
    let servers = Authorizer::id("spiffe://a.test/server").unwrap();
    let met =
        meet(tls_server_config(server.clone()).unwrap(), tls_client_config(bundles.clone(), servers.clone()).unwrap())
            .await;
    assert!(met.by_server.unwrap().is_none());
    assert_eq!(*met.by_client.unwrap().unwrap().id(), domain.id("/server"));

    let met = meet(
        mtls_server_config(server, bundles.clone(), Authorizer::anybody()).unwrap(),
        tls_client_config(bundles, servers).unwrap(),
    )
    .await;
    assert!(met.by_server.unwrap_err().to_string().contains("no certificates"), "the caller had one");
    assert!(met.by_client.is_err());
}

#[tokio::test]
async fn nothing_is_resumed() {
    let domain = Domain::new("a.test");
    let bundles = trusting(&[&domain]);
    let server = mtls_server_config(Arc::new(domain.svid("/server")), bundles.clone(), Authorizer::anybody()).unwrap();
    let client = mtls_client_config(Arc::new(domain.svid("/client")), bundles, Authorizer::anybody()).unwrap();
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    let mut listener = MtlsListener::bind("127.0.0.1:0", server).await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TlsConnector::from(Arc::new(client));
    for _ in 0..3 {
        let call = async {
            let stream = TcpStream::connect(address).await.unwrap();
            client.connect(ServerName::from(address.ip()), stream).await.unwrap()
        };
        let (called, (accepted, _)) = tokio::join!(call, listener.accept());
        assert_eq!(called.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(accepted.get_ref().get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn silent_callers_do_not_block_others() {
    let domain = Domain::new("a.test");
    let bundles = trusting(&[&domain]);
    let server = mtls_server_config(Arc::new(domain.svid("/server")), bundles.clone(), Authorizer::anybody()).unwrap();
    let client = mtls_client_config(Arc::new(domain.svid("/client")), bundles, Authorizer::anybody()).unwrap();
    let mut listener = MtlsListener::bind("127.0.0.1:0", server).await.unwrap();
    let address = listener.local_addr().unwrap();
    // The genuine caller may itself be the oldest that is ended, if it is slow: it tries again.
    let client = TlsConnector::from(Arc::new(client));
    let call = async {
        let mut silent = Vec::new();
        // More than may be in progress at once.
        for _ in 0..300 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        loop {
            let stream = TcpStream::connect(address).await.unwrap();
            if let Ok(stream) = client.connect(ServerName::from(address.ip()), stream).await {
                break (stream, silent);
            }
        }
    };
    let (_called, (accepted, _)) = tokio::join!(call, listener.accept());
    assert_eq!(*accepted.peer().id(), domain.id("/client"));
}
