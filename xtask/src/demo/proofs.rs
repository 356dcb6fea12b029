//! The part of the demo with proofs of possession: what `cart` says of its requests to `orders`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{NAMESPACE, TRUST_DOMAIN};
use crate::kube::Kubectl;
use crate::progress::say;
use crate::sh::{Run as _, wait_for};

const CALLER: &str = "cart";
const SERVICE: &str = "orders";

/// What came back to a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Answered {
    /// `proof`: sent for the first time. `replay`: the same request again.
    event: String,
    proof: String,
    status: u16,
    /// Who called and how that was proven, as the service says.
    answer: String,
    /// Who signed the response, as the caller has verified.
    signed_by: Option<String>,
}

/// The newest of each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    wpt: Answered,
    replay: Answered,
    signature: Answered,
}

/// Prints what became of the newest requests; waits for the first ones.
pub(super) fn report(kubectl: &Kubectl) -> Result<()> {
    let what = format!("answers of {SERVICE} in the log of {CALLER}");
    let args = ["logs", "--namespace", NAMESPACE, "--selector", "app=cart", "--container", CALLER, "--tail=50"];
    let newest = || Ok(Seen::newest(&kubectl.cmd(&args).read()?));
    let seen = wait_for(&what, Duration::from_secs(60), newest).with_context(|| {
        format!("the demo's {CALLER} has proven nothing; see `kubectl -n {NAMESPACE} logs -l app=cart`")
    })?;
    seen.check()?;
    say(format!("\nWho called {SERVICE}, by proof of possession:"));
    say(format!("  WPT              {}: {}", seen.wpt.status, seen.wpt.answer));
    say(format!("  the same again   {}", seen.replay.status));
    let signed_by = seen.signature.signed_by.as_deref().unwrap_or_default();
    say(format!("  HTTP signature   {}: {}", seen.signature.status, seen.signature.answer));
    say(format!("    the response is signed by {signed_by}"));
    Ok(())
}

impl Seen {
    fn newest(log: &str) -> Option<Self> {
        let all: Vec<Answered> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let newest = |event: &str, proof: &str| {
            all.iter().rev().find(|one: &&Answered| one.event == event && one.proof == proof).cloned()
        };
        let (wpt, replay) = (newest("proof", "wpt")?, newest("replay", "wpt")?);
        Some(Self { wpt, replay, signature: newest("proof", "http-signature")? })
    }

    fn check(&self) -> Result<()> {
        let id = |account: &str| format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{account}");
        for one in [&self.wpt, &self.signature] {
            let expected = format!("{} by {}", id(CALLER), one.proof);
            ensure!(one.status == 200 && one.answer == expected, "instead of 200 and `{expected}`: {one:?}");
        }
        ensure!(self.replay.status == 401, "a proof was accepted twice: {:?}", self.replay);
        let signed_by = self.signature.signed_by.as_deref();
        ensure!(signed_by == Some(&id(SERVICE)), "the response is not signed by {SERVICE}: {:?}", self.signature);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(replay: u16, signed_by: &str) -> String {
        let caller = "spiffe://demo.countersign.dev/ns/countersign-demo/sa/cart";
        [
            "no JSON".to_owned(),
            format!(r#"{{"event":"proof","proof":"wpt","status":200,"answer":"{caller} by wpt"}}"#),
            format!(r#"{{"event":"replay","proof":"wpt","status":{replay},"answer":""}}"#),
            format!(
                r#"{{"event":"proof","proof":"http-signature","status":200,"answer":"{caller} by http-signature","signed_by":"{signed_by}"}}"#
            ),
        ]
        .join("\n")
    }

    #[test]
    fn a_demo_whose_proofs_are_accepted_once_is_right_and_any_other_is_named() {
        let orders = "spiffe://demo.countersign.dev/ns/countersign-demo/sa/orders";
        Seen::newest(&log(401, orders)).unwrap().check().unwrap();
        let error = |log: &str| Seen::newest(log).unwrap().check().unwrap_err().to_string();
        assert!(error(&log(200, orders)).contains("accepted twice"));
        assert!(error(&log(401, "spiffe://other/x")).contains("not signed by orders"));
        assert!(error(&log(401, orders).replace("sa/cart by wpt", "sa/other by wpt")).contains("instead of 200"));
        assert_eq!(Seen::newest(""), None);
    }
}
