//! EP: how a client finds and calls the Workload Endpoint, and when it tries again.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::support::env::{Scene, case};
use crate::support::failure::{Verdict, control, error, expect, fail};
use crate::support::mock::{Call, Method};
use crate::support::process::{Program, READY, Start};

/// For three failed attempts and the waits between them.
const RETRIES: Duration = Duration::from_secs(30);
/// The shortest mean interval of attempts that is no tight loop: 20 calls a second.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(50);
/// How long every call is refused, unless the client gives up before.
const REFUSED: Duration = Duration::from_secs(5);
/// How much later than the harness the endpoint is there.
const LATE: Duration = Duration::from_secs(2);
/// How long a client with an invalid address may take to give up.
const GIVE_UP: Duration = Duration::from_secs(10);

#[tokio::test]
async fn ep_1_the_endpoint_is_discovered_from_the_environment() -> Verdict {
    let scene = Scene::new()?;
    let _listening = scene.listen()?;
    let harness = scene.ready(&scene.endpoint(), READY).await?;
    expect(!scene.mock.calls().is_empty(), || "ready without a call".to_owned())?;
    scene.presents_first(harness).await
}

#[tokio::test]
async fn ep_2_every_call_has_the_security_header() -> Verdict {
    case(async |env| {
        env.presents(&env.first.id).await?;
        env.jwt_control().await?;
        // What comes of the fetch is of no interest here, only how it was asked for.
        let _ = env.harness().control()?.fetch(&["conformance"], "").await;
        let calls = env.mock.calls();
        let called = |method| calls.iter().any(|call| call.method == method);
        expect(called(Method::FetchX509Svid) || called(Method::FetchX509Bundles), || "no call for X.509".to_owned())?;
        let without: Vec<Method> = calls.iter().filter(|call| !call.has_header).map(|call| call.method).collect();
        expect(without.is_empty(), || format!("without the header: {without:?}"))
    })
    .await
}

#[tokio::test]
async fn ep_3_a_tcp_endpoint_is_supported() -> Verdict {
    let scene = Scene::new()?;
    let (_listening, address) = scene.mock.listen_tcp().await?;
    let harness = scene.ready(&format!("tcp://{address}"), READY).await?;
    scene.presents_first(harness).await
}

#[tokio::test]
async fn ep_4_an_authority_in_a_unix_uri_is_rejected() -> Verdict {
    let scene = Scene::new()?;
    let _listening = scene.listen()?;
    let invalid = format!("unix://localhost{}", scene.socket().display());
    rejects_endpoint(&scene, &invalid, &scene.endpoint()).await
}

#[tokio::test]
async fn ep_4_a_path_in_a_tcp_uri_is_rejected() -> Verdict {
    let scene = Scene::new()?;
    let (_listening, address) = scene.mock.listen_tcp().await?;
    rejects_endpoint(&scene, &format!("tcp://{address}/path"), &format!("tcp://{address}")).await
}

/// The client neither becomes ready nor calls anything with the invalid address, and does both with the valid one.
async fn rejects_endpoint(scene: &Scene, invalid: &str, valid: &str) -> Verdict {
    let mut harness = Program::examined().start(invalid)?;
    let start = tokio::select! {
        start = harness.ready(GIVE_UP) => start?,
        true = scene.mock.recorded(GIVE_UP, |calls| !calls.is_empty()) => {
            return fail(format!("called the Workload API at {invalid}"));
        }
    };
    expect(start != Start::Ready, || format!("ready with {invalid}"))?;
    expect(scene.mock.calls().is_empty(), || format!("called the Workload API at {invalid}"))?;
    harness.end().await;
    let harness = control(scene.ready(valid, READY).await)?;
    control(scene.presents_first(harness).await)
}

#[tokio::test]
async fn ep_5_unavailable_is_retried_with_backoff() -> Verdict {
    retries_with_backoff(Code::Unavailable).await
}

#[tokio::test]
async fn ep_6_permission_denied_is_retried_with_backoff() -> Verdict {
    retries_with_backoff(Code::PermissionDenied).await
}

async fn retries_with_backoff(code: Code) -> Verdict {
    let scene = Scene::new()?;
    let _listening = scene.listen()?;
    scene.mock.fail(Method::FetchX509Svid, code, 3);
    let harness = scene.ready(&scene.endpoint(), RETRIES).await?;
    scene.presents_first(harness).await?;
    let calls = scene.mock.calls_of(Method::FetchX509Svid);
    let attempts: Vec<Instant> = match calls.iter().position(|call| call.status == Code::Ok) {
        Some(first) if first >= 3 => calls[..=first].iter().map(|call| call.at).collect(),
        _ => return error(format!("not three failed calls: {}", statuses(&calls))),
    };
    let span = attempts[attempts.len() - 1] - attempts[0];
    let mean = span / u32::try_from(attempts.len() - 1)?;
    expect(mean >= SHORTEST_BACKOFF, || format!("{} calls in {span:?}", attempts.len()))
}

#[tokio::test]
async fn ep_7_invalid_argument_is_not_retried() -> Verdict {
    let scene = Scene::new()?;
    let _listening = scene.listen()?;
    for method in Method::ALL {
        scene.mock.fail(method, Code::InvalidArgument, usize::MAX);
    }
    let mut harness = Program::examined().start(&scene.endpoint())?;
    let too_many = |calls: &[Call]| Method::ALL.iter().any(|method| of(calls, *method) > 2);
    let start = tokio::select! {
        start = harness.ready(REFUSED) => start?,
        true = scene.mock.recorded(REFUSED, too_many) => {
            return fail(format!("retried: {}", statuses(&scene.mock.calls())));
        }
    };
    expect(start != Start::Ready, || "ready although every call was refused".to_owned())?;
    if scene.mock.calls().is_empty() {
        return error(format!("no call at all: {}", harness.log()));
    }
    expect(!too_many(&scene.mock.calls()), || format!("retried: {}", statuses(&scene.mock.calls())))?;
    harness.end().await;
    scene.mock.heal();
    let harness = control(scene.ready(&scene.endpoint(), READY).await)?;
    control(scene.presents_first(harness).await)
}

#[tokio::test]
async fn ep_8_an_endpoint_that_is_not_reachable_yet_is_retried() -> Verdict {
    let scene = Scene::new()?;
    let mut harness = Program::examined().start(&scene.endpoint())?;
    match harness.ready(LATE).await? {
        Start::Waiting => {}
        Start::Ended => return fail(format!("gave up: {}", harness.log())),
        Start::Ready => return error("ready without an endpoint"),
    }
    let _listening = scene.listen()?;
    match harness.ready(RETRIES).await? {
        Start::Ready => scene.presents_first(harness).await,
        start => fail(format!("{start:?} after the endpoint was there: {}", harness.log())),
    }
}

fn of(calls: &[Call], method: Method) -> usize {
    calls.iter().filter(|call| call.method == method).count()
}

fn statuses(calls: &[Call]) -> String {
    calls.iter().map(|call| format!("{:?} {:?}", call.method, call.status)).collect::<Vec<_>>().join(", ")
}
