//! Chains of a leaf and at most one intermediate, with every extension as it should be or otherwise.

use std::time::Duration as StdDuration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_core::{
    bundle::{Bundle, BundleSet},
    x509::verify_x509_svid,
};
use jiff::Timestamp;
use rand::{Rng as _, rngs::StdRng};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Purpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage,
    NameConstraints, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::{Case, ids, mutation, oracle::Oracle};

const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

/// An authority, and keys that are made once: making them is slower than all else.
pub(crate) struct Maker {
    root: Ca,
    stranger: Ca,
    intermediate: KeyPair,
    leaf: KeyPair,
}

struct Ca {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A chain, and what is particular about it.
struct Made {
    chain: Vec<Vec<u8>>,
    notes: Vec<String>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Usage::KeyCertSign];
        lives(&mut params, -2, 24);
        Self { der: params.self_signed(&key).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
    }
}

impl Maker {
    pub(crate) fn new() -> Self {
        let key = || KeyPair::generate().unwrap();
        Self { root: Ca::new("root"), stranger: Ca::new("root"), intermediate: key(), leaf: key() }
    }

    pub(crate) fn case(&self, random: &mut StdRng, oracle: &mut Oracle) -> Case {
        let Made { chain, notes } = self.make(random);
        let trust_domain = "example.org".parse().unwrap();
        let bundle = Bundle::from_x509_der(&trust_domain, &self.root.der).unwrap();
        let bundles = BundleSet::new([Bundle { refresh_hint: StdDuration::from_secs(60), ..bundle }]).unwrap();
        let borrowed: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let ours = verify_x509_svid(&borrowed, &bundles, Timestamp::now());
        let encoded: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
        let anchors = [STANDARD.encode(&self.root.der)];
        Case {
            ours: ours.map(|id| id.to_string()).map_err(|error| error.to_string()),
            theirs: oracle.ask(&json!({ "chain": encoded, "anchors": anchors, "trustDomain": "example.org" })),
            theirs_otherwise: None,
            shown: format!("chain: {}; {encoded:?}", notes.join(", ")),
        }
    }

    fn make(&self, random: &mut StdRng) -> Made {
        let mut notes = Vec::new();
        let params = leaf(random, &mut notes);
        let mut chain = match random.random_range(0..10) {
            0 => {
                notes.push("signed by a stranger".to_owned());
                vec![params.signed_by(&self.leaf, &self.stranger.issuer)]
            }
            1..=3 => {
                let intermediate = intermediate(random, &mut notes);
                let der = intermediate.signed_by(&self.intermediate, &self.root.issuer);
                let key = KeyPair::try_from(self.intermediate.serialize_der()).unwrap();
                vec![params.signed_by(&self.leaf, &Issuer::new(intermediate, key)), der]
            }
            _ => vec![params.signed_by(&self.leaf, &self.root.issuer)],
        }
        .into_iter()
        .map(|made| made.unwrap().der().to_vec())
        .collect::<Vec<_>>();
        if mutation::once_in(random, 10) {
            notes.push("bytes changed".to_owned());
            let at = random.random_range(0..chain.len());
            chain[at] = mutation::bytes(random, &chain[at]);
        }
        if mutation::once_in(random, 20) {
            notes.push("the root is in the chain".to_owned());
            chain.push(self.root.der.clone());
        }
        Made { chain, notes }
    }
}

fn leaf(random: &mut StdRng, notes: &mut Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if random.random_bool(0.5) {
        params.distinguished_name.push(DnType::CommonName, "cart");
        notes.push("with a subject".to_owned());
    }
    lives(&mut params, -1, 1);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Usage::DigitalSignature];
    params.subject_alt_names = vec![uri(ID)];
    // One or two things are otherwise, so that it is seen what they cause.
    for _ in 0..random.random_range(0..=2) {
        change(random, &mut params, notes);
    }
    params
}

fn change(random: &mut StdRng, params: &mut CertificateParams, notes: &mut Vec<String>) {
    let note = match random.random_range(0..9) {
        0 => {
            params.is_ca = *mutation::one_of(
                random,
                &[IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained), IsCa::Ca(BasicConstraints::Constrained(0))],
            );
            format!("{:?}", params.is_ca)
        }
        1 => {
            let usages = [
                Usage::DigitalSignature,
                Usage::KeyEncipherment,
                Usage::KeyCertSign,
                Usage::CrlSign,
                Usage::KeyAgreement,
            ];
            params.key_usages = usages.into_iter().filter(|_| random.random_bool(0.4)).collect();
            format!("{:?}", params.key_usages)
        }
        2 => {
            let purposes = [Purpose::ServerAuth, Purpose::ClientAuth, Purpose::Any, Purpose::CodeSigning];
            params.extended_key_usages = purposes.into_iter().filter(|_| random.random_bool(0.5)).collect();
            format!("{:?}", params.extended_key_usages)
        }
        3 => {
            let others = [
                SanType::DnsName("cart.shop.svc".try_into().unwrap()),
                SanType::IpAddress([127, 0, 0, 1].into()),
                SanType::Rfc822Name("a@example.org".try_into().unwrap()),
                uri("https://example.org/"),
                uri("spiffe://example.org/other"),
                uri(ID),
            ];
            params.subject_alt_names.push(mutation::one_of(random, &others).clone());
            format!("{:?}", params.subject_alt_names)
        }
        4 => {
            let text = ids::text(random);
            if let Ok(name) = text.as_str().try_into() {
                params.subject_alt_names = vec![SanType::URI(name)];
            }
            format!("{:?}", params.subject_alt_names)
        }
        5 => {
            params.subject_alt_names = Vec::new();
            "no names".to_owned()
        }
        6 => {
            let (from, to) = *mutation::one_of(random, &[(-3, -1), (1, 3), (1, -1)]);
            lives(params, from, to);
            format!("from {from} h to {to} h")
        }
        7 => {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            let critical = random.random_bool(0.5);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
            format!("an unknown extension, critical: {critical}")
        }
        _ => {
            params.use_authority_key_identifier_extension = true;
            "authority key identifier".to_owned()
        }
    };
    notes.push(note);
}

fn intermediate(random: &mut StdRng, notes: &mut Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Usage::KeyCertSign];
    lives(&mut params, -1, 12);
    let note = match random.random_range(0..12) {
        0 => {
            params.is_ca = IsCa::ExplicitNoCa;
            "is no CA"
        }
        1 => {
            params.key_usages = vec![Usage::CrlSign];
            "may not sign certificates"
        }
        2 => {
            params.key_usages = Vec::new();
            "without key usage"
        }
        3 => {
            lives(&mut params, -3, -1);
            "has ended"
        }
        4 => {
            params.subject_alt_names = vec![uri("spiffe://example.org")];
            "with the id of its trust domain"
        }
        5 => {
            params.subject_alt_names = vec![uri("spiffe://example.org/path")];
            "with an id that has a path"
        }
        6 => {
            params.subject_alt_names = vec![uri("spiffe://other.example")];
            "with the id of another trust domain"
        }
        7 => {
            params.extended_key_usages = vec![Purpose::ServerAuth];
            "for servers"
        }
        8 => {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
                excluded_subtrees: Vec::new(),
            });
            "for DNS names of example.com"
        }
        _ => "",
    };
    notes.push(format!("intermediate {note}"));
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Hours from now.
fn lives(params: &mut CertificateParams, from: i64, to: i64) {
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + Duration::hours(from), now + Duration::hours(to));
}
