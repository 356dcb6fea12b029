//! What a token says.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::service_account::TokenError;
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::sign;
use serde_json::{Value, json};

use super::{AUDIENCE, Cluster, ISSUER, MAX_LIFE, claims, header, refused_with, refused_without, remove};
use crate::fixtures::{at, now, part};

#[test]
fn a_token_says_which_pod_and_account_its_bearer_is() {
    let token = Cluster::new().verify(&claims()).unwrap();
    assert_eq!(
        (token.namespace.as_str(), token.pod_name.as_str(), token.pod_uid.as_str()),
        ("shop", "cart-x2x4q", "pod-uid")
    );
    assert_eq!((token.service_account.as_str(), token.service_account_uid.as_str()), ("cart", "account-uid"));
    let node = token.node;
    assert_eq!((node.name.as_str(), node.uid.as_deref()), ("node-1", Some("node-uid")));
    assert_eq!((token.expires_at, token.jti.as_deref()), (at(3600), Some("token-id")));
}

#[test]
fn a_token_of_another_cluster_is_refused() {
    for iss in ["https://other", "", "https://kubernetes.default.svc.cluster.local/"] {
        assert_eq!(refused_with("/iss", json!(iss)), TokenError::Issuer { expected: ISSUER.to_owned() });
    }
}

#[test]
fn a_token_of_another_audience_is_refused() {
    for aud in
        [json!(["https://kubernetes.default.svc"]), json!("countersign.dev/other"), json!([format!("{AUDIENCE} ")])]
    {
        assert_eq!(refused_with("/aud", aud), TokenError::Audience { expected: AUDIENCE.to_owned(), count: 1 });
    }
    assert_eq!(refused_with("/aud", json!([])), TokenError::Audience { expected: AUDIENCE.to_owned(), count: 0 });
}

#[test]
fn a_token_of_two_audiences_is_refused_even_if_one_is_ours() {
    for aud in [json!([AUDIENCE, "vault"]), json!(["vault", AUDIENCE]), json!([AUDIENCE, AUDIENCE])] {
        assert_eq!(refused_with("/aud", aud), TokenError::Audience { expected: AUDIENCE.to_owned(), count: 2 });
    }
}

#[test]
fn one_audience_may_stand_alone_or_in_a_list() {
    let mut claims = claims();
    claims["aud"] = json!(AUDIENCE);
    assert!(Cluster::new().verify(&claims).is_ok());
}

#[test]
fn an_expired_token_is_refused_without_leeway() {
    let seconds = now().as_second();
    assert_eq!(refused_with("/exp", json!(seconds)), TokenError::Expired { at: at(0), now: now() });
    assert_eq!(refused_with("/exp", json!(seconds - 60)), TokenError::Expired { at: at(-60), now: now() });
    let mut claims = claims();
    claims["exp"] = json!(seconds + 1);
    assert!(Cluster::new().verify(&claims).is_ok());
}

// Whoever may request tokens chooses how long they live: of ten years, if the API server is not told otherwise.
#[test]
fn a_token_that_lives_longer_than_is_accepted_is_refused_however_old_it_is() {
    let (seconds, most) = (now().as_second(), 2 * 3600);
    for (iat, exp) in [(0, most + 1), (0, 10 * 365 * 86_400), (-most, 1), (10, most + 11)] {
        let mut claims = claims();
        (claims["iat"], claims["nbf"]) = (json!(seconds + iat), json!(seconds + iat));
        claims["exp"] = json!(seconds + exp);
        let life = std::time::Duration::from_secs((exp - iat).unsigned_abs());
        let refusal = Cluster::new().verify(&claims).unwrap_err();
        assert_eq!(refusal, TokenError::LivesTooLong { life, most: MAX_LIFE }, "{iat} {exp}");
    }
    for (iat, exp) in [(0, most), (1 - most, 1), (10, most + 10)] {
        let mut claims = claims();
        (claims["iat"], claims["exp"]) = (json!(seconds + iat), json!(seconds + exp));
        assert!(Cluster::new().verify(&claims).is_ok(), "{iat} {exp}");
    }
    assert_eq!(refused_without("/iat"), TokenError::NoIssuedAt);
}

