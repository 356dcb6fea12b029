//! JWT-SVIDs of calls: the client sends one over the connection. The server validates it with the keys that it has, and has its
//! agent validate it, which also knows the paths that are accepted of a foreign trust domain.

use anyhow::{Context as _, Result, ensure};
use spiffe::{JwtSource, JwtSvid, WorkloadApiClient};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// The length at which a token is refused, in bytes.
const MAX_LENGTH: u64 = 8192;

/// Fetches and validates the tokens of one audience.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: JwtSource,
    agent: WorkloadApiClient,
    audience: String,
}

impl Tokens {
    /// Waits for the first keys.
    pub(crate) async fn new(audience: String) -> Result<Self> {
        let source = JwtSource::new().await.context("get JWT bundles from the Workload API")?;
        let agent = WorkloadApiClient::connect_env().await.context("connect to the Workload API")?;
        Ok(Self { source, agent, audience })
    }

    /// A token of this workload.
    pub(crate) async fn fetch(&self) -> Result<JwtSvid> {
        self.source.fetch_jwt_svid([&self.audience]).await.context("fetch a JWT-SVID")
    }

    /// Reads a peer's token, a line, and validates it. It must name the id of the peer's certificate. Returns its `kid`.
    pub(crate) async fn receive(&self, stream: impl AsyncRead + Unpin, peer: &str) -> Result<String> {
        let mut line = String::new();
        BufReader::new(stream.take(MAX_LENGTH)).read_line(&mut line).await.context("read a token")?;
        let bundles = self.source.bundle_set().context("read the JWT bundles")?;
        let token = JwtSvid::parse_and_validate(line.trim_end(), &*bundles, &[&self.audience])
            .context("validate the peer's token")?;
        let id = token.spiffe_id().to_string();
        let validated = self.agent.validate_jwt_token(&self.audience, line.trim_end()).await;
        let validated = validated.context("have the agent validate the peer's token")?.spiffe_id().to_string();
        ensure!(validated == id, "the token is of {id}, and of {validated} to the agent");
        ensure!(id == peer, "the token is of {id}, the certificate of {peer}");
        Ok(token.key_id().to_owned())
    }
}
