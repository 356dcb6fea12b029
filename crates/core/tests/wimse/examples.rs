//! The examples of the drafts. All proofs in them are by EdDSA, which WIT-SVID does not allow (section 3.2), and their workloads are
//! `wimse://`: they are refused for that, and only for that.

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::id::IdError;
use countersign_core::wimse::WitFieldError;
use countersign_core::wimse::wpt::{WptError, verify_wpt};
use countersign_core::wimse::{Audience, MemoryReplayCache, Policy, Request};
use countersign_core::wit::{ConfirmationError, WitSvidError};
use jiff::Timestamp;
use serde_json::json;

use crate::fixtures::{World, borrowed, hash, request, wit_header, with};

/// Creds, section 5.1: signed by ES256.
const WIT: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6Ikp1bmUgNSIsInR5cCI6IndpdCtqd3QifQ.eyJjbmYiOnsiandrIjp7ImFsZyI6IkVkRFNBIiwiY3J2IjoiRWQyNTUxOSIsImt0eSI6Ik9LUCIsIngiOiIxQ1hYdmZsTl9MVlZzSXNZWHNVdkIwM0ptbEdXZUNIcVFWdW91Q0Y5MmJnIn19LCJleHAiOjE3NDU1MTI1MTAsImlhdCI6MTc0NTUwODkxMCwianRpIjoieC1fMUNUTDJjY2EzQ1NFNGN3Yl9sIiwic3ViIjoid2ltc2U6Ly9leGFtcGxlLmNvbS9zcGVjaWZpYy13b3JrbG9hZCJ9.6KraSQUxWdl9dxFQ3Fj6dPY0Vi88OkwFwZpAIOhLeq6AbXAnLLQgOp8U9UDGcBuYF3KiNv6oKQD1ZWAzrMZOJw";
/// Wpt, draft 01, section 2.
const OLD_PROOF: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IndwdCtqd3QifQ.eyJhdGgiOiJDTDR3amZwUm1OZi1iZFlJYllMblY5ZDVyTUFSR3dLWUUxMHdVd3pDMGpJIiwiYXVkIjoiaHR0cHM6Ly93b3JrbG9hZC5leGFtcGxlLmNvbS9wYXRoIiwiZXhwIjoxNzQ1NTEwMDE2LCJqdGkiOiJfX2J3YzRFU0MzYWNjMkxUQzEtX3giLCJ3dGgiOiJBYVlVZkMzNEQxZGkyRnhRTHBpSUpKN1NnOFZaNm84T0Nkd1NmOUlUb0xnIn0.PI7d9AcYhLoEgPgbJvcM132lkBKnM1NXU-5hZUzVTIyj2dRJaTLFs6e5NYv5gg6AqcV7NvkYCwfgMgWasWQzCA";

fn issuer() -> BundleSet {
    let key = json!({
        "kty": "EC", "kid": "June 5", "crv": "P-256", "use": "wit-svid",
        "x": "kXqnA2Op7hgd4zRMbw0iFcc_hDxUxhojxOFVGjE2gks", "y": "n__VndPMR021-59UAs0b9qDTFT-EZtT6xSNs_xFskLo",
    });
    let document = json!({ "keys": [key] }).to_string();
    BundleSet::new([Bundle::parse(&"example.com".parse().unwrap(), document.as_bytes()).unwrap()]).unwrap()
}

fn verify(fields: &[(&str, &str)]) -> WptError {
    let (bundles, fields) = (issuer(), borrowed(fields));
    let audiences = [Audience::targets_of("https://workload.example.com").unwrap()];
    let now = Timestamp::from_second(1_745_510_000).unwrap();
    let request = Request { path: "/path", ..request(&fields) };
    verify_wpt(&request, &Policy::new(&bundles, &audiences), &MemoryReplayCache::new(1, 1), now).unwrap_err()
}

// The WIT is by its issuer's key: an independent reader says so.
#[test]
fn the_example_wit_is_well_signed_and_refused_for_the_id_of_its_workload() {
    let error = verify(&[("authorization", "WPT e30.e30.e30"), ("workload-identity-token", WIT)]);
    assert_eq!(error, WptError::Wit(WitFieldError::Wit(WitSvidError::Id(IdError::Scheme))));
    let key = jsonwebtoken::DecodingKey::from_ec_components(
        "kXqnA2Op7hgd4zRMbw0iFcc_hDxUxhojxOFVGjE2gks",
        "n__VndPMR021-59UAs0b9qDTFT-EZtT6xSNs_xFskLo",
    )
    .unwrap();
    let (input, signature) = WIT.rsplit_once('.').unwrap();
    let algorithm = jsonwebtoken::Algorithm::ES256;
    assert!(jsonwebtoken::crypto::verify(signature, input.as_bytes(), &key, algorithm).unwrap());
}

// Draft 02 only moved it: its hash of the WIT is that of our own.
#[test]
fn the_example_of_draft_01_is_refused_for_its_field() {
    let fields = [("workload-proof-token", OLD_PROOF), ("workload-identity-token", WIT)];
    assert_eq!(verify(&fields), WptError::OldField);
    assert_eq!(hash(WIT), "AaYUfC34D1di2FxQLpiIJJ7Sg8VZ6o8OCdwSf9IToLg");
}

#[test]
fn the_key_of_the_examples_is_refused_for_its_algorithm() {
    let world = World::new();
    let jwk = json!({
        "alg": "EdDSA", "crv": "Ed25519", "kty": "OKP", "x": "1CXXvflN_LVVsIsYXsUvB03JmlGWeCHqQVuouCF92bg",
    });
    let wit = world.forge_wit(&wit_header(), &with(world.wit_claims(), "cnf", json!({ "jwk": jwk })));
    let value = format!("WPT {OLD_PROOF}");
    let error = world.verify_fields(&[("authorization", &value), ("workload-identity-token", &wit)]).unwrap_err();
    let expected = ConfirmationError::Algorithm { alg: "\"EdDSA\"".to_owned() };
    assert_eq!(error, WptError::Wit(WitFieldError::Wit(WitSvidError::Confirmation(expected))));
}
