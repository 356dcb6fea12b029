//! WA: what a client does with the streams of the Workload API.

use std::time::Duration;

use countersign_proto::workload::X509svidResponse;
use tonic::Code;

use crate::support::authority::Svid;
use crate::support::control::Decision;
use crate::support::env::{Env, case};
use crate::support::failure::{Verdict, expect};
use crate::support::mock::{Call, Method, X509Update};
use crate::support::tls::Probe;
use crate::support::wait::{RECONNECT, throughout, until};

/// How long the X.509 port is watched after a bad response, before the barrier (catalogue, section 10).
const WINDOW: Duration = Duration::from_secs(1);
/// Within which an identity that was withdrawn is not presented any more.
const WITHDRAWN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn wa_1_the_stream_is_opened_again_after_the_server_closed_it() -> Verdict {
    case(async |env| {
        env.presents(&env.first.id).await?;
        let before = env.mock.calls_of(Method::FetchX509Svid).len();
        env.mock.close_streams(Code::Unavailable);
        let again = |calls: &[Call]| calls.iter().filter(|call| call.method == Method::FetchX509Svid).count() > before;
        let reopened = env.mock.recorded(RECONNECT, again).await;
        expect(reopened, || format!("no new stream within {} s", RECONNECT.as_secs()))?;
        // Served only now: it can arrive by the new stream alone.
        let second = env.own.issue(&env.own.id("/second"));
        env.serve(&[&second]);
        env.presents(&second.id).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn wa_2_a_response_without_svids_is_discarded() -> Verdict {
    discards(|response| response.svids.clear()).await
}

#[tokio::test]
async fn wa_2_a_response_with_an_empty_spiffe_id_is_discarded() -> Verdict {
    discards(|response| response.svids[0].spiffe_id.clear()).await
}

#[tokio::test]
async fn wa_2_a_response_with_an_empty_certificate_is_discarded() -> Verdict {
    discards(|response| response.svids[0].x509_svid.clear()).await
}

#[tokio::test]
async fn wa_2_a_response_with_an_empty_key_is_discarded() -> Verdict {
    discards(|response| response.svids[0].x509_svid_key.clear()).await
}

#[tokio::test]
async fn wa_2_a_response_with_an_empty_bundle_is_discarded() -> Verdict {
    discards(|response| response.svids[0].bundle.clear()).await
}

async fn discards(blank: impl FnOnce(&mut X509svidResponse)) -> Verdict {
    case(async |env| {
        let bad = env.own.issue(&env.own.id("/bad"));
        ignores(env, &bad, async || {
            let update = X509Update { svids: &[&bad], bundle: &[&env.own], federated: &[] };
            env.mock.push_x509_as(update, blank);
        })
        .await
    })
    .await
}

/// The client ignores what `push` serves: it presents the identity it had, and then the next one, never `bad`.
pub(crate) async fn ignores(env: &Env, bad: &Svid, push: impl AsyncFnOnce()) -> Verdict {
    let (a, b) = (env.own.issue(&env.own.id("/a")), env.own.issue(&env.own.id("/b")));
    env.serve(&[&a]);
    env.presents(&a.id).await?;
    push().await;
    throughout(WINDOW, async || good(&env.probe().await?, bad, &[&a])).await?;
    env.serve(&[&b]);
    // An update that is taken over during a handshake may fail that one, but not the next one too.
    let mut failed = false;
    until("the identity after it is presented", RECONNECT, async || {
        let probe = env.probe().await?;
        let verdict = good(&probe, bad, &[&a, &b]);
        let rejected = matches!(probe.decision, Decision::Rejected(_));
        let tolerated = !failed && rejected && probe.leaf() != Some(bad.leaf());
        failed = verdict.is_err();
        if !tolerated {
            verdict?;
        }
        Ok(if probe.serves(&b.id) { Ok(()) } else { Err(format!("{:?}", probe.ids())) })
    })
    .await
}

fn good(probe: &Probe, bad: &Svid, allowed: &[&Svid]) -> Verdict {
    expect(probe.leaf() != Some(bad.leaf()), || "presented what it should have ignored".to_owned())?;
    expect(allowed.iter().any(|svid| probe.serves(&svid.id)), || {
        format!("presented {:?} and decided {:?}", probe.ids(), probe.decision)
    })
}

#[tokio::test]
async fn wa_3_the_first_svid_is_the_default_identity() -> Verdict {
    case(async |env| {
        let (a, b) = (env.own.issue(&env.own.id("/a")), env.own.issue(&env.own.id("/b")));
        env.serve(&[&a, &b]);
        env.presents(&a.id).await?;
        env.serve(&[&b, &a]);
        env.presents(&b.id).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn wa_4_svids_are_not_used_after_permission_denied() -> Verdict {
    case(async |env| {
        env.presents(&env.first.id).await?;
        env.mock.fail(Method::FetchX509Svid, Code::PermissionDenied, usize::MAX);
        env.mock.close_streams(Code::PermissionDenied);
        until("the identity is not presented any more", WITHDRAWN, async || {
            let probe = env.probe().await?;
            Ok(if probe.serves(&env.first.id) { Err("still presented".to_owned()) } else { Ok(()) })
        })
        .await
    })
    .await
}
