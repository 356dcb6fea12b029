//! Seeds of the corpus: one accepted input for each variant of a target. `cargo test --package countersign-fuzz --test
//! corpus -- --ignored` writes them; findings of the fuzzer are stored beside them.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign_core::bundle::Bundle;
use countersign_core::csr::Csr;
use countersign_core::federation::{FetchError, Remote, Stored, StoredRemote, decide};
use countersign_core::id::TrustDomain;
use countersign_core::journal::{AuthorityMaker, AuthorityRequest, Expected, Format, Journal, Making};
use countersign_core::jwt::{JwtAuthority, JwtRequest};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{LeafRequest, X509Authority};
use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::der;
use crate::known::{AUDIENCE, DOMAIN, KNOWN, ROOT, WIT, WORKLOAD_KEY, key, now, token, trust_domain};
use crate::targets;
use crate::targets::journal::{CLUSTER, POLICY};

/// The header of a genuine token.
pub(crate) const HEADER: &str = r#"{"alg":"ES256","kid":"known","typ":"JWT"}"#;
/// The header of a genuine WIT.
pub(crate) const WIT_HEADER: &str = r#"{"alg":"ES256","kid":"known-wit","typ":"wit+jwt"}"#;
/// The claims of a genuine service account token.
pub(crate) const POD_CLAIMS: &str = concat!(
    r#"{"iss":"https://kubernetes.default.svc","aud":["orders"],"exp":1790003600,"iat":1790000000,"nbf":1790000000,"jti":"j","#,
    r#""sub":"system:serviceaccount:shop:cart","kubernetes.io":{"namespace":"shop","node":{"name":"n","uid":"u1"},"#,
    r#""pod":{"name":"cart-1","uid":"u2"},"serviceaccount":{"name":"cart","uid":"u3"}}}"#,
);
/// The signed part of a leaf under the key of [`INTERMEDIATE_KEY`].
pub(crate) const INTERMEDIATE_LEAF: &[u8] = include_bytes!("../fixtures/leaf-of-intermediate.tbs");
/// The first byte of the scalar of the intermediate's key.
pub(crate) const INTERMEDIATE_KEY: u8 = 101;

/// A review whose container has two names.
const ONE_FIELD_TWICE: &[u8] = concat!(
    "\0",
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","namespace":"shop","#,
    r#""kind":{"group":"","version":"v1","kind":"Pod"},"operation":"CREATE","#,
    r#""object":{"metadata":{},"spec":{"containers":[{"name":"a","name":"countersign-agent"}]}}}}"#,
)
.as_bytes();

