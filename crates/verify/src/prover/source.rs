//! Proofs by the key that came with a WIT-SVID from the Workload API.

use jiff::Timestamp;

use super::{MessageProof, ProveError, Prover, Proving, RequestToProve, ResponseToProve, local::Credential};
use crate::{Source, SourceError, source::WitSvid};

impl Prover for Source {
    /// Proves by the WIT-SVID as it is then: [`Source::ready_to_prove`] waits for the first one.
    fn prove_request<'a>(&'a self, ask: &'a RequestToProve<'a>) -> Proving<'a> {
        let proof = prove(self, |svid, now| credential(svid).prove_request(ask, now));
        Box::pin(async { proof })
    }

    fn prove_response<'a>(&'a self, ask: &'a ResponseToProve<'a>) -> Proving<'a> {
        let proof = prove(self, |svid, now| credential(svid).prove_response(ask, now));
        Box::pin(async { proof })
    }
}

impl Prover for WitSvid {
    /// Proves by this WIT-SVID until it expires, whatever has come since: a [`Source`] takes the newest.
    fn prove_request<'a>(&'a self, ask: &'a RequestToProve<'a>) -> Proving<'a> {
        let proof = credential(self).prove_request(ask, Timestamp::now());
        Box::pin(async { proof })
    }

    fn prove_response<'a>(&'a self, ask: &'a ResponseToProve<'a>) -> Proving<'a> {
        let proof = credential(self).prove_response(ask, Timestamp::now());
        Box::pin(async { proof })
    }
}

fn prove(
    source: &Source,
    prove: impl FnOnce(&WitSvid, Timestamp) -> Result<MessageProof, ProveError>,
) -> Result<MessageProof, ProveError> {
    prove(&*source.wit_svid()?, Timestamp::now())
}

fn credential(svid: &WitSvid) -> Credential<'_> {
    Credential { id: svid.id(), wit: svid.token(), expires_at: svid.expires_at(), key: svid.key() }
}

impl From<SourceError> for ProveError {
    fn from(error: SourceError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}
