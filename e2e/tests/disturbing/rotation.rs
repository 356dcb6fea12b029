//! Authorities are replaced, tainted and revoked under load. What is no longer trusted is presented to unmodified peers in
//! Rust, Go and Python, as whoever has a copy of a credential would.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_e2e::{
    World,
    authorities::{algorithm, key_id},
    cluster::SYSTEM,
    credential::{Credential, FOLDER},
    faults::{alone, random_below, report_counts},
    fixture::{AUDIENCE, Image, PodSpec},
    pods::restarts,
    replicas::{OPERATOR, address},
    stolen_credential::Answer,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::json;
use tokio::time::interval;

/// A CA lives for minutes; a leaf outlives the restart of its agent's replica.
const ROTATING: &str = "bundleRefreshHint: 1s, x509: {svidTTL: 60s, caTTL: 3m}, jwt: {svidTTL: 60s}";

/// Leaves live for an hour: whoever has another one within a test got it by push.
const LASTING: &str = "bundleRefreshHint: 1s";

/// Calls of a soak, each a full handshake and the validation of a token.
const CALLS: u64 = 5_000;

/// The rotations of each kind.
const ROTATIONS: u64 = 5;

/// The interval between kills of a replica: the one before serves again.
const PACE: Duration = Duration::from_secs(12);

/// Types of keys, with the signature algorithms of leaves (RFC 5758, RFC 4055) and tokens (RFC 7518, 3.1).
const SIGNATURES: [(&str, &str, &str); 3] = [
    ("ec-p384", "1.2.840.10045.4.3.3", "ES384"),
    ("rsa-2048", "1.2.840.113549.1.1.11", "RS256"),
    ("ec-p256", "1.2.840.10045.4.3.2", "ES256"),
];

/// The account whose credential was copied.
const HOLDER: &str = "holder";

/// R10, R53, R71: rotations by request and in time, while replicas are killed, the leader as likely as any.
#[tokio::test]
#[ignore = "soak"]
async fn soak_five_rotations_of_each_kind_under_load_with_replicas_killed_fail_no_call() {
    alone("rotations", async |world| {
        if world.replicas(OPERATOR).await? < 2 {
            world.scale(OPERATOR, 2).await?;
        }
        let authority = |more: &str| format!("{ROTATING}, rotation: {{maxDelay: 30s{more}}}");
        world.cluster.apply(&world.trust_domain_yaml(&authority(""))).await?;
        world.traffic_with_tokens("25ms").await?;
        let before = world.traffic_continues(1).await?;

        let killed = Cell::new(0_u64);
        let mut signers = [BTreeSet::new(), BTreeSet::new()];
        let rotating = async {
            for _ in 0..=ROTATIONS {
                let now = until("both kinds have an authority that has not signed yet", DEFAULT_TIMEOUT, async || {
                    let now = world.authorities().await?;
                    let (Some(x509), Some(jwt)) = (now.active("x509"), now.active("jwt")) else { return Ok(None) };
                    Ok((!signers[0].contains(&x509) && !signers[1].contains(&jwt)).then_some([x509, jwt]))
                })
                .await?;
                for (signers, id) in signers.iter_mut().zip(now) {
                    signers.insert(id);
                }
                let after = format!(", after: '{}'", Timestamp::now());
                world.cluster.apply(&world.trust_domain_yaml(&authority(&after))).await?;
            }
            world.traffic_since(before, CALLS, DEFAULT_TIMEOUT * 4).await
        };
        let during = tokio::select! {
            during = rotating => during?,
            failed = kill_replicas(world, &killed) => return failed,
        };
        let [x509, jwt] = signers.map(|signers| signers.len() - 1);
        let during = during.since(before);
        ensure!(during.validations >= CALLS && killed.get() >= 5, "{during:?}, {} killed", killed.get());
        ensure!(during.key_ids >= ROTATIONS, "tokens of {} new keys were validated", during.key_ids);
        let counts = json!({ "x509_rotations": x509, "jwt_rotations": jwt, "replicas_killed": killed.get() });
        report_counts("rotations with replicas killed", &during.counts(&counts))
    })
    .await;
}

