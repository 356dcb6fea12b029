//! The examples of `countersign-verify` across the boundary: what a bundle alone cannot say.

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    federation::federated,
    fixture::{Image, PodSpec},
    verify,
};

use crate::consents::{grant, introduce};

/// R16: of the foreign trust domain the named path is accepted and its sibling is refused, though both have the same bundle.
#[tokio::test]
async fn the_example_service_accepts_a_foreign_path_and_refuses_its_sibling() {
    federated("verify", async |here, there| {
        for (world, other) in [(here, there), (there, here)] {
            grant(world, &[&other.trust_domain]).await?;
            for account in ["service", "client", "sibling"] {
                let more = format!("federatesWith: [{}]\njwt: {{audiences: [service]}}", other.trust_domain);
                world.cluster.apply(&world.identity_yaml(account, &more)).await?;
            }
        }
        for (world, other) in [(here, there), (there, here)] {
            introduce(world, other, &[&world.namespace], "").await?;
            world.identity_condition("service", "Federated", "True", "Complete").await?;
        }
        let pattern = format!("/ns/{}/sa/client", here.namespace);
        let address = verify::serve(there, &here.trust_domain, &[&pattern]).await?;
        let url = format!("https://{address}/token");
        let said = client(here, there, "client", &url).await?;
        ensure!(said.contains(&format!("{} answered 200 OK: {}", there.id("service"), here.id("client"))), "{said}");
        let said = client(here, there, "sibling", &url).await?;
        ensure!(!said.contains("answered"), "{said}");
        let log = verify::log(there).await?;
        let refusal = format!("the certificate of {}, which is not accepted here", here.id("sibling"));
        ensure!(log.contains(&refusal), "{log}");
        Ok(())
    })
    .await;
}

async fn client(here: &World, there: &World, account: &str, url: &str) -> Result<String> {
    verify::run(here, &PodSpec::client(account, Image::VerifyClient, &[url, &there.id("service")])).await
}