/// A target's name, the seed's name, and the seed.
pub type Seed = (&'static str, String, Vec<u8>);

/// Every seed.
pub fn seeds() -> Vec<Seed> {
    [
        refused(),
        identifiers(),
        requests(),
        tokens(),
        proofs(),
        sets(),
        certificates(),
        journals(),
        pods(),
        resources(),
        calls(),
        watched_pods(),
        remotes(),
        endpoint_requests(),
    ]
    .concat()
}

/// Fixtures that are created once, because each certificate gets a new serial number: name and content.
pub fn fixtures() -> Vec<(&'static str, Vec<u8>)> {
    let root = X509Authority::self_signed(&trust_domain(), key(1), Duration::from_secs(10 * 86_400), now()).unwrap();
    let intermediate = authority(&trust_domain(), INTERMEDIATE_KEY);
    let leaf = leaf(&intermediate);
    let wit = token(WIT_HEADER.as_bytes(), wit_claims().to_string().as_bytes());
    vec![
        ("workload.wit", wit.into_bytes()),
        ("root.der", root.certificate().der().to_vec()),
        ("leaf-of-intermediate.tbs", der::body(&leaf).to_vec()),
    ]
}

/// Inputs that exactly one rule refuses: if the rule is removed, the corpus test fails.
fn refused() -> Vec<Seed> {
    let open = |claims: String| [b"\x01", HEADER.as_bytes(), b"\n", claims.as_bytes()].concat();
    let two_audiences = open(POD_CLAIMS.replace(r#"["orders"]"#, r#"["orders","others"]"#));
    let other_account = open(POD_CLAIMS.replace("shop:cart", "shop:other"));
    let late = open(POD_CLAIMS.replace("1790003600", "1790000000"));

    let mut document: Value = serde_json::from_slice(&KNOWN.bundle.to_json()).unwrap();
    let key = document["keys"][1].clone();
    document["keys"].as_array_mut().unwrap().push(key);

    let root = X509Authority::from_parts(KNOWN.bundle.x509_authorities[0].clone(), &[], KNOWN.key.clone()).unwrap();
    let leaf = leaf(&root);
    let signing_leaf = [&[1][..], &with_key_usage(der::body(&leaf), 0x84)].concat();
    let not_signing = with_key_usage(ROOT, 0x80);

    let frames = |block: &[u8]| {
        let length = u8::try_from(block.len()).unwrap();
        [&[0x80 + 40, 0, 0, length, 1, 4, 0, 0, 0, 1][..], block].concat()
    };
    let stored = known_remote(0).to_bytes();
    let remote = |kind: u8, sequence: u64| [&[kind], &stored[..], b"\n", &remote_document(sequence, 300)].concat();
    let lifecycle = json!({ "metadata": {}, "spec": { "containers": [{
        "name": "a", "lifecycle": { "preStop": { "exec": { "command": ["x"] } } }, "livenessProbe": { "httpGet": { "port": 1 } },
        "resources": { "limits": { "cpu": "1" } }, "env": [{ "name": "SPIFFE_ENDPOINT_SOCKET", "value": "mine" }],
    }] } });
    let named = |target, name: &str, input| (target, name.to_owned(), input);
    vec![
        named("service-account-token", "two-audiences", two_audiences),
        named("service-account-token", "another-account", other_account),
        named("service-account-token", "expired", late),
        named("bundle", "one-kid-twice", document.to_string().into_bytes()),
        named("x509-svid", "leaf-that-may-sign", signing_leaf),
        named("ca-certificate", "may-not-sign", not_signing),
        // Eleven bits of padding after 0; and a table of 8 KiB.
        named("uds-authority-rewrite", "padding-too-long", frames(&[0x00, 0x01, b'a', 0x82, 0x07, 0xff])),
        named("uds-authority-rewrite", "table-too-large", frames(&[0x3f, 0xe1, 0x3f, 0x82])),
        // An endpoint, and a TrustDomain that was reverted, fall behind what was accepted.
        named("remote", "older-document", remote(0, 6)),
        named("remote", "reverted-trust-domain", remote(targets::remote::BOOTSTRAP, 6)),
        named("admission-mutate", "one-field-twice", ONE_FIELD_TWICE.to_vec()),
        named("admission-mutate", "busy-container", [&[0x80][..], lifecycle.to_string().as_bytes()].concat()),
    ]
}

/// Sets the second byte of the bits of the critical extension `keyUsage`.
fn with_key_usage(certificate: &[u8], bits: u8) -> Vec<u8> {
    const KEY_USAGE: [u8; 10] = [0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02];
    let at = certificate.windows(KEY_USAGE.len()).position(|window| window == KEY_USAGE).unwrap();
    let mut changed = certificate.to_vec();
    changed[at + KEY_USAGE.len()] = bits.trailing_zeros() as u8;
    changed[at + KEY_USAGE.len() + 1] = bits;
    changed
}

fn identifiers() -> Vec<Seed> {
    let ids =
        ["spiffe://example.org", "spiffe://example.org/ns/shop/sa/cart", "spiffe://a_b-c.1/..a/%41/.", "/ns/A", "a.b"];
    let patterns = [
        "/ns/{namespace}/sa/{serviceAccount}",
        "/ns/{namespace}/**\n/ns/{namespace}/pod/{podName}",
        "/c/{cluster}/*\n/c/{cluster}/a",
        "*.{namespace}.svc\n{serviceAccount}.{namespace}.svc",
        "https://api.example.org/*\nhttps://api.example.org/a",
    ];
    let of =
        |target, texts: &[&str]| -> Vec<Seed> { numbered(target, texts.iter().map(|text| text.as_bytes().to_vec())) };
    [of("ids", &ids), of("patterns", &patterns)].concat()
}

fn requests() -> Vec<Seed> {
    let own = Csr::create(&KNOWN.key).unwrap();
    let signed = [&[1][..], der::body(&own)].concat();
    let keys = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048].map(|kind| PrivateKey::generate(kind).unwrap());
    let csrs = keys.iter().map(|key| [&[0][..], &Csr::create(key).unwrap()].concat()).chain([signed]);
    let public = keys.iter().map(|key| key.public_key_spki_der().to_vec());
    let private = KNOWN.key.pkcs8_der().to_vec();
    [numbered("csr", csrs), numbered("keys", public.chain([private]))].concat()
}

fn tokens() -> Vec<Seed> {
    let svid_claims =
        r#"{"sub":"spiffe://example.org/cart","aud":"orders","exp":1790000300.5,"iat":1790000000,"jti":"j"}"#;
    let request = JwtRequest {
        id: &"spiffe://example.org/ns/shop/sa/cart".parse().unwrap(),
        audiences: &[AUDIENCE.to_owned(), "others".to_owned()],
        ttl: Duration::from_secs(300),
        issuer: Some("https://issuer.example.org"),
    };
    let issued = KNOWN.jwt.issue(&request, now()).unwrap();
    let open = |claims: &str| [b"\x01", HEADER.as_bytes(), b"\n", claims.as_bytes()].concat();
    let closed = |token: &str| [b"\x00", token.as_bytes()].concat();
    let account = token(HEADER.as_bytes(), POD_CLAIMS.as_bytes());
    let accounts = [open(POD_CLAIMS), closed(&account)];
    let svids = [open(svid_claims), closed(&issued.token)];
    [numbered("service-account-token", accounts), numbered("jwt-svid", svids)].concat()
}

/// The claims of the known workload's WIT.
fn wit_claims() -> Value {
    let mut jwk = JwtAuthority::new("x", key(WORKLOAD_KEY)).unwrap().verification_key().jwk();
    jwk.retain(|name, _| !matches!(name.as_str(), "kid" | "use"));
    jwk.insert("alg".to_owned(), "ES256".into());
    let (iat, exp) = (now().as_second(), now().as_second() + 3600);
    json!({ "sub": "spiffe://example.org/cart", "iat": iat, "nbf": iat - 10, "exp": exp, "jti": "j", "cnf": { "jwk": jwk } })
}

fn proofs() -> Vec<Seed> {
    let hash = |text: &str| URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()));
    let wits = [
        [b"\x01", WIT_HEADER.as_bytes(), b"\n", wit_claims().to_string().as_bytes()].concat(),
        [b"\x00", WIT.as_bytes()].concat(),
    ];
    let claims = |exp: i64, oth: Value| {
        let (exp, aud) = (now().as_second() + exp, "https://orders.example.org/");
        let claims = json!({ "aud": aud, "exp": exp, "jti": "0123456789abcdef012345", "wth": hash(WIT), "tth": hash("t.t.t"), "oth": oth });
        let header = r#"{"alg":"ES256","typ":"wpt+jwt"}"#;
        format!("\x01{header}\n{claims}\nWorkload-Identity-Token: WIT\nTxn-Token: t.t.t\nX-Context: c")
    };
    let bound = json!({ "x-context": hash("c") });
    let proof = claims(30, bound.clone());
    let expired = claims(0, bound);
    let unknown = claims(30, json!({ "x-context": hash("c"), "host": hash("a") }));

    let params = r#";created=1790000000;expires=1790000030;nonce="fedcba9876543210";tag="wimse-workload-to-workload""#;
    let request = |line: &str, cover: &str, rest: &str| {
        format!(
            "\x01{line}\nSignature-Input: a=({cover}){params};wimse-aud=\"orders\"\nWorkload-Identity-Token: WIT{rest}"
        )
    };
    let get = r#""@method" "@path" "@query" "workload-identity-token""#;
    let body = "\nContent-Digest: sha-256=:uLRdWBd1rOzAR8RUeyDQg1Xv+uwAMxhLh9UhOU+bRk4=:\n\nbody";
    let body = body.replace("uLRdWBd1rOzAR8RUeyDQg1Xv+uwAMxhLh9UhOU+bRk4=", &STANDARD.encode(digest(&SHA256, b"body")));
    let signed = [
        request("GET /a?b=1", get, ""),
        request("POST /a", &format!("{get} \"content-digest\" \"txn-token\""), &format!("\nTxn-Token: t.t.t{body}")),
        request("CONNECT / db.example.org:5432", r#""@method" "@authority" "workload-identity-token""#, ""),
        format!(
            "\x01200 GET /a\nSignature-Input: a=(\"@status\" \"@method\";req \"@path\";req \"@query\";req \"workload-identity-token\")\
             {params};wimse-req-nonce=\"0123456789abcdef\"\nWorkload-Identity-Token: WIT"
        ),
    ];
    let uncovered = request("GET /a", r#""@method" "@path" "workload-identity-token""#, "");
    let undigested = request("GET /a", get, "\n\nbody");
    let two_tags = request("GET /a", get, &format!("\nSignature-Input: b=(){params}"));
    let bytes = |texts: &[String]| -> Vec<Vec<u8>> { texts.iter().map(|text| text.clone().into_bytes()).collect() };
    let refused = [
        ("wpt", "expired", expired),
        ("wpt", "unknown-context", unknown),
        ("http-signature", "query-not-covered", uncovered),
        ("http-signature", "body-without-digest", undigested),
        ("http-signature", "two-tags", two_tags),
    ];
    let refused = refused.map(|(target, name, input)| (target, name.to_owned(), input.into_bytes()));
    [
        numbered("wit-svid", wits),
        numbered("wpt", bytes(&[proof])),
        numbered("http-signature", bytes(&signed)),
        refused.to_vec(),
    ]
    .concat()
}

fn sets() -> Vec<Seed> {
    let mut document: Value = serde_json::from_slice(&KNOWN.bundle.to_json()).unwrap();
    let whole = document.to_string().into_bytes();
    let rsa = json!({ "kty": "RSA", "use": "jwt-svid", "kid": "r", "alg": "RS256", "e": "AQAB", "n": "_".repeat(342) });
    let p384 =
        json!({ "kty": "EC", "crv": "P-384", "use": "jwt-svid", "kid": "p", "x": "A".repeat(64), "y": "A".repeat(64) });
    document["keys"].as_array_mut().unwrap().extend([rsa, p384, json!({ "kty": "OKP", "use": "x509-svid" })]);
    let jwks = KNOWN.jwks_json.clone();
    let with_alg =
        String::from_utf8(jwks.clone()).unwrap().replace("\"kty\"", "\"alg\":\"ES256\",\"kty\"").into_bytes();
    [numbered("bundle", [whole, document.to_string().into_bytes()]), numbered("jwks", [jwks, with_alg])].concat()
}

fn certificates() -> Vec<Seed> {
    let root = X509Authority::from_parts(KNOWN.bundle.x509_authorities[0].clone(), &[], KNOWN.key.clone()).unwrap();
    let leaf = leaf(&root);
    let chain = |ders: &[&[u8]]| -> Vec<u8> {
        let parts = ders.iter().flat_map(|der| [&der.len().to_be_bytes()[6..], der].concat());
        [0].into_iter().chain(parts).collect()
    };
    let intermediate = authority(&trust_domain(), INTERMEDIATE_KEY);
    let control_plane = X509Authority::self_signed_control_plane(key(1), Duration::from_secs(86_400), now()).unwrap();
    let authorities = [ROOT.to_vec(), control_plane.certificate().der().to_vec()];
    // With its issuer replaced by the known authority and signed by the known key, the body of a self-signed authority's
    // certificate becomes that of an intermediate.
    let issuer_of = |der: &[u8]| x509_parser::parse_x509_certificate(der).unwrap().1.issuer().as_raw().to_vec();
    let body = der::body(intermediate.certificate().der());
    let body = replaced(body, &issuer_of(intermediate.certificate().der()), &issuer_of(ROOT));
    let chains =
        [chain(&[&leaf]), chain(&[&leaf, ROOT]), [&[1], der::body(&leaf)].concat(), [&[2][..], &body].concat()];
    [numbered("ca-certificate", authorities), numbered("x509-svid", chains)].concat()
}

fn journals() -> Vec<Seed> {
    let stored = |trust_domain: Option<&TrustDomain>, format| {
        let maker = KnownKeys(AtomicU8::new(10));
        let made = Journal::create(CLUSTER, trust_domain, &POLICY, &maker, now());
        let journal = made.now_or_never().unwrap().unwrap().written_in(format);
        let stored = journal.to_bytes().unwrap().to_vec();
        let expected = Expected { cluster: CLUSTER, trust_domain, published_sequence: None, now: now() };
        Journal::from_bytes(&stored, &expected).unwrap();
        stored
    };
    let payload = |stored: &[u8]| {
        let envelope: Value = serde_json::from_slice(stored).unwrap();
        STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap()
    };
    let (domain, control_plane) = (stored(Some(&trust_domain()), Format::V1), stored(None, Format::V1));
    let second = payload(&stored(Some(&trust_domain()), Format::V2));
    let mut extended: Value = serde_json::from_slice(&second).unwrap();
    extended["authorities"]["unknown"] = json!([{ "id": "slot-99", "removeAt": "2027-01-01T00:00:00Z", "more": {} }]);
    let jwt = &mut extended["authorities"]["jwt"][0];
    jwt["key"] = json!({ "store": "elsewhere", "reference": "7" });
    jwt["publicKey"] = STANDARD.encode(key(14).public_key_spki_der()).into();
    let inputs = [
        [&[1][..], &payload(&domain)].concat(),
        [&[3][..], &payload(&control_plane)].concat(),
        [&[0][..], &domain].concat(),
        [&[5][..], &second].concat(),
        [&[5][..], extended.to_string().as_bytes()].concat(),
    ];
    numbered("journal", inputs)
}

/// The kind, then method, host, path and `If-None-Match`, a line each.
fn endpoint_requests() -> Vec<Seed> {
    let inputs = [
        "\0GET\nbundles.example.org:8443\n/\n",
        "\x01HEAD\nexample.org\n/b.example\n*",
        "\x02GET\nnobody.example\n/\n\"x\", W/\"y\"",
        "\x01GET\nissuer.example.org\n/x/keys\n",
        "\x03GET\nissuer.example.org.:443\n/x/.well-known/openid-configuration\n\"x\"",
        "\x01GET\nshared.example\n/keys\n",
        "\x01POST\n[2001:db8::1]:443\n/a/\n",
    ];
    numbered("endpoint-request", inputs.map(|input| input.as_bytes().to_vec()))
}

fn pods() -> Vec<Seed> {
    let container = json!({
        "name": "app", "image": "app:1", "env": [{ "name": "A", "value": "b" }],
        "volumeMounts": [{ "name": "data", "mountPath": "/data", "readOnly": true }],
        "securityContext": { "runAsUser": 7, "runAsNonRoot": true },
    });
    let pod = |labels: Value, annotations: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "p", "namespace": "shop", "labels": labels, "annotations": annotations },
            "spec": {
                "containers": [container, { "name": "side", "image": "i" }],
                "initContainers": [{ "name": "setup", "image": "i", "restartPolicy": "Always" }],
                "volumes": [{ "name": "data", "emptyDir": {} }],
                "securityContext": { "fsGroup": 3 }, "serviceAccountName": "cart", "nodeSelector": { "a": "b" },
            },
        })
    };
    let chosen = json!({ "countersign.dev/per-container": "true", "countersign.dev/containers": "app,setup", "countersign.dev/hold": "false" });
    let input = |kind: u8, body: &Value| [&[kind][..], body.to_string().as_bytes()].concat();
    let review = |pod: &Value| {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE", "object": pod,
        } })
    };
    let bare = json!({ "metadata": {}, "spec": { "containers": [{ "name": "a" }] } });
    let inputs = [
        input(0x80, &bare),
        input(0x80, &pod(json!({}), json!({}))),
        input(0x81, &pod(json!({ "countersign.dev/inject": "sidecar" }), chosen)),
        input(0, &review(&pod(json!({ "countersign.dev/inject": "auto" }), json!({})))),
        input(2, &review(&pod(json!({ "countersign.dev/inject": "node" }), json!({})))),
    ];
    numbered("admission-mutate", inputs)
}

