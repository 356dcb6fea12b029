//! Use of a stolen pod token is visible, and possible no longer than Kubernetes accepts the token.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_contract::network::port;
use countersign_e2e::{
    World,
    cluster::SYSTEM,
    fixture::PodSpec,
    issuer::{Issuer, IssuerEndpoint, Session, csr},
    pods::{identity_of, is_ready},
    replicas::{OPERATOR, address},
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use futures::{FutureExt as _, future::select_all};
use k8s_openapi::{
    api::core::v1::{Event, Node, Pod},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use tokio::time::timeout;
use tonic::Code;

const TEN_YEARS: i64 = 10 * 365 * 24 * 3600;

/// Creates the trust domain, and an identity of this account.
async fn installed(world: &World, account: &str) -> Result<String> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    world.cluster.apply(&world.identity_yaml(account, "")).await?;
    Ok(world.cluster.control_plane().await?.audience)
}

/// A stream that has received its identity.
async fn served(issuer: &Issuer, token: &str, session: &str) -> Result<Session> {
    let mut session = issuer.open_session(token, session).await?;
    ensure!(!session.state().await?.identities.is_empty(), "it has no identity yet");
    Ok(session)
}

/// The operator's serving replicas.
async fn replicas(world: &World) -> Result<Vec<Pod>> {
    let mut replicas = world.product(OPERATOR).await?;
    replicas.retain(is_ready);
    Ok(replicas)
}

fn says<'a>(reason: &'a str, named: &'a str) -> impl Fn(&Event) -> bool + 'a {
    move |event| {
        event.reason.as_deref() == Some(reason) && event.message.as_ref().is_some_and(|text| text.contains(named))
    }
}

/// A thief that names a container instead of the pod takes over from the agent, with an event, and the agent takes over
/// again.
#[tokio::test]
async fn a_thief_that_names_a_container_is_seen_and_does_not_keep_the_agent_out() {
    scenario("stolen-name", async |world| {
        let audience = installed(world, "victim").await?;
        world.cluster.apply(&PodSpec::hold("victim").pod(&world.namespace)).await?;
        let pod = identity_of(&world.ready("victim").await?)?;
        let token = world.service_account_token("victim", &[&audience], Some(&pod)).await?;
        let endpoint = IssuerEndpoint::of(&world.cluster).await?;
        // One of the replicas has the agent's stream.
        let mut thieves = Vec::new();
        for replica in replicas(world).await? {
            let issuer = endpoint.clone().to_replica(&address(&replica)?).connect().await?;
            thieves.push(served(&issuer, &token, "app").await?);
            let refused = issuer.open_session(&token, "countersign-agent").await?.state().await;
            let refused = refused.expect_err("the agent's container has no session");
            assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
        }
        let named = "for container app took over";
        world
            .event("victim", "that a container's session displaced the pod's", says("SessionDisplaced", named))
            .await?;
        world
            .event("victim", "that its streams come from two addresses", says("StreamsFromSeveralAddresses", ""))
            .await?;
        let ended = timeout(DEFAULT_TIMEOUT, select_all(thieves.iter_mut().map(|thief| thief.end().boxed()))).await;
        let (status, ..) = ended.context("the agent takes over from none of them")?;
        assert_eq!(status.code(), Code::Aborted, "{}", status.message());
        ensure!(world.credential("victim").await?.id == world.id("victim"), "the agent lost the identity");
        Ok(())
    })
    .await;
}

/// At another replica than the agent's, a thief displaces nobody; the leader detects that the pod has two addresses.
#[tokio::test]
async fn a_thief_at_another_replica_than_the_agent_is_seen() {
    scenario("stolen-elsewhere", async |world| {
        let audience = installed(world, "victim").await?;
        let pod = world.never_runs("victim", "victim").await?;
        let token = world.service_account_token("victim", &[&audience], Some(&pod)).await?;
        let replicas = replicas(world).await?;
        let [one, other, ..] = replicas.as_slice() else { anyhow::bail!("there is one replica only") };
        let endpoint = IssuerEndpoint::of(&world.cluster).await?;
        let direct = endpoint.clone().to_replica(&address(one)?);
        let mut agent = until("the pod is served", DEFAULT_TIMEOUT, async || {
            served(&direct.connect().await?, &token, "").await.map(Some)
        })
        .await?;

        // A connection forwarded by the kubelet comes from the replica's own loopback address.
        let mut forwarder = world.cluster.api::<Pod>(SYSTEM).portforward(&other.name_any(), &[port::ISSUER]).await?;
        let forwarded = forwarder.take_stream(port::ISSUER).context("the port is not forwarded")?;
        let mut thief = served(&endpoint.connect_over(forwarded).await?, &token, "").await?;
        let both = says("StreamsFromSeveralAddresses", "127.0.0.1");
        world.event("victim", "that its streams come from two addresses", both).await?;
        for session in [&mut agent, &mut thief] {
            let (request, _) = csr(&[], &[])?;
            ensure!(session.certificate(request, "").await?.refusal.is_none(), "the event came by another way");
        }
        Ok(())
    })
    .await;
}

/// An account that may request tokens chooses their lifetime; tokens of a pod without a node can only be requested by such
/// an account.
#[tokio::test]
async fn a_token_of_ten_years_and_one_of_a_pod_on_no_node_are_refused() {
    scenario("stolen-long", async |world| {
        let audience = installed(world, "account").await?;
        let pod = world.never_runs("scheduled", "account").await?;
        let issuer = Issuer::connect(&world.cluster).await?;
        let good = world.token_of_life("account", &[&audience], Some(&pod), 2 * 3600).await?;
        until("the issuer accepts a good token", DEFAULT_TIMEOUT, async || {
            served(&issuer, &good, "").await.map(|_| Some(()))
        })
        .await?;

        let long = world.token_of_life("account", &[&audience], Some(&pod), TEN_YEARS).await?;
        let unscheduled = world.never_scheduled("unscheduled", "account").await?;
        let early = world.service_account_token("account", &[&audience], Some(&unscheduled)).await?;
        for (token, named) in [(long, "--max-token-life"), (early, "names no node")] {
            let (code, message) = Issuer::connect(&world.cluster).await?.refusal(&token).await?;
            assert_eq!(code, Code::Unauthenticated, "{message}");
            assert!(message.contains(named) && !message.contains(&token), "{message}");
        }
        Ok(())
    })
    .await;
}

/// As for Kubernetes' own authenticator: a pod whose node is gone stays forever, and counts as ended a minute after its
/// grace period.
#[tokio::test]
async fn a_pod_that_is_never_quite_deleted_ends_all_the_same() {
    scenario("stolen-late", async |world| {
        let nodes = Api::<Node>::all(world.cluster.client.clone());
        let node = world.namespace.clone();
        // No other pod is scheduled onto it.
        let gone = format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\nspec:\n  unschedulable: true\n  \
             taints: [{{key: countersign.dev/gone, effect: NoSchedule}}]\n"
        );
        world.cluster.apply(&gone).await?;
        let outcome = outlives_its_deletion(world, &node).await;
        let _ = world.pods().delete("lost", &DeleteParams::default().grace_period(0)).await;
        nodes.delete(&node, &DeleteParams::default()).await?;
        outcome
    })
    .await;
}

