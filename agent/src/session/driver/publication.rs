//! Shows what the wallet allows: to the socket's watchers, in files, to those who wait for the start, in the log.

use jiff::Timestamp;

use super::Session;
use crate::publish::Published;
use crate::session::wallet::NotAccepted;

impl Session {
    /// The socket's watchers, the files, then those who wait for the start.
    pub(super) fn publish(&mut self) {
        let next = self.wallet.published(Timestamp::now());
        let changed = self.publisher.publish(next);
        if !changed && !self.files_are_behind {
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
        self.files_are_behind = written.is_err();
        if let Err(error) = written {
            tracing::error!(session = self.parts.config.name, %error, "the files stay as they were");
            return;
        }
        if let Err(error) = self.parts.readiness.note(&self.parts.config, &current) {
            tracing::error!(%error, "cannot write the marker of readiness");
        }
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

    pub(super) fn complain(&self, error: &NotAccepted) {
        tracing::warn!(session = self.parts.config.name, %error, "an answer of the issuer's is not used");
    }
}
