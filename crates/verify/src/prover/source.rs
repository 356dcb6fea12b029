//! Proofs by the key that came with a WIT-SVID from the Workload API.

use jiff::Timestamp;

use super::{MessageProof, ProveError, Prover, Proving, RequestToProve, ResponseToProve, local::Credential};
use crate::{Source, SourceError};

impl Prover for Source {
    /// Proves by the WIT-SVID as it is then: [`Source::ready_to_prove`] waits for the first one.
    fn prove_request<'a>(&'a self, ask: &'a RequestToProve<'a>) -> Proving<'a> {
        let proof = prove(self, |credential, now| credential.prove_request(ask, now));
        Box::pin(async { proof })
    }

    fn prove_response<'a>(&'a self, ask: &'a ResponseToProve<'a>) -> Proving<'a> {
        let proof = prove(self, |credential, now| credential.prove_response(ask, now));
        Box::pin(async { proof })
    }
}

fn prove(
    source: &Source,
    prove: impl FnOnce(&Credential<'_>, Timestamp) -> Result<MessageProof, ProveError>,
) -> Result<MessageProof, ProveError> {
    let svid = source.wit_svid()?;
    prove(&Credential { id: svid.id(), wit: svid.token(), key: svid.key() }, Timestamp::now())
}

impl From<SourceError> for ProveError {
    fn from(error: SourceError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}