fn resources() -> Vec<Seed> {
    let identity = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": { "name": "cart", "namespace": "shop" },
        "spec": {
            "trustDomain": "example.org", "path": "/ns/{namespace}/sa/{serviceAccount}", "hint": "main",
            "selector": {
                "serviceAccounts": ["cart"], "matchLabels": { "app": "cart" }, "containers": ["app"],
                "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["a"] }],
            },
            "x509": { "ttl": "1h30m", "dnsNames": ["{serviceAccount}.{namespace}.svc"] },
            "jwt": { "audiences": ["orders", "https://a/*"], "ttl": "5m" }, "federatesWith": ["b.org"],
        },
    });
    let domain = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "example.org" },
        "spec": {
            "trustDomain": "example.org",
            "authority": { "x509": { "caTTL": "240h", "svidTTL": "1h" }, "jwt": { "maxSVIDTTL": "10m" } },
            "grants": [{
                "namespaces": { "matchNames": ["shop"] }, "paths": ["/ns/{namespace}/**", "/all/*"], "shared": true,
                "dnsNames": ["*.{namespace}.svc"], "audiences": ["https://a/*"], "federatesWith": ["b.org"],
            }],
        },
    });
    let input = |kind: u8, object: &Value| [&[kind][..], object.to_string().as_bytes()].concat();
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "UPDATE", "object": identity,
        "kind": { "group": "countersign.dev", "version": "v1alpha1", "kind": "WorkloadIdentity" },
    } });
    numbered("admission-validate", [input(1, &domain), input(2, &identity), input(0, &review)])
}

