//! Keys that two trust domains share: each of the two can sign for the other (Trust Domain and Bundle, section 6.4).

use countersign_reasons::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::bundle::Bundle;
use crate::id::TrustDomain;
use crate::jws::PublicJwk;
use crate::jwt::JwtVerificationKey;
use crate::wit::WitVerificationKey;
use crate::x509::CaCertificate;

/// A public key in the bundles of several trust domains. Whoever signs with it can forge the SVIDs of each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedAnchor {
    /// The key's JWK thumbprint by SHA-256, base64url (RFC 7638).
    pub thumbprint: String,
    /// The trust domains, two or more.
    pub trust_domains: BTreeSet<TrustDomain>,
}

/// The keys that several trust domains of `bundles` have, in a fixed order. Keys are compared by what their
/// SubjectPublicKeyInfo says (RFC 5280, section 4.1): two certificates of one key are one anchor, and so are a certificate and
/// a key for tokens.
pub fn shared_anchors<'a>(bundles: impl IntoIterator<Item = &'a Bundle>) -> Vec<SharedAnchor> {
    let mut holders: BTreeMap<&PublicJwk, BTreeSet<&TrustDomain>> = BTreeMap::new();
    for bundle in bundles {
        let x509 = bundle.x509_authorities.iter().map(CaCertificate::jwk);
        let jwt = bundle.jwt_authorities.iter().map(JwtVerificationKey::public_jwk);
        let wit = bundle.wit_authorities.iter().map(WitVerificationKey::public_jwk);
        for key in x509.chain(jwt).chain(wit) {
            holders.entry(key).or_default().insert(&bundle.trust_domain);
        }
    }
    let shared = holders.into_iter().filter(|(_, holders)| holders.len() > 1);
    let anchor = |(key, holders): (&PublicJwk, BTreeSet<&TrustDomain>)| SharedAnchor {
        thumbprint: key.thumbprint(),
        trust_domains: holders.into_iter().cloned().collect(),
    };
    shared.map(anchor).collect()
}

impl SharedAnchor {
    /// The reason in conditions.
    pub const REASON: Reason = Reason::SharedAnchor;
}

impl fmt::Display for SharedAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Of more it is enough to know that there are more.
        const NAMED: usize = 3;
        let names: Vec<&str> = self.trust_domains.iter().take(NAMED).map(TrustDomain::as_str).collect();
        write!(f, "the key {} is in the bundles of {}", self.thumbprint, names.join(", "))?;
        if self.trust_domains.len() > NAMED {
            write!(f, " and {} more", self.trust_domains.len() - NAMED)?;
        }
        f.write_str(": each of these trust domains can sign for the others; give each authorities of its own")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bundle, certificate, jwt_key, own};
    use super::*;
    use crate::key::KeyType;
    use crate::x509::X509Authority;

    #[test]
    fn two_domains_with_one_certificate_share_an_anchor() {
        let (shared, other) = (certificate("a", 1, 1), certificate("b", 2, 1));
        let bundles = [bundle("a", &[&shared], &[]), bundle("b", &[&other, &shared], &[]), bundle("c", &[], &[])];
        let found = shared_anchors(&bundles);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].trust_domains, own(["a", "b"]));
        assert_eq!(found[0].thumbprint, shared.jwk().thumbprint());
    }

    #[test]
    fn two_certificates_of_one_key_are_one_anchor() {
        let (one, two) = (certificate("a", 1, 1), certificate("b", 1, 2));
        assert_ne!(one, two);
        assert_eq!(shared_anchors(&[bundle("a", &[&one], &[]), bundle("b", &[&two], &[])]).len(), 1);
    }

    #[test]
    fn a_certificate_and_a_jwt_key_of_one_key_are_one_anchor() {
        let jwt = jwt_key("any");
        let x509 = certificate("a", 1, 1);
        assert_eq!(x509.jwk(), jwt.public_jwk());
        assert_eq!(shared_anchors(&[bundle("a", &[&x509], &[]), bundle("b", &[], &[&jwt])]).len(), 1);
        let renamed = jwt_key("other");
        assert_eq!(shared_anchors(&[bundle("a", &[], &[&jwt]), bundle("b", &[], &[&renamed])]).len(), 1);
    }

    #[test]
    fn an_rsa_key_is_compared_too() {
        let authority = X509Authority::generate(
            &"a".parse().unwrap(),
            KeyType::Rsa2048,
            super::super::fixtures::DAY,
            super::super::fixtures::at(0),
        );
        let rsa = authority.unwrap().certificate().clone();
        assert_eq!(shared_anchors(&[bundle("a", &[&rsa], &[]), bundle("b", &[&rsa], &[])]).len(), 1);
    }

    #[test]
    fn one_domain_may_have_a_key_several_times() {
        let (one, two) = (certificate("a", 1, 1), certificate("a", 1, 2));
        let bundles = [bundle("a", &[&one, &two], &[&jwt_key("x")]), bundle("a", &[&one], &[])];
        assert_eq!(shared_anchors(&bundles), []);
        assert_eq!(shared_anchors(&[bundle("a", &[&one], &[]), bundle("b", &[&certificate("b", 2, 1)], &[])]), []);
    }

    #[test]
    fn a_message_names_a_few_trust_domains() {
        let key = certificate("a", 1, 1);
        let bundles = ["a", "b", "c", "d", "e"].map(|name| bundle(name, &[&key], &[]));
        let found = shared_anchors(&bundles);
        let text = found[0].to_string();
        assert!(text.contains(" of a, b, c and 2 more: "), "{text}");
        assert!(shared_anchors(&bundles[..2])[0].to_string().contains(" of a, b: "));
    }
}