/// Deletes a replica of the operator every now and then, without notice; ends only with an error.
async fn kill_replicas(world: &World, killed: &Cell<u64>) -> Result<()> {
    let mut pace = interval(PACE);
    pace.tick().await;
    loop {
        pace.tick().await;
        let pods = world.product(OPERATOR).await?;
        let Some(pod) = pods.get(random_below(pods.len())) else { continue };
        let now = DeleteParams::default().grace_period(0);
        if world.cluster.api::<Pod>(SYSTEM).delete(&pod.name_any(), &now).await.is_ok() {
            killed.set(killed.get() + 1);
        }
    }
}

/// R10, R29, R53, R74: of both kinds, under load. Whoever has a copy of a leaf of the tainted authority is refused once the anchor has
/// left the bundle, though the leaf has not expired. Python's context only ever adds anchors: a new one refuses, one that is
/// kept accepts (`docs/reference.md`).
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_copy_of_a_leaf_of_a_tainted_authority_is_refused_and_no_call_fails() {
    alone("tainted-copy", async |world| {
        world.cluster.apply(&world.trust_domain_yaml(LASTING)).await?;
        let peers = Peers::start(world).await?;
        world.traffic_with_tokens("25ms").await?;
        let before = world.traffic_continues(1).await?;
        let copy = world.credential(HOLDER).await?;
        let token = world.jwt_file(HOLDER, AUDIENCE).await?;
        peers.all_accept(world, &copy).await?;

        let request =
            format!("{LASTING}, taint: {{maxDelay: 5m}}, tainted: ['{}', '{}']", copy.authority, key_id(&token)?);
        let tainted = Timestamp::now();
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        peers.all_refuse(&copy).await?;
        let refused = Timestamp::now().duration_since(tainted);
        let renewed = world.credential(HOLDER).await?;
        ensure!(renewed.authority != copy.authority, "the pod itself has another leaf by then");
        peers.all_accept(world, &renewed).await?;
        let kept = copy.present(&peers.kept_context).await?;
        ensure!(kept == Answer::Accepted(world.id(HOLDER)), "a context that is kept has forgotten an anchor: {kept:?}");

        let during = world.traffic_since(before, CALLS, DEFAULT_TIMEOUT * 2).await?.since(before);
        ensure!(during.validations >= CALLS && during.serials > 0 && during.peer_serials > 0, "{during:?}");
        let counts = json!({ "seconds_until_a_copy_was_refused": refused.as_secs() });
        report_counts("taint", &during.counts(&counts))
    })
    .await;
}

/// R10, R29: the window in which a copy may still be accepted is shown, and ends. All are named, since active and spare share
/// a Secret.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_copy_of_a_leaf_of_a_revoked_authority_is_refused_within_the_window_that_is_shown() {
    alone("revoked-copy", async |world| {
        world.cluster.apply(&world.trust_domain_yaml(LASTING)).await?;
        let peers = Peers::start(world).await?;
        let copy = world.credential(HOLDER).await?;
        peers.all_accept(world, &copy).await?;

        let all: Vec<String> = world.authorities().await?.all().iter().map(|id| format!("'{id}'")).collect();
        let revoked = Timestamp::now();
        world.cluster.apply(&world.trust_domain_yaml(&format!("{LASTING}, revoked: [{}]", all.join(", ")))).await?;
        let shown = until("the window is shown", DEFAULT_TIMEOUT, async || {
            let removed = world.trust_domain_status().await?["removed"].as_array().cloned().unwrap_or_default();
            let one = removed.into_iter().find(|one| one["subjectKeyId"] == copy.authority.as_str());
            Ok(one.and_then(|one| one["acceptedUntil"].as_str()?.parse::<Timestamp>().ok()))
        })
        .await?;
        peers.all_refuse(&copy).await?;
        let refused = Timestamp::now();
        // Presenting to three peers takes a moment.
        ensure!(refused <= shown + SignedDuration::from_secs(1), "accepted until {refused}, shown {shown}");
        let renewed = until("the pod has a leaf of a new authority", DEFAULT_TIMEOUT, async || {
            Ok(Some(world.credential(HOLDER).await?).filter(|one| one.authority != copy.authority))
        })
        .await?;
        peers.all_accept(world, &renewed).await?;
        let counts = json!({
            "window_shown_milliseconds": shown.duration_since(revoked).as_millis(),
            "milliseconds_until_a_copy_was_refused": refused.duration_since(revoked).as_millis(),
        });
        report_counts("revocation", &counts)
    })
    .await;
}