fn calls() -> Vec<Seed> {
    use countersign_proto::issuer::v1::{
        Hello, JwtResponse, Refusal, SessionRequest, SessionResponse, X509Request, session_request, session_response,
    };
    use countersign_proto::workload::{Jwtsvid, JwtsvidResponse, X509svid, X509svidResponse};
    use prost::Message as _;
    let text = str::to_owned;
    let x509 =
        X509Request { id: 3, csr: vec![0x30, 0], spiffe_id: text("spiffe://example.org/a"), token: text("t.t.t") };
    let hello = Hello {
        version: text("0.1.0"),
        capabilities: vec![text("a")],
        token: text("h.h.h"),
        session: text("app"),
        x509: Some(x509),
    };
    let refusal = Refusal { code: 7, message: text("no"), retry_after_ms: 5 };
    let jwt =
        JwtResponse { id: 4, spiffe_id: text("spiffe://example.org/a"), token: text("j.j.j"), refusal: Some(refusal) };
    let svid = X509svid { x509_svid_key: vec![1, 2], spiffe_id: text("spiffe://example.org/a"), ..X509svid::default() };
    let token = Jwtsvid { svid: text("j.j.j"), ..Jwtsvid::default() };
    let messages = [
        (0, SessionRequest { kind: Some(session_request::Kind::Hello(hello)) }.encode_to_vec()),
        (1, SessionResponse { kind: Some(session_response::Kind::Jwt(jwt)) }.encode_to_vec()),
        (2, X509svidResponse { svids: vec![svid], ..X509svidResponse::default() }.encode_to_vec()),
        (3, JwtsvidResponse { svids: vec![token] }.encode_to_vec()),
    ];
    let python = include_bytes!("../../agent/tests/data/grpc-python-1.85.bin");
    let frames = [&[0x80 + 40][..], &python[24..]].concat();
    let messages = messages.map(|(kind, message)| [&[kind][..], &message].concat());
    [numbered("messages", messages), numbered("uds-authority-rewrite", [frames])].concat()
}

