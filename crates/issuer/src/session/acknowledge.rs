//! What an agent acknowledges of the States it was sent. An Ack has no response, and neither a token is verified nor anything
//! signed for it.

use countersign_proto::issuer::v1;
use tokio::time::Instant;

use super::Session;
use crate::error::IssuerError;

impl Session<'_> {
    /// Records an acknowledgement.
    pub(super) fn acknowledge(&mut self, ack: &v1::Ack, at: Instant) -> Result<(), IssuerError> {
        self.ack_pace.take(at).map_err(IssuerError::TooFast)?;
        let acks = &self.registration.record().acks;
        if !acks.is_able() {
            return Err(IssuerError::Protocol("only an agent with the capability `ack` acknowledges"));
        }
        let now = self.context.clock.now();
        if let Some(acknowledgement) = self.pushed.acknowledge(ack, now).map_err(IssuerError::Protocol)? {
            acks.set_acknowledged(acknowledgement);
            self.context.metrics.acknowledgements.inc();
        }
        Ok(())
    }
}
