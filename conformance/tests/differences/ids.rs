//! SPIFFE IDs.

use countersign_verify::SpiffeId;
use rand::{Rng as _, rngs::StdRng};
use serde_json::json;

use crate::{Case, mutation, oracle::Oracle};

const GENUINE: [&str; 8] = [
    "spiffe://example.org/ns/shop/sa/cart",
    "spiffe://example.org",
    "spiffe://a/b",
    "spiffe://10.0.0.1/x",
    "spiffe://sub_domain.example-1.org/A.b-c_d/0",
    "spiffe://example.org/a/.../b",
    "spiffe://example.org/..a/.b",
    "spiffe://xn--bcher-kva.example/x",
];

pub(crate) fn text(random: &mut StdRng) -> String {
    let genuine = *mutation::one_of(random, &GENUINE);
    let text = mutation::text(random, genuine);
    // Around the limits: 255 bytes of a trust domain, 2048 of the whole.
    match random.random_range(0..40) {
        0 => format!("spiffe://{}/x", "a".repeat(random.random_range(250..260))),
        1 => format!("spiffe://example.org/{}", "a".repeat(random.random_range(2020..2035))),
        _ => text,
    }
}

pub(crate) fn case(random: &mut StdRng, oracle: &mut Oracle) -> Case {
    let id = text(random);
    let ours = id.parse::<SpiffeId>().map(|id| id.to_string()).map_err(|error| error.to_string());
    Case { theirs: oracle.ask(&json!({ "id": id })), ours, theirs_otherwise: None, shown: format!("id {id:?}") }
}