/// The answers of the API server in the operator's tests: a pod with unread fields, in a stream and in a list, a bookmark,
/// and a refusal.
fn watched_pods() -> Vec<Seed> {
    let varint = |number: usize| {
        let mut bytes = Vec::new();
        prost::encode_length_delimiter(number, &mut bytes).unwrap();
        bytes
    };
    let bytes = |tag: usize, content: &[u8]| [varint(tag << 3 | 2), varint(content.len()), content.to_vec()].concat();
    let text = |tag, content: &str| bytes(tag, content.as_bytes());
    let entry = |tag, key, value| bytes(tag, &[text(1, key), text(2, value)].concat());
    let container = |tag, name, image| bytes(tag, &[text(1, name), text(2, image)].concat());

    let pod = |uid: &str, phase| {
        let metadata = [
            text(1, "pod"),
            text(3, "shop"),
            text(5, uid),
            text(6, "7"),
            entry(11, "app", "orders"),
            entry(11, "empty", ""),
            entry(12, "countersign.dev/injected", "sidecar"),
            entry(12, "secret-ish", "not kept"),
            entry(17, "manager", "kubelet"),
        ];
        let spec = [container(2, "app", "app:1"), text(8, "orders"), container(20, "agent", "agent:1")];
        let parts =
            [(1, metadata.concat()), (2, spec.concat()), (3, text(1, phase)), (77, b"of a later version".to_vec())];
        parts.map(|(tag, part)| bytes(tag, &part)).concat()
    };
    let bookmark = bytes(1, &[text(6, "8"), entry(12, "k8s.io/initial-events-end", "true")].concat());
    let list =
        [bytes(1, &[text(2, "5"), text(3, "more")].concat()), bytes(2, &pod("a", "Running")), bytes(2, &pod("b", ""))];
    // Its code, 410, is a number rather than bytes.
    let gone = [text(2, "Failure"), text(3, "too old resource version"), text(4, "Expired"), vec![6 << 3, 0x9a, 3]];

    let enveloped = |kind, object: &[u8]| {
        [b"k8s\0".to_vec(), bytes(1, &[text(1, "v1"), text(2, kind)].concat()), bytes(2, object)].concat()
    };
    let framed = |event, kind, object: &[u8]| {
        let event = [text(1, event), bytes(2, &bytes(1, &enveloped(kind, object)))].concat();
        [&u32::try_from(event.len()).unwrap().to_be_bytes()[..], &event].concat()
    };
    let stream = [
        framed("ADDED", "Pod", &pod("a", "Running")),
        framed("BOOKMARK", "Pod", &bookmark),
        framed("DELETED", "Pod", &pod("a", "Succeeded")),
    ];
    let inputs = [
        [vec![6], stream.concat()].concat(),
        [vec![0], framed("ERROR", "Status", &gone.concat())].concat(),
        [vec![0x80], enveloped("PodList", &list.concat())].concat(),
        [vec![0x80], enveloped("Pod", &pod("a", "Pending"))].concat(),
        [vec![0x80], enveloped("Status", &gone.concat())].concat(),
    ];
    numbered("watched-pods", inputs)
}

