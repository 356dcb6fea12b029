//! The server: accepts mTLS and sends each client one JSON line with the identity that it presented.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::json;
use spiffe::SpiffeId;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    report::{Handshake, Report, say},
    tls::Tls,
    tokens::Tokens,
};

/// Timeout of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// With an `audience`, each client must send a token for it, which is validated.
pub(crate) async fn run(listen: SocketAddr, allow: Vec<SpiffeId>, audience: Option<String>) -> Result<()> {
    let tls = Tls::new(allow).await?;
    let tokens = match audience {
        Some(audience) => Some(Tokens::new(audience).await?),
        None => None,
    };
    let server = Arc::new(Server { tls, tokens });
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen at {listen}"))?;
    say(&json!({ "event": "listening", "address": listen.to_string() }));

    let report = Report::default();
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.context("accept a connection")?;
            let (server, report) = (server.clone(), report.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE_TIMEOUT, server.answer(stream))
                    .await
                    .context("the handshake took too long")
                    .flatten()
                {
                    Ok(Some(handshake)) => report.handshake(handshake),
                    Ok(None) => {}
                    Err(error) => report.failed(&error),
                }
            });
        }
    };
    let ended = tokio::select! {
        ended = crate::ended() => ended,
        failed = accept => failed,
        never = report.regularly() => never,
    };
    report.summary();
    ended
}

struct Server {
    tls: Tls,
    tokens: Option<Tokens>,
}

impl Server {
    /// Returns `None` if the caller only checked that the port is open.
    async fn answer(&self, stream: TcpStream) -> Result<Option<Handshake>> {
        if stream.peek(&mut [0]).await.context("wait for a first byte")? == 0 {
            return Ok(None);
        }
        let configs = self.tls.now()?;
        let mut stream =
            TlsAcceptor::from(configs.server.clone()).accept(stream).await.context("accept a handshake")?;
        let mut handshake = configs.handshake(stream.get_ref().1.peer_certificates())?;
        if let Some(tokens) = &self.tokens {
            handshake.key_id = Some(tokens.receive(&mut stream, &handshake.peer).await?);
        }
        let Handshake { local, peer, key_id, .. } = &handshake;
        let line = format!("{}\n", json!({ "local": local, "peer": peer, "key_id": key_id }));
        stream.write_all(line.as_bytes()).await.context("answer")?;
        stream.shutdown().await.context("end the connection")?;
        Ok(Some(handshake))
    }
}
