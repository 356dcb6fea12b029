//! Tests that the unmodified Rust package `spiffe` works with the Workload API: it fetches and watches X.509 and JWT
//! material, and validates a JWT-SVID both locally and through the Workload API.

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use serde_json::json;
use spiffe::{JwtSvid, WorkloadApiClient, X509Context};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::report::say;

pub(crate) async fn run(audience: Option<&str>, updates: u32) -> Result<()> {
    let client = connect().await?;
    client.fetch_x509_svid().await.context("fetch an X509-SVID")?;
    bundles(&client).await?;
    if let Some(audience) = audience {
        jwt(&client, audience).await?;
    }
    watch(&client, updates).await
}

/// Writes a JWT-SVID to standard output.
pub(crate) async fn token(audience: &str) -> Result<()> {
    use std::io::Write as _;

    let svid = connect().await?.fetch_jwt_svid([audience], None).await.context("fetch a JWT-SVID")?;
    writeln!(std::io::stdout().lock(), "{}", svid.token())?;
    Ok(())
}

async fn connect() -> Result<WorkloadApiClient> {
    WorkloadApiClient::connect_env().await.context("connect to the address in SPIFFE_ENDPOINT_SOCKET")
}

async fn bundles(client: &WorkloadApiClient) -> Result<()> {
    let x509 = client.fetch_x509_bundles().await.context("fetch X.509 bundles")?;
    let jwt = client.fetch_jwt_bundles().await.context("fetch JWT bundles")?;
    for (trust_domain, bundle) in x509.iter() {
        let keys = jwt.get(trust_domain).map_or(0, |keys| keys.jwt_authorities().count());
        say(&json!({
            "event": "bundle",
            "trust_domain": trust_domain.to_string(),
            "x509_authorities": bundle.authorities().len(),
            "jwt_authorities": keys,
        }));
    }
    Ok(())
}

async fn jwt(client: &WorkloadApiClient, audience: &str) -> Result<()> {
    let svid = client.fetch_jwt_svid([audience], None).await.context("fetch a JWT-SVID")?;
    let bundles = client.fetch_jwt_bundles().await.context("fetch JWT bundles")?;
    let here =
        JwtSvid::parse_and_validate(svid.token(), &bundles, &[audience]).context("validate the JWT-SVID here")?;
    let there = client
        .validate_jwt_token(audience, svid.token())
        .await
        .context("have the Workload API validate the JWT-SVID")?;
    ensure!(here.spiffe_id() == there.spiffe_id(), "two validations, two ids");
    say(&json!({
        "event": "jwt",
        "id": here.spiffe_id().to_string(),
        "audience": here.audience(),
        "validated": there.spiffe_id().to_string(),
    }));
    Ok(())
}

async fn watch(client: &WorkloadApiClient, updates: u32) -> Result<()> {
    let mut contexts = client.stream_x509_contexts().await.context("watch X.509 contexts")?;
    for _ in 0..updates {
        let context = contexts.next().await.context("the stream ended")?.context("watch X.509 contexts")?;
        report(&context)?;
    }
    say(&json!({ "event": "done", "updates": updates }));
    Ok(())
}

fn report(context: &X509Context) -> Result<()> {
    let svid = context.default_svid().context("an update without an X509-SVID")?;
    let (_, leaf) = X509Certificate::from_der(svid.leaf().as_bytes()).context("read the leaf")?;
    let not_after = jiff::Timestamp::from_second(leaf.validity().not_after.timestamp())?;
    say(&json!({
        "event": "x509",
        "id": svid.spiffe_id().to_string(),
        "serial": format!("{:x}", leaf.serial),
        "issuer": leaf.issuer().to_string(),
        "not_after": not_after.to_string(),
    }));
    Ok(())
}