/// What is stored of the known trust domain, if anything, and documents: of a higher sequence, without one, and without keys.
fn remotes() -> Vec<Seed> {
    use targets::remote::{BOOTSTRAP, REPLACE, SPIFFE};
    let input = |kind: u8, stored: &[u8], document: Vec<u8>| [&[kind], stored, b"\n", &document].concat();
    let web = known_remote(0);
    let failing =
        targets::remote::poll(&targets::remote::spec(0, &[]), Some(&web), Err(FetchError::Status(503))).unwrap();
    let (web, spiffe) = (web.to_bytes(), known_remote(SPIFFE).to_bytes());
    let inputs = [
        input(0, b"", remote_document(8, 300)),
        input(SPIFFE, b"", remote_document(8, 300)),
        input(0, &web, remote_document(8, 3_000_000)),
        input(SPIFFE, &spiffe, json!({ "keys": [], "spiffe_refresh_hint": 60 }).to_string().into_bytes()),
        input(BOOTSTRAP, &failing.stored.to_bytes(), remote_document(9, 300)),
        input(SPIFFE | BOOTSTRAP | REPLACE, &spiffe, remote_document(3, 1)),
    ];
    numbered("remote", inputs)
}

/// What is stored of the known trust domain after a poll that brought its known bundle.
fn known_remote(kind: u8) -> StoredRemote {
    let spec = targets::remote::spec(kind, &[]);
    let begun = Remote { spec: &spec, own: &BTreeSet::new(), stored: Stored::Absent };
    let begun = decide(&begun, None, now(), 0.5).stored;
    targets::remote::poll(&spec, Some(&begun), Ok(KNOWN.bundle.to_json())).unwrap().stored
}

