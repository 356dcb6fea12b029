//! Requests to a server of axum behind the layer that authenticates them: what is accepted, and what is not.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_verify::{
    Authorizer,
    layer::AuthenticationLayer,
    proof::Authenticator,
    tls::{mtls_client_config, mtls_server_config},
    wimse::{Audience, signature::content_digest},
};

use crate::{
    fixtures::{Domain, TTL, Wit, trusting},
    orders::{Answered, Orders, SERVICE, accepting_all, send},
    sender::Sent,
};

struct World {
    domain: Domain,
    wit: Wit,
    orders: Orders,
}

impl World {
    async fn new() -> Self {
        let domain = Domain::new("a.test");
        let layer = AuthenticationLayer::new(accepting_all(&domain).build().unwrap());
        Self { wit: domain.wit("/caller"), orders: Orders::start(layer).await, domain }
    }

    fn token(&self) -> String {
        self.domain.token("/caller", SERVICE, TTL)
    }
}

fn is_problem(answered: &Answered, kind: &str) -> bool {
    answered.media_type.as_deref() == Some("application/problem+json") && answered.body.contains(kind)
}

// R12.
#[tokio::test]
async fn handlers_of_axum_know_the_caller_and_how_it_was_proven() {
    let world = World::new().await;
    for (sent, expected) in [
        (Sent::post(b"seven").bearer(&world.token()), "spiffe://a.test/caller by jwt-svid via nobody and 5 bytes"),
        (Sent::post(b"seven").wpt(&world.wit), "spiffe://a.test/caller by wpt via nobody and 5 bytes"),
        (
            Sent::post(b"seven").signed(&world.wit, false),
            "spiffe://a.test/caller by http-signature via nobody and 5 bytes",
        ),
    ] {
        let answered = world.orders.send(&sent).await;
        assert_eq!((answered.status, answered.body.as_str()), (200, expected));
    }
    let answered = world.orders.send(&Sent::get()).await;
    assert_eq!((answered.status, answered.challenge.as_deref()), (401, Some("WPT, Bearer")));
}

// R12.
#[tokio::test]
async fn over_mutual_tls_a_proof_names_the_caller_and_never_falls_back_to_the_peer() {
    let domain = Domain::new("a.test");
    let (bundles, wit) = (trusting(&[&domain]), domain.wit("/caller"));
    let serving = mtls_server_config(Arc::new(domain.svid("/orders")), bundles.clone(), Authorizer::anybody()).unwrap();
    let layer = AuthenticationLayer::new(accepting_all(&domain).build().unwrap());
    let orders = Orders::start_mtls(layer, serving).await;
    let calling = mtls_client_config(Arc::new(domain.svid("/gateway")), bundles, Authorizer::anybody()).unwrap();
    let client = reqwest::Client::builder().use_preconfigured_tls(calling).build().unwrap();
    let ask = async |sent: Sent| send(&client, "https", orders.port, &sent).await;

    assert_eq!(ask(Sent::get()).await.body, "spiffe://a.test/gateway by mtls via nobody and 0 bytes");
    for (sent, method) in [
        (Sent::get().bearer(&domain.token("/caller", SERVICE, TTL)), "jwt-svid"),
        (Sent::get().wpt(&wit), "wpt"),
        (Sent::get().signed(&wit, false), "http-signature"),
    ] {
        let expected = format!("spiffe://a.test/caller by {method} via spiffe://a.test/gateway and 0 bytes");
        assert_eq!(ask(sent.clone()).await.body, expected);
        // The same proof again: the peer does not stand in for the caller.
        if method != "jwt-svid" {
            assert!([400, 401].contains(&ask(sent).await.status));
        }
    }
    assert_eq!(orders.served(), 4);
}

/// The token with another header.
fn with_header(token: &str, header: &str) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}

