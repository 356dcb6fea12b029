//! A workload with a WIT-SVID, and the authority that issued it.

use std::sync::Arc;

use countersign_core::{
    bundle::{Bundle, BundleSet},
    key::{KeyType, PrivateKey},
    wit::{WitAuthority, WitRequest},
};
use countersign_verify::tls::FixedBundles;
use jiff::Timestamp;

use crate::{TTL, id};

pub(crate) struct Workload {
    pub(crate) authority: WitAuthority,
    pub(crate) key: PrivateKey,
    pub(crate) wit: String,
}

impl Workload {
    pub(crate) fn new() -> Self {
        let authority = WitAuthority::generate(KeyType::EcP256).unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let request = WitRequest { id: &id(), confirmation: key.public_key(), ttl: TTL };
        let wit = authority.issue(&request, Timestamp::now()).unwrap().token.to_string();
        Self { authority, key, wit }
    }

    /// Of its trust domain.
    pub(crate) fn bundles(&self) -> FixedBundles {
        let bundle = Bundle {
            trust_domain: id().trust_domain().clone(),
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            wit_authorities: vec![self.authority.verification_key().clone()],
            sequence: 1,
            refresh_hint: TTL,
        };
        FixedBundles(Arc::new(BundleSet::new([bundle]).unwrap()))
    }
}
