//! The client: one new connection with a full handshake for each call. A call has succeeded once the server's answer is
//! read, because in TLS 1.3 a client finishes the handshake before the server has verified its certificate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::ServerName;
use serde_json::json;
use spiffe::SpiffeId;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    report::{Handshake, Report, say},
    tls::Tls,
    tokens::Tokens,
};

/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the server to listen before calls are counted.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The target, and how often to call it.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) target: String,
    pub(crate) expect: SpiffeId,
    pub(crate) every: Duration,
    pub(crate) count: Option<u64>,
    pub(crate) concurrency: u32,
    /// The audience of a token to send with each call.
    pub(crate) audience: Option<String>,
}

pub(crate) async fn run(calls: Calls) -> Result<()> {
    let tls = Tls::new(vec![calls.expect.clone()]).await?;
    let tokens = match calls.audience {
        Some(audience) => Some(Tokens::new(audience).await?),
        None => None,
    };
    let caller = Arc::new(Caller { tls, tokens, target: calls.target, every: calls.every });
    let report = Report::default();
    let callers = async {
        reachable(&caller.target).await?;
        let left = Arc::new(AtomicU64::new(calls.count.unwrap_or(u64::MAX)));
        let mut callers = JoinSet::new();
        for _ in 0..calls.concurrency {
            let (caller, left, report) = (caller.clone(), left.clone(), report.clone());
            callers.spawn(async move { caller.call(&left, &report).await });
        }
        while let Some(caller) = callers.join_next().await {
            caller.context("a caller broke down")?;
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = crate::ended() => ended,
        done = callers => done,
        never = report.regularly() => never,
    };
    report.summary();
    ended
}

/// Waits until something listens at the target.
async fn reachable(target: &str) -> Result<()> {
    say(&json!({ "event": "waiting", "target": target }));
    let mut tick = interval(Duration::from_millis(100));
    let started = Instant::now();
    loop {
        tick.tick().await;
        match timeout(CALL_TIMEOUT, TcpStream::connect(target))
            .await
            .context("no answer")
            .and_then(|stream| Ok(stream?))
        {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() >= START_TIMEOUT => {
                return Err(error).with_context(|| format!("nothing listens at {target}"));
            }
            Err(_) => {}
        }
    }
}

/// What every caller needs.
struct Caller {
    tls: Tls,
    tokens: Option<Tokens>,
    target: String,
    every: Duration,
}

impl Caller {
    async fn call(&self, left: &AtomicU64, report: &Report) {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            tick.tick().await;
            match timeout(CALL_TIMEOUT, self.once()).await.context("the call took too long").flatten() {
                Ok(handshake) => report.handshake(handshake),
                Err(error) => report.failed(&error),
            }
        }
    }

    async fn once(&self) -> Result<Handshake> {
        let target = &self.target;
        let stream = TcpStream::connect(target).await.with_context(|| format!("connect to {target}"))?;
        let configs = self.tls.now()?;
        // SPIFFE identities are not host names: the verifier ignores this name, and it is not sent.
        let name = ServerName::try_from("spiffe.invalid")?;
        let mut stream =
            TlsConnector::from(configs.client.clone()).connect(name, stream).await.context("shake hands")?;
        let mut handshake = configs.handshake(stream.get_ref().1.peer_certificates())?;
        if let Some(tokens) = &self.tokens {
            let token = tokens.fetch().await?;
            let line = format!("{}\n", token.token());
            stream.write_all(line.as_bytes()).await.context("send a token")?;
            handshake.key_id = Some(token.key_id().to_owned());
        }

        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.context("read the answer")?;
        let answer: serde_json::Value = serde_json::from_slice(&answer).context("the answer is no JSON")?;
        let seen = |member: &str| answer.get(member).and_then(serde_json::Value::as_str);
        ensure!(seen("peer") == Some(&handshake.local), "the server saw somebody else than {}", handshake.local);
        ensure!(seen("key_id") == handshake.key_id.as_deref(), "the server validated another token, or none");
        Ok(handshake)
    }
}
