//! Receipts: what agents say their workloads can use, compared with what was issued to them. An agent is believed only about its
//! own pod, and nothing depends on it but what status says (`docs/adr/0036-receipts.md`).

use std::time::Duration;

use countersign_core::{entitlement::MAX_IDENTITIES, x509::Fingerprint};
use countersign_proto::issuer::v1;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::record::Issuance;

/// How long an agent may take from a new stream, or from an X509-SVID that was issued to it, to the receipt.
const ABOUT_TO_SEND: Duration = Duration::from_secs(10);

/// A receipt may travel for so long: a clock that differs by less may be right.
const CLOCK_TOLERATED: SignedDuration = SignedDuration::from_secs(5);

/// What an agent says its workload can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    svids: Vec<HeldSvid>,
    /// By how much the agent's clock is ahead of this replica's; negative: behind.
    clock_ahead: SignedDuration,
}

/// An X509-SVID, as it is on the socket and in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HeldSvid {
    socket: Fingerprint,
    /// `None`: it is not in the files.
    files: Option<Fingerprint>,
}

/// How an identity's X509-SVID has arrived at a session, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// What was issued last is on the socket and in the files; or what was issued before it, while its agent is about to say more.
    Held,
    /// Its agent has said nothing on this stream yet, and is about to.
    Pending,
    /// Its agent sends no receipts.
    Unknown,
    /// What is in its files is not what is on its socket.
    NotInFiles,
    /// What is on its socket is not what was issued to it last.
    NotOnSocket,
    /// It has nothing.
    Nothing,
}

impl Receipt {
    /// A receipt that arrived at `now`.
    ///
    /// # Errors
    /// What is malformed.
    pub(crate) fn parse(receipt: &v1::Receipt, now: Timestamp) -> Result<Self, &'static str> {
        if receipt.svids.len() > MAX_IDENTITIES {
            return Err("a Receipt has at most 32 SVIDs");
        }
        let digest = |bytes: &[u8]| Fingerprint::try_from(bytes).map_err(|_| "a digest of a Receipt is not 32 bytes");
        let svid = |svid: &v1::HeldSvid| -> Result<HeldSvid, &'static str> {
            let files = Some(&svid.files_sha256).filter(|bytes| !bytes.is_empty());
            Ok(HeldSvid { socket: digest(&svid.socket_sha256)?, files: files.map(|bytes| digest(bytes)).transpose()? })
        };
        let svids = receipt.svids.iter().map(svid).collect::<Result<_, &'static str>>()?;
        let sent_at = Timestamp::from_millisecond(receipt.clock_ms).map_err(|_| "the clock of a Receipt is no time")?;
        Ok(Self { svids, clock_ahead: sent_at.duration_since(now) })
    }

    /// Without what the clocks say: that of this replica is wrong.
    pub(crate) fn without_clock(self) -> Self {
        Self { clock_ahead: SignedDuration::ZERO, ..self }
    }
}

/// The last receipt of a stream.
#[derive(Debug)]
pub struct ReceiptRecord {
    able: bool,
    last: Mutex<Option<Receipt>>,
}

impl ReceiptRecord {
    /// Of a stream without a receipt yet; `able`: its agent sends receipts.
    #[must_use]
    pub fn new(able: bool) -> Self {
        Self { able, last: Mutex::default() }
    }

    /// Whether its agent sends receipts.
    #[must_use]
    pub fn is_able(&self) -> bool {
        self.able
    }

    /// It has sent one.
    pub fn set(&self, receipt: Receipt) {
        *self.last.lock() = Some(receipt);
    }

    /// Seconds by which the agent's clock is ahead; negative: behind; 0: it may be right.
    #[must_use]
    pub fn clock_ahead(&self) -> i64 {
        let ahead = self.last.lock().as_ref().map(|receipt| receipt.clock_ahead).unwrap_or_default();
        if ahead.abs() < CLOCK_TOLERATED { 0 } else { ahead.as_secs() }
    }

    /// How one of the `identities` identities of this stream has arrived, which it was sent `since`, and of which `issued` was issued
    /// last. An agent that moved here with what it has was issued nothing here: then no more is known than that socket and files agree,
    /// and whether it has as many as it was sent.
    #[must_use]
    pub fn delivery(&self, identities: usize, since: Instant, issued: Option<&Issuance>, now: Timestamp) -> Delivery {
        if !self.able {
            return Delivery::Unknown;
        }
        let last = self.last.lock();
        let svids = last.as_ref().map(|receipt| receipt.svids.as_slice()).unwrap_or_default();
        let agree = svids.iter().all(|svid| svid.files == Some(svid.socket));
        let Some(issued) = issued else {
            return match svids.len() {
                held if held < identities && since.elapsed() < ABOUT_TO_SEND => Delivery::Pending,
                0 => Delivery::Nothing,
                _ if !agree => Delivery::NotInFiles,
                held if held < identities => Delivery::Unknown,
                _ => Delivery::Held,
            };
        };
        match svids.iter().find(|svid| svid.socket == issued.fingerprint) {
            Some(svid) if svid.files == Some(svid.socket) => Delivery::Held,
            Some(_) => Delivery::NotInFiles,
            // Its agent is about to say more; until then it has what it had.
            None if now.duration_since(issued.at).unsigned_abs() < ABOUT_TO_SEND => match svids.len() {
                0 => Delivery::Pending,
                _ if agree => Delivery::Held,
                _ => Delivery::NotInFiles,
            },
            None if svids.is_empty() => Delivery::Nothing,
            None => Delivery::NotOnSocket,
        }
    }
}

#[cfg(test)]
mod tests;
