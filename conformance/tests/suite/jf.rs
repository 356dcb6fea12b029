//! JF: JWT-SVIDs that a client fetches.

use tonic::Code;

use crate::support::env::{Env, case};
use crate::support::failure::{Verdict, control, expect, fail};
use crate::support::mock::{Call, Method};
use crate::support::tokens::{self, AUDIENCE};

#[tokio::test]
async fn jf_1_the_token_of_the_server_is_returned() -> Verdict {
    fetches_for(&[AUDIENCE]).await
}

#[tokio::test]
async fn jf_2_several_audiences_are_passed_on() -> Verdict {
    fetches_for(&[AUDIENCE, "spiffe://example.org/other", "third"]).await
}

async fn fetches_for(audience: &[&str]) -> Verdict {
    case(async |env| {
        let mut claims = tokens::claims(&env.first.id);
        claims["aud"] = audience.into();
        let token = env.key.sign(&env.key.header(), &claims);
        env.mock.set_jwt_svids([(env.first.id.clone(), token.clone())]);
        let (tokens, calls) = fetch(env, audience, "").await?;
        expect(tokens == [token], || format!("{} tokens, or another one", tokens.len()))?;
        asked_for(&calls, audience)
    })
    .await
}

#[tokio::test]
async fn jf_3_the_spiffe_id_is_passed_on() -> Verdict {
    case(async |env| {
        let other = env.own.id("/other");
        let [of_first, of_other] = [&env.first.id, &other].map(|id| (id.clone(), env.key.token(id)));
        let wanted = of_other.1.clone();
        env.mock.set_jwt_svids([of_first, of_other]);
        let (tokens, calls) = fetch(env, &[AUDIENCE], &other).await?;
        expect(tokens == [wanted], || format!("{} tokens, or of another identity", tokens.len()))?;
        asked_for(&calls, &[AUDIENCE])?;
        expect(calls.iter().all(|call| call.spiffe_id == other), || format!("asked for {:?}", calls[0].spiffe_id))
    })
    .await
}

#[tokio::test]
async fn jf_4_permission_denied_is_an_error() -> Verdict {
    case(async |env| {
        control(fetch(env, &[AUDIENCE], "").await)?;
        env.mock.fail(Method::FetchJwtSvid, Code::PermissionDenied, usize::MAX);
        match env.harness().control()?.fetch(&[AUDIENCE], "").await? {
            Err(_) => Ok(()),
            Ok(tokens) => fail(format!("returned {} tokens", tokens.len())),
        }
    })
    .await
}

/// The tokens that the client returns, and the calls it made for them.
async fn fetch(env: &Env, audience: &[&str], id: &str) -> Verdict<(Vec<String>, Vec<Call>)> {
    let before = env.mock.calls_of(Method::FetchJwtSvid).len();
    let fetched = env.harness().control()?.fetch(audience, id).await?;
    let calls = env.mock.calls_of(Method::FetchJwtSvid).split_off(before);
    match fetched {
        Ok(tokens) => Ok((tokens, calls)),
        Err(why) => fail(format!("no token: {why}")),
    }
}

/// The order of audiences has no meaning.
fn asked_for(calls: &[Call], audience: &[&str]) -> Verdict {
    let sorted = |audience: &mut Vec<String>| audience.sort();
    let mut wanted: Vec<String> = audience.iter().map(|one| (*one).to_owned()).collect();
    sorted(&mut wanted);
    let right = |call: &Call| {
        let mut asked = call.audience.clone();
        sorted(&mut asked);
        asked == wanted
    };
    expect(!calls.is_empty() && calls.iter().all(right), || format!("asked for {calls:?}"))
}