// Requested before the pod was scheduled: no kubelet asked for it.
#[test]
fn a_token_that_names_no_node_is_refused() {
    assert_eq!(refused_without("/kubernetes.io/node"), TokenError::NoNode);
    assert_eq!(refused_with("/kubernetes.io/node", json!(null)), TokenError::NoNode);
    assert_eq!(refused_with("/kubernetes.io/node/name", json!("")), TokenError::NoNode);
}

#[test]
fn a_token_of_the_future_is_refused_with_a_small_leeway() {
    for claim in ["nbf", "iat"] {
        let error = refused_with(&format!("/{claim}"), json!(now().as_second() + 11));
        assert_eq!(error, TokenError::NotYetValid(at(11)));
        let mut claims = claims();
        claims[claim] = json!(now().as_second() + 10);
        assert!(Cluster::new().verify(&claims).is_ok());
    }
}

#[test]
fn a_token_that_is_bound_to_no_pod_is_refused() {
    for pointer in ["/kubernetes.io", "/kubernetes.io/pod"] {
        assert_eq!(refused_without(pointer), TokenError::NotBoundToPod);
    }
    assert_eq!(refused_with("/kubernetes.io/pod", json!(null)), TokenError::NotBoundToPod);
}

#[test]
fn required_claims_are_required() {
    for pointer in [
        "/iss",
        "/sub",
        "/aud",
        "/exp",
        "/kubernetes.io/namespace",
        "/kubernetes.io/serviceaccount",
        "/kubernetes.io/serviceaccount/uid",
        "/kubernetes.io/pod/uid",
        "/kubernetes.io/pod/name",
    ] {
        assert_eq!(refused_without(pointer), TokenError::Claims, "{pointer}");
    }
    for pointer in ["/kubernetes.io/pod/uid", "/kubernetes.io/pod/name", "/kubernetes.io/serviceaccount/uid"] {
        assert_eq!(refused_with(pointer, json!("")), TokenError::Claims, "{pointer}");
    }
}

// Found by fuzzing: the bytes of claims that are skipped went unread.
#[test]
fn claims_that_are_not_utf_8_throughout_are_refused() {
    let cluster = Cluster::new();
    let with = |bytes: &[u8]| {
        let claims = claims().to_string();
        let claims = [b"{\"other\":\"", bytes, b"\",", claims.trim_start_matches('{').as_bytes()].concat();
        let input = format!("{}.{}", part(&header()), URL_SAFE_NO_PAD.encode(claims));
        let signature = sign(input.as_bytes(), &cluster.signing_key(), Algorithm::ES256).unwrap();
        cluster.verify_token(&format!("{input}.{signature}"))
    };
    assert!(with(b"\xc3\xa9").is_ok());
    assert_eq!(with(b"\xc3"), Err(TokenError::Claims));
}

#[test]
fn optional_claims_are_optional() {
    for pointer in ["/jti", "/nbf", "/kubernetes.io/node/uid"] {
        let mut claims = claims();
        remove(&mut claims, pointer);
        assert!(Cluster::new().verify(&claims).is_ok(), "{pointer}");
    }
}

#[test]
fn sub_is_the_account_beside_the_pod() {
    for sub in [
        "system:serviceaccount:shop:other",
        "system:serviceaccount:other:cart",
        "system:serviceaccount:shop",
        "system:serviceaccount:shop:cart:x",
        "system:node:node-1",
        "",
    ] {
        assert_eq!(refused_with("/sub", json!(sub)), TokenError::Subject, "{sub}");
    }
}

#[test]
fn claims_that_say_something_twice_are_refused() {
    let text = claims().to_string();
    let twice = text.replacen('{', &format!(r#"{{"aud":["{AUDIENCE}"],"#), 1);
    assert_eq!(Cluster::new().verify(&Value::String(twice)), Err(TokenError::Claims));
    let pod = text.replacen(r#""pod":{"#, r#""pod":{"uid":"first","#, 1);
    assert_ne!(pod, text);
    assert_eq!(Cluster::new().verify(&Value::String(pod)), Err(TokenError::Claims));
}
