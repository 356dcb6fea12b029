//! What an agent says its workload can use. A Receipt has no response, and neither a token is verified nor anything signed for it.

use countersign_proto::issuer::v1;
use tokio::time::Instant;

use super::Session;
use crate::{error::IssuerError, receipts::Receipt};

impl Session<'_> {
    /// Records a receipt.
    pub(super) fn receive_receipt(&mut self, receipt: &v1::Receipt, at: Instant) -> Result<(), IssuerError> {
        self.ack_pace.take(at).map_err(IssuerError::TooFast)?;
        let receipts = &self.registration.record().receipts;
        if !receipts.is_able() {
            return Err(IssuerError::Protocol("only an agent with the capability `receipt` sends receipts"));
        }
        let receipt = Receipt::parse(receipt, self.context.clock.now()).map_err(IssuerError::Protocol)?;
        let is_clock_right = self.context.clock_skew.ensure().is_ok();
        receipts.set(if is_clock_right { receipt } else { receipt.without_clock() });
        Ok(())
    }
}
