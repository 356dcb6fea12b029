//! Chains of certificates, in the manner of x509-limbo, as far as they apply to X509-SVIDs: RFC 5280, section 6, and X509-SVID,
//! section 5. Each refusal stands beside a chain that differs in one thing and is accepted.

use countersign_core::{
    bundle::{Bundle, BundleSet},
    x509::CaCertificate,
};
use countersign_verify::X509SvidError;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SignatureAlgorithm,
};
use time::{Duration, OffsetDateTime};

/// One CA, and what it signs.
struct Ca {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    lives(&mut params, -1, 24);
    params
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org/workload".try_into().unwrap())];
    lives(&mut params, -1, 1);
    params
}

/// Hours from now.
fn lives(params: &mut CertificateParams, from: i64, to: i64) {
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + Duration::hours(from), now + Duration::hours(to));
}

fn root() -> Ca {
    let (key, params) = (KeyPair::generate().unwrap(), ca_params("root"));
    Ca { der: params.self_signed(&key).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
}

impl Ca {
    fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), ca_params("intermediate"));
        change(&mut params);
        Self { der: params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        self.leaf_by(&rcgen::PKCS_ECDSA_P256_SHA256, change)
    }

    fn leaf_by(&self, algorithm: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = leaf_params();
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }
}

fn verify(anchors: &[&Ca], chain: &[&[u8]]) -> Result<(), X509SvidError> {
    let bundle = Bundle {
        trust_domain: "example.org".parse().unwrap(),
        x509_authorities: anchors.iter().map(|ca| CaCertificate::from_der(&ca.der).unwrap()).collect(),
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: std::time::Duration::from_secs(60),
    };
    let bundles = BundleSet::new([bundle]).unwrap();
    countersign_core::x509::verify_x509_svid(chain, &bundles, Timestamp::now()).map(drop)
}

#[test]
fn a_chain_may_have_more_certificates_than_it_needs_in_any_order_behind_the_leaf() {
    let root = root();
    let upper = root.intermediate(|_| {});
    let lower = upper.intermediate(|params| params.distinguished_name.push(DnType::CommonName, "lower"));
    let (stranger, leaf) = (self::root(), lower.leaf(|_| {}));
    assert_eq!(verify(&[&root], &[&leaf, &lower.der, &upper.der]), Ok(()));
    assert_eq!(verify(&[&root], &[&leaf, &upper.der, &lower.der]), Ok(()));
    assert_eq!(verify(&[&root], &[&leaf, &stranger.der, &lower.der, &upper.der, &root.der]), Ok(()));
    assert!(matches!(verify(&[&root], &[&leaf, &lower.der]), Err(X509SvidError::Path { .. })));
    assert!(matches!(verify(&[&root], &[&lower.der, &leaf, &upper.der]), Err(X509SvidError::UriNames { count: 0 })));
}

#[test]
fn an_intermediate_that_is_itself_an_anchor_ends_the_path() {
    let root = root();
    let intermediate = root.intermediate(|_| {});
    let leaf = intermediate.leaf(|_| {});
    assert_eq!(verify(&[&intermediate], &[&leaf]), Ok(()));
    assert!(matches!(verify(&[&self::root()], &[&leaf, &intermediate.der]), Err(X509SvidError::Path { .. })));
}

#[test]
fn of_two_anchors_of_one_name_the_one_that_signed_counts() {
    let (first, second) = (root(), root());
    let leaf = second.leaf(|_| {});
    assert_eq!(verify(&[&first, &second], &[&leaf]), Ok(()));
    assert!(matches!(verify(&[&first], &[&leaf]), Err(X509SvidError::Path { .. })));
}

#[test]
fn an_intermediate_outside_of_its_time_is_no_part_of_a_path() {
    let root = root();
    let valid = root.intermediate(|_| {});
    assert_eq!(verify(&[&root], &[&valid.leaf(|_| {}), &valid.der]), Ok(()));
    for (from, to, error) in [(-3, -1, X509SvidError::Expired), (1, 3, X509SvidError::NotYetValid)] {
        let intermediate = root.intermediate(|params| lives(params, from, to));
        assert_eq!(verify(&[&root], &[&intermediate.leaf(|_| {}), &intermediate.der]), Err(error));
    }
}