// R11, R62, R97.
#[tokio::test]
async fn what_is_refused_does_not_reach_the_service_and_its_sender_does_not_learn_why() {
    let world = World::new().await;
    let (domain, wit) = (&world.domain, &world.wit);
    let (wpt, signed) = (Sent::get().wpt(wit), Sent::get().signed(wit, false));
    let (proof, input) = (wpt.header("authorization"), signed.header("signature-input"));
    let eddsa = with_header(proof.trim_start_matches("WPT "), r#"{"alg":"EdDSA","typ":"wpt+jwt"}"#);
    let eddsa_wit = with_header(&wit.token, r#"{"alg":"EdDSA","kid":"a","typ":"wit+jwt"}"#);
    let thief = Wit { token: domain.wit("/caller").token, key: PrivateKey::generate(KeyType::EcP256).unwrap() };
    let other_service = Sent::get().wpt_for(wit, &wit.key, "https://payments.example/orders/7", &[]);
    let unknown_oth = Sent::get().wpt_for(wit, &wit.key, &wpt.target(), &[("x-other", "t")]).with("x-other", "t");
    let stolen = Sent::get().wpt(&domain.wit("/caller")).replacing("workload-identity-token", &thief.token);
    let second = input.replacen("wimse=", "other=", 1);
    let second_signature = signed.header("signature").replacen("wimse=", "other=", 1);
    let joined = format!("{0}, {0}", wit.token);

    for (case, sent, status, challenge) in [
        ("no proof", Sent::get(), 401, Some("WPT, Bearer")),
        ("a WIT alone", Sent::get().with("workload-identity-token", &wit.token), 401, Some("WPT, Bearer")),
        ("a WIT as bearer", Sent::get().bearer(&wit.token), 401, Some(r#"Bearer error="invalid_token""#)),
        (
            "a WPT as bearer",
            Sent::get().bearer(proof.trim_start_matches("WPT ")),
            401,
            Some(r#"Bearer error="invalid_token""#),
        ),
        (
            "a JWT-SVID as WPT",
            wpt.clone().replacing("authorization", &format!("WPT {}", world.token())),
            401,
            Some("WPT"),
        ),
        ("a JWT-SVID as WIT", wpt.clone().replacing("workload-identity-token", &world.token()), 400, None),
        ("EdDSA", wpt.clone().replacing("authorization", &format!("WPT {eddsa}")), 401, Some("WPT")),
        ("EdDSA of the WIT", wpt.clone().replacing("workload-identity-token", &eddsa_wit), 400, None),
        ("a key not of cnf", stolen, 401, Some("WPT")),
        ("another audience", other_service, 401, Some("WPT")),
        ("an unknown oth", unknown_oth, 401, Some("WPT")),
        ("two Authorization", wpt.clone().with("authorization", proof), 400, None),
        (
            "joined Authorization",
            wpt.clone().replacing("authorization", &format!("{proof}, {proof}")),
            401,
            Some("WPT"),
        ),
        ("two WITs", wpt.clone().with("workload-identity-token", &wit.token), 400, None),
        ("joined WITs", wpt.clone().replacing("workload-identity-token", &joined), 400, None),
        (
            "two signatures with the tag",
            signed.clone().with("signature-input", &second).with("signature", &second_signature),
            400,
            None,
        ),
        ("a WPT beside a signature", signed.clone().with("authorization", proof), 400, None),
        ("a bearer beside a signature", signed.clone().bearer(&world.token()), 400, None),
        ("a foreign trust domain", Sent::get().wpt(&Domain::new("b.test").wit("/caller")), 400, None),
        ("draft 01", Sent::get().with("workload-proof-token", "a.b.c"), 401, Some("WPT, Bearer")),
    ] {
        let answered = world.orders.send(&sent).await;
        assert_eq!((answered.status, answered.challenge.as_deref()), (status, challenge), "{case}");
        if status == 400 {
            assert!(is_problem(&answered, "about:blank") || is_problem(&answered, "wimse-signature-invalid"), "{case}");
        } else {
            assert_eq!(answered.body, "", "{case}");
        }
    }
    assert_eq!(world.orders.served(), 0);
}

// R9, R63, R86.
#[tokio::test]
async fn a_wpt_that_was_seen_is_useless_elsewhere() {
    let world = World::new().await;
    let sent = Sent::get().wpt(&world.wit);
    assert_eq!(world.orders.send(&sent).await.status, 200);

    let other_wit = world.domain.wit("/caller").token;
    for (place, replayed) in [
        ("the same place", sent.clone()),
        ("another path", Sent { path: "/orders/8", ..sent.clone() }),
        ("another method", Sent { method: "DELETE", ..sent.clone() }),
        ("with a transaction token", sent.clone().with("txn-token", "t.x.n")),
    ] {
        let answered = world.orders.send(&replayed).await;
        assert_eq!((answered.status, answered.challenge.as_deref()), (401, Some("WPT")), "{place}");
    }
    let swapped = Sent::get().wpt(&world.wit).replacing("workload-identity-token", &other_wit);
    assert_eq!(world.orders.send(&swapped).await.status, 401);
    // A service at another target never saw it.
    let other = accepting_all_at("https://payments.example", &world.domain);
    let payments = Orders::start(AuthenticationLayer::new(other)).await;
    assert_eq!(payments.send(&Sent::get().wpt(&world.wit)).await.status, 401);
    assert_eq!((world.orders.served(), payments.served()), (1, 0));
}

fn accepting_all_at(origin: &str, domain: &Domain) -> Authenticator {
    Authenticator::builder((*trusting(&[domain])).clone())
        .wpt()
        .http_signature()
        .audience(Audience::targets_of(origin).unwrap())
        .callers(Authorizer::anybody())
        .build()
        .unwrap()
}

// R9, R86.
#[tokio::test]
async fn a_signed_request_that_was_seen_can_neither_be_altered_nor_used_again() {
    let world = World::new().await;
    let signed = || Sent { query: Some("a=b"), ..Sent::post(b"seven") }.signed(&world.wit, false);
    for (altered, sent) in [
        ("method", Sent { method: "PUT", ..signed() }),
        ("path", Sent { path: "/orders/8", ..signed() }),
        ("query", Sent { query: Some("a=c"), ..signed() }),
        ("query removed", Sent { query: None, ..signed() }),
        ("body", Sent { body: b"eight", ..signed() }),
        ("body removed", Sent { body: b"", ..signed() }),
        ("body and its hash", {
            let digest = content_digest(b"eight");
            Sent { body: b"eight", ..signed() }.replacing("content-digest", &digest)
        }),
        ("WIT", signed().replacing("workload-identity-token", &world.domain.wit("/caller").token)),
        ("authorization added", signed().with("authorization", "Basic c2VjcmV0")),
        ("transaction token added", signed().with("txn-token", "t.x.n")),
    ] {
        let answered = world.orders.send(&sent).await;
        assert!([400, 401].contains(&answered.status), "{altered}: {answered:?}");
    }
    let sent = signed();
    assert_eq!(world.orders.send(&sent).await.status, 200);
    let replayed = world.orders.send(&sent).await;
    assert_eq!(replayed.status, 400);
    assert!(is_problem(&replayed, "wimse-signature-invalid"));
    assert_eq!(world.orders.served(), 1);
}

/// Documented plainly: callers that need more sign the request.
#[tokio::test]
async fn what_a_wpt_does_not_bind_may_differ_at_its_first_use() {
    let world = World::new().await;
    for changed in [
        Sent { method: "DELETE", ..Sent::get().wpt(&world.wit) },
        Sent { query: Some("a=b"), ..Sent::get().wpt(&world.wit) },
        Sent { body: b"eight", ..Sent::post(b"seven").wpt(&world.wit) },
    ] {
        assert_eq!(world.orders.send(&changed).await.status, 200, "{changed:?}");
    }
}

#[tokio::test]
async fn a_jwt_svid_is_a_bearer_token_until_it_expires() {
    let world = World::new().await;
    let sent = Sent::get().bearer(&world.token());
    for replayed in [sent.clone(), sent.clone(), Sent { method: "DELETE", path: "/orders/8", ..sent }] {
        assert_eq!(world.orders.send(&replayed).await.status, 200);
    }
}

/// RFC 9421, section 2.2.7.
#[tokio::test]
async fn a_signature_does_not_tell_an_absent_query_from_an_empty_one() {
    let world = World::new().await;
    let signed = |query| Sent { query, ..Sent::get() }.signed(&world.wit, false);
    for (as_signed, as_sent, status) in [
        (None, Some(""), 200),
        (Some(""), None, 200),
        (None, None, 200),
        (Some(""), Some(""), 200),
        (None, Some("a"), 400),
        (Some("a"), Some(""), 400),
    ] {
        let sent = Sent { query: as_sent, ..signed(as_signed) };
        assert_eq!(world.orders.send(&sent).await.status, status, "{as_signed:?} sent as {as_sent:?}");
    }
}
