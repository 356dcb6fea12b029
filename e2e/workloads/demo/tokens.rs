//! JWT-SVIDs of calls: the client sends one over the connection, and the server validates it with the keys that it has.

use anyhow::{Context as _, Result, ensure};
use spiffe::{JwtSource, JwtSvid};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// The length at which a token is refused, in bytes.
const MAX_LENGTH: u64 = 8192;

/// Fetches and validates the tokens of one audience.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: JwtSource,
    audience: String,
}

impl Tokens {
    /// Waits for the first keys.
    pub(crate) async fn new(audience: String) -> Result<Self> {
        let source = JwtSource::new().await.context("get JWT bundles from the Workload API")?;
        Ok(Self { source, audience })
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
        ensure!(id == peer, "the token is of {id}, the certificate of {peer}");
        Ok(token.key_id().to_owned())
    }
}
