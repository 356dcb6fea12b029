//! R11, R12, R77: the examples of `countersign-verify` in pods: a service that knows its callers, and a client that knows whom it calls.

use anyhow::{Result, ensure};
use countersign_e2e::{World, fixture::PodSpec, scenario, verify};

/// Own callers are accepted, by certificate and by token.
#[tokio::test]
async fn the_example_service_knows_its_callers_and_the_client_its_server() {
    scenario("verify", async |world| {
        let own = world.trust_domain_yaml("x509: {svidTTL: 1m}");
        world.cluster.apply(&own).await?;
        for account in ["service", "client"] {
            world.cluster.apply(&world.identity_yaml(account, "jwt: {audiences: [service]}")).await?;
        }
        let address = verify::serve(world, "elsewhere.test", &[]).await?;
        for path in ["", "token"] {
            let said = client(world, &format!("client{path}"), &format!("https://{address}/{path}"), "service").await?;
            let expected = format!("{} answered 200 OK: {}", world.id("service"), world.id("client"));
            ensure!(said.contains(&expected), "{said}");
        }
        // The right place, and another id than was expected: nothing is sent there.
        let said = client(world, "mistaken", &format!("https://{address}/"), "other").await?;
        ensure!(said.contains("which is not accepted here") && !said.contains("answered"), "{said}");
        Ok(())
    })
    .await;
}

async fn client(world: &World, name: &str, url: &str, server: &str) -> Result<String> {
    let server = world.id(server);
    let pod = PodSpec::client(name, countersign_e2e::fixture::Image::VerifyClient, &[url, &server]).account("client");
    verify::run(world, &pod).await
}