#[test]
fn the_length_of_a_path_is_what_its_authorities_allow() {
    let root = root();
    let constrained =
        |length| root.intermediate(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length)));
    let (none, one) = (constrained(0), constrained(1));
    let below = |upper: &Ca| upper.intermediate(|params| params.distinguished_name.push(DnType::CommonName, "lower"));
    let lower = below(&one);
    assert_eq!(verify(&[&root], &[&lower.leaf(|_| {}), &lower.der, &one.der]), Ok(()));
    assert_eq!(verify(&[&root], &[&none.leaf(|_| {}), &none.der]), Ok(()));
    let lower = below(&none);
    let refused = verify(&[&root], &[&lower.leaf(|_| {}), &lower.der, &none.der]);
    assert!(matches!(refused, Err(X509SvidError::Path { .. })), "{refused:?}");
}

#[test]
fn a_leaf_signs_no_leaf() {
    let root = root();
    let key = KeyPair::generate().unwrap();
    let mut params = leaf_params();
    params.distinguished_name.push(DnType::CommonName, "a leaf");
    let leaf =
        Ca { der: params.signed_by(&key, &root.issuer).unwrap().der().to_vec(), issuer: Issuer::new(params, key) };
    assert_eq!(verify(&[&root], &[&leaf.der]), Ok(()));
    let refused = verify(&[&root], &[&leaf.leaf(|_| {}), &leaf.der]);
    assert!(matches!(refused, Err(X509SvidError::Path { .. })), "{refused:?}");
}

#[test]
fn an_intermediate_without_the_usage_to_sign_certificates_signs_none() {
    let root = root();
    let intermediate = root.intermediate(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let refused = verify(&[&root], &[&intermediate.leaf(|_| {}), &intermediate.der]);
    assert!(matches!(refused, Err(X509SvidError::Intermediate(_))), "{refused:?}");
}

#[test]
fn an_unknown_critical_extension_is_refused_and_an_unknown_other_one_is_not() {
    let root = root();
    let extension = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    assert_eq!(verify(&[&root], &[&root.leaf(|params| params.custom_extensions = vec![extension(false)])]), Ok(()));
    let refused = verify(&[&root], &[&root.leaf(|params| params.custom_extensions = vec![extension(true)])]);
    assert!(matches!(refused, Err(X509SvidError::Path { .. })), "{refused:?}");
}

#[test]
fn name_constraints_of_an_intermediate_hold_for_dns_names_of_the_leaf() {
    let root = root();
    let constrained = root.intermediate(|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let named = |name: &str| {
        let name = SanType::DnsName(name.try_into().unwrap());
        constrained.leaf(|params| params.subject_alt_names.push(name))
    };
    let inside = verify(&[&root], &[&named("a.example.org"), &constrained.der]);
    let outside = verify(&[&root], &[&named("a.example.com"), &constrained.der]);
    assert_eq!(inside, Ok(()));
    assert!(matches!(outside, Err(X509SvidError::Path { .. })), "{outside:?}");
}

#[test]
fn keys_of_leaves_are_of_the_kinds_that_handshakes_can_use() {
    let root = root();
    assert_eq!(verify(&[&root], &[&root.leaf_by(&PKCS_ECDSA_P384_SHA384, |_| {})]), Ok(()));
    // The kind of a leaf's key is no rule of X509-SVID; the handshake settles what it can use.
    assert_eq!(verify(&[&root], &[&root.leaf_by(&PKCS_ED25519, |_| {})]), Ok(()));
}

#[test]
fn what_is_no_certificate_is_no_part_of_a_chain() {
    let root = root();
    let leaf = root.leaf(|_| {});
    assert!(matches!(verify(&[&root], &[b"no certificate"]), Err(X509SvidError::Malformed { position: 0 })));
    let trailing = [&leaf[..], &[0]].concat();
    assert!(matches!(verify(&[&root], &[&trailing]), Err(X509SvidError::Malformed { position: 0 })));
    assert!(matches!(verify(&[&root], &[]), Err(X509SvidError::Empty)));
    let long: Vec<&[u8]> = std::iter::repeat_n(leaf.as_slice(), 11).collect();
    assert!(matches!(verify(&[&root], &long), Err(X509SvidError::TooLong { length: 11 })));
}
