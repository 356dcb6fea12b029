//! Publishes what the planner allows: to the socket's clients, to files, to the readiness marker, to the log.

use std::sync::Arc;

use countersign_core::bundle::Bundle;
use countersign_core::id::TrustDomain;
use countersign_core::x509::{Fingerprint, fingerprint};
use countersign_proto::issuer::MAX_ACK_SEQUENCES;
use countersign_proto::issuer::v1::{BundleSequence, HeldSvid};
use jiff::Timestamp;

use super::Session;
use crate::publish::{Published, Svid};
use crate::session::renewal_planner::ResponseError;

impl Session {
    /// Publishes to the socket's clients, then the files, then the readiness marker.
    pub(super) fn publish(&mut self) {
        let next = self.planner.published(Timestamp::now());
        let changed = self.publisher.publish(next);
        if !changed && !self.files_outdated {
            return;
        }
        let current = self.publisher.current();
        if changed {
            self.log(&current);
        }
        let written = match &current {
            Published::Ready(credentials) => self.parts.folder.write(credentials),
            Published::NoIdentity(_) => self.parts.folder.withdraw(),
            Published::NotReady(_) => Ok(()),
        };
        self.files_outdated = written.is_err();
        self.held = self.held_by(&current);
        if let Err(error) = written {
            tracing::error!(session = self.parts.config.name, %error, "the files stay as they were");
            return;
        }
        if let Err(error) = self.parts.readiness.record(&self.parts.config, &current) {
            tracing::error!(%error, "cannot write the marker of readiness");
        }
    }

    /// The bundles that are published and written to files; `None` while the last State is not in effect, also since the workload
    /// has something that a tainted authority signed. Should they be too many
    /// for an Ack, those of other trust domains than the identities' are left out.
    pub(super) fn bundles_in_effect(&self) -> Option<Vec<BundleSequence>> {
        if self.files_outdated || self.planner.has_tainted() {
            return None;
        }
        let credentials = match self.publisher.current() {
            Published::Ready(credentials) => credentials,
            Published::NoIdentity(_) => return Some(Vec::new()),
            Published::NotReady(_) => return None,
        };
        let is_foreign = |domain: &TrustDomain| credentials.svids.iter().all(|svid| svid.id.trust_domain() != domain);
        let mut bundles: Vec<_> = credentials.trust.iter().collect();
        bundles.sort_by_key(|bundle| is_foreign(&bundle.trust_domain));
        let sequence = |bundle: &Arc<Bundle>| BundleSequence {
            trust_domain: bundle.trust_domain.to_string(),
            sequence: bundle.sequence,
        };
        Some(bundles.into_iter().take(MAX_ACK_SEQUENCES).map(sequence).collect())
    }

    /// What the workload can use of what is published.
    fn held_by(&self, published: &Published) -> Vec<HeldSvid> {
        let Published::Ready(credentials) = published else { return Vec::new() };
        let in_files = self.parts.folder.fingerprints(&credentials.svids);
        let held = |(svid, in_files): (&Svid, Option<Fingerprint>)| HeldSvid {
            socket_sha256: svid.chain.first().map(|leaf| fingerprint(leaf).to_vec()).unwrap_or_default(),
            files_sha256: in_files.map(|digest| digest.to_vec()).unwrap_or_default(),
        };
        credentials.svids.iter().zip(in_files).map(held).collect()
    }

    fn log(&self, current: &Published) {
        let session = self.parts.config.name.as_str();
        match current {
            Published::Ready(credentials) => {
                for svid in &credentials.svids {
                    tracing::info!(session, id = %svid.id, expires = %svid.expires_at, "published");
                }
            }
            Published::NoIdentity(reason) => {
                tracing::warn!(session, %reason, "this pod has no identity");
            }
            Published::NotReady(reason) => tracing::info!(session, %reason, "not ready"),
        }
    }

    pub(super) fn log_rejected_response(&self, error: &ResponseError) {
        tracing::warn!(session = self.parts.config.name, %error, "an answer of the issuer's is not used");
    }
}
