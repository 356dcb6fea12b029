//! Many pods start at once.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    faults::{alone, report_counts},
    fixture::PodSpec,
    issuer::{Issuer, csr},
    pods::is_event,
    wait::{DEFAULT_TIMEOUT, until},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::time::Instant;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// Real pods with real agents.
async fn real(world: &World, accounts: usize, replicas: u32) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    let accounts: Vec<String> = (0..accounts).map(|number| format!("herd-{number}")).collect();
    let begun = Instant::now();
    world.idle(&accounts, replicas).await?;
    let pods = world.each_has_its_own(&accounts, usize::try_from(replicas)?, DEFAULT_TIMEOUT * 6).await?;
    let counts = json!({ "pods_with_their_own_identity": pods, "seconds": begun.elapsed().as_secs() });
    report_counts("pods started at once", &counts)
}

/// More pods than a node can run, all created at once: each checks its credential at its first instruction and ends, which
/// makes room for others. They belong to Jobs, which would replace a failed pod: none may fail.
async fn through(world: &World, accounts: usize, each: usize) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    let accounts: Vec<String> = (0..accounts).map(|number| format!("herd-{number}")).collect();
    let begun = Instant::now();
    for account in &accounts {
        world.cluster.apply(&world.identity_yaml(account, "")).await?;
        let spec = PodSpec { restart: "Never", ..PodSpec::demo(account, &["first-instruction", "--exit"]) };
        world.cluster.apply(&spec.job(&world.namespace, each)).await?;
    }
    let jobs = world.cluster.api::<Job>(&world.namespace);
    for account in &accounts {
        let left = (DEFAULT_TIMEOUT * 10).saturating_sub(begun.elapsed());
        until(&format!("{each} pods of {account} have ended well"), left, async || {
            let succeeded = jobs.get(account).await?.status.and_then(|status| status.succeeded);
            Ok((succeeded == Some(i32::try_from(each)?)).then_some(()))
        })
        .await?;
    }
    let seconds = begun.elapsed().as_secs();
    let mut keys = BTreeSet::new();
    for account in &accounts {
        let pods = world.pods_of(account).await?;
        ensure!(pods.len() == each, "{} pods were made for the {each} of {account}", pods.len());
        let said = pods.iter().map(|pod| async { world.app_output(&pod.name_any()).await });
        let said: Vec<_> = stream::iter(said).buffer_unordered(4).try_collect().await?;
        for lines in said {
            let line = lines.iter().find(|line| is_event(line, "first-instruction")).context("a pod said nothing")?;
            ensure!(line["id"] == world.id(account), "a pod of {account} had {line}");
            let key = line["public_key"].as_str().context("no key is named")?;
            ensure!(keys.insert(key.to_owned()), "two pods had one key");
        }
    }
    report_counts("pods created at once", &json!({ "pods_with_their_own_identity": keys.len(), "seconds": seconds }))
}

/// More pods than a node can run: they exist but never run, and their tokens are presented all at once, as by their agents.
async fn spoken_for(world: &World, pods: usize, at_once: usize) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    let accounts: Vec<String> = (0..10).map(|number| format!("herd-{number}")).collect();
    for account in &accounts {
        world.cluster.apply(&world.identity_yaml(account, "")).await?;
    }
    let audience = world.cluster.control_plane().await?.audience;
    let made = stream::iter(0..pods).map(|number| {
        let account = format!("herd-{}", number % 10);
        let audience = &audience;
        async move {
            let token = token(world, &format!("pod-{number}"), &account, audience).await?;
            anyhow::Ok((account, token))
        }
    });
    let tokens: Vec<(String, String)> = made.buffer_unordered(16).try_collect().await?;

    let issuer = Arc::new(Issuer::connect(&world.cluster).await?);
    let begun = Instant::now();
    let issued = stream::iter(tokens).map(|(account, token)| {
        let issuer = issuer.clone();
        async move { issued(world, &issuer, &account, &token).await }
    });
    let again: Vec<u64> = issued.buffer_unordered(at_once).try_collect().await?;
    let took = begun.elapsed();
    let counts = json!({
        "certificates_for_the_right_pod": again.len(), "at_once": at_once, "asked_to_come_back": again.iter().sum::<u64>(),
        "seconds": took.as_secs_f64().round(),
    });
    report_counts("pods whose tokens are presented at once", &counts)
}

/// A pod that never runs, and a token bound to it.
async fn token(world: &World, name: &str, account: &str, audience: &str) -> Result<String> {
    let pod = world.never_runs(name, account).await?;
    world.service_account_token(account, &[audience], Some(&pod)).await
}

/// Requests a certificate for this token, which must be for this account and key. Returns how often the request was
/// deferred.
async fn issued(world: &World, issuer: &Issuer, account: &str, token: &str) -> Result<u64> {
    let mut tries: u64 = 0;
    until("a certificate is issued", DEFAULT_TIMEOUT, async || {
        tries += 1;
        let mut session = issuer.open(token).await?;
        let state = session.state().await?;
        ensure!(!state.identities.is_empty(), "no identity: {}", state.reason);
        let (request, key) = csr(&[], &[])?;
        let answer = session.certificate(request, "").await?;
        ensure!(answer.refusal.is_none(), "refused: {:?}", answer.refusal);
        let leaf = answer.certificates.first().context("no certificate")?;
        right(world, account, &key, &CertificateDer::from(leaf.clone()))?;
        Ok(Some(()))
    })
    .await?;
    Ok(tries - 1)
}

fn right(world: &World, account: &str, key: &KeyPair, leaf: &CertificateDer<'_>) -> Result<()> {
    let (_, leaf) = X509Certificate::from_der(leaf)?;
    let names = leaf.subject_alternative_name()?.context("no names")?;
    let id = world.id(account);
    ensure!(names.value.general_names == [GeneralName::URI(&id)], "{account} was issued {:?}", names.value);
    ensure!(leaf.public_key().raw == key.subject_public_key_info(), "{account} was issued another's key");
    Ok(())
}

#[tokio::test]
async fn pods_that_start_at_once_get_each_its_own() {
    alone("herd", async |world| real(world, 3, 3).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_a_hundred_pods_start_at_once() {
    alone("herd-100", async |world| real(world, 10, 10).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_a_thousand_pods_are_created_at_once() {
    alone("herd-1000", async |world| through(world, 10, 100).await).await;
}

#[tokio::test]
async fn tokens_presented_at_once_get_each_its_own() {
    alone("tokens-at-once", async |world| spoken_for(world, 60, 60).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_a_thousand_tokens_are_presented_at_once() {
    alone("tokens-1000", async |world| spoken_for(world, 1_000, 500).await).await;
}