/// R53, R74: every key type that can be chosen, both kinds, one after the other; what the one before signed is trusted on.
#[tokio::test]
#[ignore = "soak"]
async fn soak_key_types_are_changed_on_a_live_domain_by_rotations() {
    alone("key-types", async |world| {
        let authority = |keys: &str, after: &str| {
            format!(
                "bundleRefreshHint: 1s, x509: {{svidTTL: 20s, {keys}}}, jwt: {{svidTTL: 20s, {keys}}}, \
                 rotation: {{maxDelay: 20s{after}}}"
            )
        };
        world.cluster.apply(&world.trust_domain_yaml(&authority("keyType: ec-p256", ""))).await?;
        world.cluster.apply(&world.identity_yaml(HOLDER, &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        world.cluster.apply(&PodSpec::hold(HOLDER).pod(&world.namespace)).await?;
        world.ready(HOLDER).await?;
        world.traffic_with_tokens("50ms").await?;
        let before = world.traffic_continues(1).await?;
        for (keys, certificates, tokens) in SIGNATURES {
            let after = format!(", after: '{}'", Timestamp::now());
            let request = authority(&format!("keyType: {keys}"), &after);
            world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
            until(&format!("leaf and token are signed with {keys}"), DEFAULT_TIMEOUT, async || {
                let (leaf, token) = (world.credential(HOLDER).await?, world.jwt_file(HOLDER, AUDIENCE).await?);
                let found = (leaf.signature_algorithm()?, algorithm(&token)?);
                ensure!(found == (certificates.to_owned(), tokens.to_owned()), "they are signed with {found:?}");
                Ok(Some(()))
            })
            .await?;
            world.traffic_since(world.traffic_continues(1).await?, 100, DEFAULT_TIMEOUT).await?;
        }
        for pod in [HOLDER, "client", "server"] {
            ensure!(restarts(&world.ready(pod).await?) == 0, "{pod} was restarted");
        }
        let during = world.traffic_continues(1).await?.since(before);
        report_counts("key types are changed", &during.counts(&json!({ "key_types": SIGNATURES.len() })))
    })
    .await;
}

/// Servers in three languages that accept the holder of the credential.
struct Peers {
    /// Addresses of servers that drop anchors that left the bundle.
    current: Vec<String>,
    /// The address of one that reads its anchors again and again into one Python context.
    kept_context: String,
}

impl Peers {
    async fn start(world: &World) -> Result<Self> {
        world.cluster.apply(&world.identity_yaml(HOLDER, &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        world.cluster.apply(&PodSpec::hold(HOLDER).pod(&world.namespace)).await?;
        let holder = world.id(HOLDER);
        let peers = [
            ("peer-rust", Image::Demo, vec!["serve", "--listen", "0.0.0.0:8443", "--allow", &holder]),
            ("peer-go", Image::ClientGo, vec!["-listen", "0.0.0.0:8443", "-allow", &holder]),
            ("peer-python", Image::ClientPython, vec!["--serve", "8443", "--allow", &holder, "--folder", FOLDER]),
        ];
        let mut current = Vec::new();
        let mut kept_context = String::new();
        for (name, image, arguments) in &peers {
            world.cluster.apply(&world.identity_yaml(name, "")).await?;
            let peer = PodSpec { image: *image, ..PodSpec::demo(name, arguments) };
            world.cluster.apply(&peer.pod(&world.namespace)).await?;
        }
        for (name, ..) in &peers {
            let address = address(&world.ready(name).await?)?;
            current.push(format!("{address}:8443"));
            kept_context = format!("{address}:8444");
        }
        world.ready(HOLDER).await?;
        Ok(Self { current, kept_context })
    }

    /// Waits until every peer accepts the credential.
    async fn all_accept(&self, world: &World, credential: &Credential) -> Result<()> {
        for peer in self.current.iter().chain([&self.kept_context]) {
            until(&format!("{peer} accepts the credential"), DEFAULT_TIMEOUT, async || {
                match credential.present(peer).await? {
                    Answer::Accepted(id) if id == world.id(HOLDER) => Ok(Some(())),
                    answer => bail!("{answer:?}"),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until no peer but the one with a kept context accepts the credential, which has not expired.
    async fn all_refuse(&self, credential: &Credential) -> Result<()> {
        for peer in &self.current {
            until(&format!("{peer} refuses the credential"), DEFAULT_TIMEOUT, async || {
                let answer = credential.present(peer).await.context("present a copy")?;
                Ok(matches!(answer, Answer::Refused(_)).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}
