//! Whatever a stranger sends is read or refused; nothing panics, and nothing that was changed is
//! accepted.

use std::sync::LazyLock;
use std::time::Duration;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::csr::Csr;
use countersign_core::jwt::{JwtAuthority, JwtRequest, verify_jwt_svid};
use countersign_core::key::{KeyType, PrivateKey, SubjectPublicKeyInfo};
use countersign_core::service_account::{ClusterJwks, Expected, verify_token};
use countersign_core::x509::{CaCertificate, LeafRequest, verify_x509_svid};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, proptest};
use proptest::sample::Index;
use serde_json::json;

use crate::fixtures::{HOUR, authority, bundle, id, now, part, trust_domain, trusting};

struct Genuine {
    bundles: BundleSet,
    jwks: ClusterJwks,
    key: PrivateKey,
    root: Vec<u8>,
    leaf: Vec<u8>,
    csr: Vec<u8>,
    token: String,
    document: Vec<u8>,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let (x509, jwt) = (authority("example.org"), JwtAuthority::generate(KeyType::EcP256).unwrap());
    let bundle = bundle("example.org", &[x509.certificate()], &[&jwt]);
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let cart = id("spiffe://example.org/cart");
    let request = LeafRequest { spki: key.public_key(), id: &cart, dns_names: &[], ttl: HOUR };
    let leaf = x509.issue(&request, now()).unwrap().chain.remove(0);
    let audiences = ["orders".to_owned()];
    let request = JwtRequest { id: &cart, audiences: &audiences, ttl: Duration::from_secs(300), issuer: None };
    let token = jwt.issue(&request, now()).unwrap().token.to_string();
    let mut jwk = jwt.verification_key().jwk();
    jwk.insert("use".to_owned(), json!("sig"));
    Genuine {
        jwks: ClusterJwks::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap(),
        csr: Csr::create(&key).unwrap(),
        root: x509.certificate().der().to_vec(),
        document: bundle.to_json(),
        bundles: trusting([bundle]),
        key,
        leaf,
        token,
    }
});

/// Where and how to change bytes: each change sets one byte, cuts, or inserts.
fn changes() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    vec((any::<Index>(), 0..4_u8, any::<u8>()), 1..4)
}

fn changed(bytes: &[u8], changes: &[(Index, u8, u8)]) -> Vec<u8> {
    changes.iter().fold(bytes.to_vec(), |mut bytes, (at, how, value)| {
        let at = at.index(bytes.len().max(1));
        match how {
            0 if at < bytes.len() => bytes.truncate(at),
            1 => bytes.insert(at, *value),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            _ if at < bytes.len() => bytes[at] = *value,
            _ => {}
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..600)) {
        let _ = Csr::verify(&bytes);
        let _ = SubjectPublicKeyInfo::from_der(&bytes);
        let _ = PrivateKey::from_pkcs8_der(&bytes);
        let _ = CaCertificate::from_der(&bytes);
        let _ = verify_x509_svid(&[&bytes, &bytes], &GENUINE.bundles, now());
        let _ = Bundle::parse(&trust_domain("example.org"), &bytes);
        let _ = ClusterJwks::parse(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused_as_a_token([text, header, claims] in any::<[String; 3]>()) {
        let expected = Expected { issuer: "issuer", audience: "orders", max_life: Duration::from_secs(7200) };
        let parts = format!("{}.{}.{}", part(&json!(header)), part(&json!(claims)), part(&json!(text)));
        for token in [text.as_str(), parts.as_str()] {
            prop_assert!(verify_jwt_svid(token, "orders", &GENUINE.bundles, now()).is_err());
            prop_assert!(verify_token(token, &GENUINE.jwks, expected, now()).is_err());
        }
    }

    #[test]
    fn a_changed_leaf_is_never_accepted(changes in changes()) {
        let leaf = changed(&GENUINE.leaf, &changes);
        let accepted = verify_x509_svid(&[&leaf], &GENUINE.bundles, now()).is_ok();
        prop_assert!(!accepted || leaf == GENUINE.leaf);
    }

    #[test]
    fn a_changed_request_never_yields_another_key(changes in changes()) {
        if let Ok(csr) = Csr::verify(&changed(&GENUINE.csr, &changes)) {
            prop_assert!(csr.public_key_spki() == GENUINE.key.public_key());
        }
    }

    #[test]
    fn a_changed_token_is_never_accepted(changes in changes()) {
        let bytes = changed(GENUINE.token.as_bytes(), &changes);
        if let Ok(token) = std::str::from_utf8(&bytes) {
            let accepted = verify_jwt_svid(token, "orders", &GENUINE.bundles, now()).is_ok();
            prop_assert!(!accepted || token == GENUINE.token);
        }
    }

    #[test]
    fn changed_authorities_bundles_and_keys_are_read_or_refused(changes in changes()) {
        let _ = CaCertificate::from_der(&changed(&GENUINE.root, &changes));
        let _ = SubjectPublicKeyInfo::from_der(&changed(GENUINE.key.public_key_spki_der(), &changes));
        let _ = PrivateKey::from_pkcs8_der(&changed(GENUINE.key.pkcs8_der(), &changes));
        let document = changed(&GENUINE.document, &changes);
        let _ = Bundle::parse(&trust_domain("example.org"), &document);
        let _ = ClusterJwks::parse(&document);
    }
}