/// The known bundle without its JWT key; `hint` in seconds.
fn remote_document(sequence: u64, hint: u64) -> Vec<u8> {
    let refresh_hint = Duration::from_secs(hint);
    Bundle { jwt_authorities: Vec::new(), sequence, refresh_hint, ..KNOWN.bundle.clone() }.to_json()
}

fn numbered(target: &'static str, inputs: impl IntoIterator<Item = Vec<u8>>) -> Vec<Seed> {
    inputs.into_iter().zip(1..).map(|(input, number)| (target, format!("seed-{number}"), input)).collect()
}

fn authority(trust_domain: &TrustDomain, first: u8) -> X509Authority {
    X509Authority::self_signed(trust_domain, key(first), Duration::from_secs(9 * 86_400), now()).unwrap()
}

fn leaf(authority: &X509Authority) -> Vec<u8> {
    let id = format!("spiffe://{DOMAIN}/ns/shop/sa/cart").parse().unwrap();
    let names = ["cart.shop.svc".to_owned()];
    let request = LeafRequest {
        spki: KNOWN_LEAF_KEY.public_key(),
        id: &id,
        dns_names: &names,
        ttl: Duration::from_secs(8 * 86_400),
    };
    authority.issue(&request, now()).unwrap().chain.remove(0)
}

static KNOWN_LEAF_KEY: std::sync::LazyLock<PrivateKey> = std::sync::LazyLock::new(|| key(201));

/// Replaces bytes by others of the same length.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

/// Keys that are not secret, so that the corpus contains no private key.
struct KnownKeys(AtomicU8);

impl AuthorityMaker for KnownKeys {
    fn make(&self, request: AuthorityRequest) -> Making<'_> {
        let id = format!("slot-{}", self.0.fetch_add(2, Ordering::Relaxed) + 1);
        Box::pin(ready(request.with_stored_key(id, key(self.0.load(Ordering::Relaxed)))))
    }
}