/// The assertions of the test, as errors only: the node that it created must be deleted in any case.
async fn outlives_its_deletion(world: &World, node: &str) -> Result<()> {
    let audience = installed(world, "account").await?;
    let pod = world.not_injected("lost", "account", &format!("nodeName: {node}")).await?;
    let token = world.service_account_token("account", &[&audience], Some(&pod)).await?;
    let issuer = Issuer::connect(&world.cluster).await?;
    let mut session =
        until("the pod is served", DEFAULT_TIMEOUT, async || served(&issuer, &token, "").await.map(Some)).await?;

    world.pods().delete("lost", &DeleteParams::default().grace_period(1)).await?;
    let deleted = world.pods().get("lost").await?.metadata.deletion_timestamp.context("it is not being deleted")?.0;
    let (request, _) = csr(&[], &[])?;
    ensure!(session.certificate(request, "").await?.refusal.is_none(), "it ended with its deletion's begin");
    let ended = timeout(DEFAULT_TIMEOUT, session.end()).await.context("the stream goes on")?;
    ensure!(ended.code() == Code::Unauthenticated, "the stream ended with {ended}");
    let since = Timestamp::now().duration_since(deleted);
    // Tolerates differences between clocks.
    ensure!(since.as_secs() > Duration::from_secs(50).as_secs().cast_signed(), "it ended after {since}");
    let (code, message) = issuer.refusal(&token).await?;
    ensure!(code == Code::Unauthenticated, "a new stream is refused with {code}: {message}");
    let still_there = world.pods().get("lost").await?;
    ensure!(
        still_there.status.and_then(|status| status.phase).as_deref() == Some("Pending"),
        "something else ended it"
    );
    Ok(())
}
