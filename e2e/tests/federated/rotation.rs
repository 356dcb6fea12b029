//! Authorities of two clusters are replaced while workloads call across the boundary.

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    faults::report_counts,
    federation::federated,
    traffic::Sums,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    consents::call,
    polled::{Profile, polling},
};

/// Those who poll do so at most twice a minute, and a switch waits for three times the hint.
const HINT: &str = "bundleRefreshHint: 30s, x509: {svidTTL: 2m}, jwt: {svidTTL: 1m}";

/// How often all authorities of both clusters are replaced.
const ROTATIONS: u64 = 2;

/// The least number of handshakes.
const HANDSHAKES: u64 = 5_000;

/// The test's trust domain, whose authorities are replaced once they were made before `after`.
async fn authority(world: &World, other: &World, after: Option<Timestamp>) -> Result<()> {
    let rotation = after.map(|after| format!(", rotation: {{after: '{after}'}}")).unwrap_or_default();
    let grant = format!("federatesWith: [{}]", other.trust_domain);
    world.cluster.apply(&world.granting_yaml(&format!("{HINT}{rotation}"), &grant)).await.map(drop)
}

/// Waits until a client has called often enough, with tokens of the keys of every rotation.
async fn enough(world: &World) -> Result<Sums> {
    let mut sums = world.traffic_continues(HANDSHAKES / 2).await?;
    while sums.key_ids <= ROTATIONS {
        sums = world.traffic_since(sums, 1, DEFAULT_TIMEOUT).await?;
    }
    Ok(sums)
}

/// R25, R53: one side learns of the other's new authorities by `https_web`, the other by `https_spiffe`, in time, since the spares
/// are published long before they sign.
#[tokio::test]
#[ignore = "soak"]
async fn soak_two_rotations_in_both_clusters_break_no_call_between_them() {
    federated("rotate", async |here, there| {
        let pairs = [(here, there), (there, here)];
        for (world, other) in pairs {
            authority(world, other, None).await?;
        }
        polling(here, there, &["client", "server"], [Profile::Web, Profile::Spiffe]).await?;
        for (world, other) in pairs {
            authority(world, other, None).await?;
            call(world, other).await?;
        }
        for world in [here, there] {
            world.traffic_continues(1).await?;
        }
        let first = [here.authorities().await?.all(), there.authorities().await?.all()];
        for _ in 0..ROTATIONS {
            for (world, other) in pairs {
                authority(world, other, Some(Timestamp::now())).await?;
            }
            for world in [here, there] {
                until("the rotation is complete", DEFAULT_TIMEOUT * 2, async || {
                    let found = world.trust_domain_condition("RotationComplete").await?;
                    Ok(found.filter(|(status, _)| status == "True"))
                })
                .await?;
            }
        }
        let (one, other) = (enough(here).await?, enough(there).await?);
        let now = [here.authorities().await?, there.authorities().await?];
        for (first, now) in first.iter().zip(&now) {
            ensure!(now.ids("active").is_disjoint(first), "an authority of the beginning signs: {now:?}");
        }
        report_counts(
            "two rotations of each kind in both clusters under calls between them",
            &json!({
                "handshakes": one.handshakes + other.handshakes, "failed": one.failed + other.failed,
                "validations": one.validations + other.validations,
                "token_keys_seen": [one.key_ids, other.key_ids],
                "leaves_seen": [one.serials + one.peer_serials, other.serials + other.peer_serials],
            }),
        )
    })
    .await;
}
