//! Output of the demonstration: one JSON object a line on standard output.

use std::{collections::BTreeSet, io::Write as _, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::time::interval;

/// The interval of reports without changes.
const EVERY: Duration = Duration::from_secs(10);

/// Prints one line.
pub(crate) fn say(line: &serde_json::Value) {
    // A closed standard output must not stop the calls.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A handshake that both sides accepted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Handshake {
    pub(crate) local: String,
    pub(crate) peer: String,
    /// The serial number of our leaf, lower-case hexadecimal.
    pub(crate) serial: String,
    pub(crate) peer_serial: String,
    /// The issuer of our leaf (its distinguished name).
    pub(crate) issuer: String,
    /// The expiry of our leaf, RFC 3339.
    pub(crate) not_after: String,
    /// The `kid` of the token that the client sent and the server validated, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_id: Option<String>,
}

impl Handshake {
    fn say(&self) {
        let mut line = json!(self);
        if let Some(line) = line.as_object_mut() {
            line.insert("event".to_owned(), "handshake".into());
        }
        say(&line);
    }
}

/// Counts handshakes and reports the first one, every change of a serial number, and every ten seconds the latest one with
/// the sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report(Arc<Mutex<Sums>>);

#[derive(Debug, Default)]
struct Sums {
    handshakes: u64,
    failed: u64,
    /// Whether the last call failed.
    failing: bool,
    serials: BTreeSet<String>,
    peer_serials: BTreeSet<String>,
    validations: u64,
    key_ids: BTreeSet<String>,
    latest: Option<Handshake>,
}

impl Report {
    pub(crate) fn handshake(&self, handshake: Handshake) {
        let mut sums = self.0.lock();
        sums.handshakes += 1;
        if let Some(key_id) = &handshake.key_id {
            sums.validations += 1;
            sums.key_ids.insert(key_id.clone());
        }
        // Without short-circuit evaluation: both sets must record their serial.
        if sums.serials.insert(handshake.serial.clone()) | sums.peer_serials.insert(handshake.peer_serial.clone()) {
            handshake.say();
        }
        sums.latest = Some(handshake);
        if std::mem::take(&mut sums.failing) {
            say(&json!({ "event": "recovered" }));
        }
    }

    /// Reports every ten seconds; never returns.
    pub(crate) async fn regularly<T>(&self) -> T {
        let mut tick = interval(EVERY);
        loop {
            tick.tick().await;
            let sums = self.0.lock();
            if let Some(latest) = &sums.latest {
                latest.say();
                say(&sums.summary());
            }
        }
    }

    pub(crate) fn failed(&self, error: &anyhow::Error) {
        let mut sums = self.0.lock();
        sums.failed += 1;
        sums.failing = true;
        say(&json!({ "event": "failed", "error": format!("{error:#}") }));
    }

    /// Prints the sums.
    pub(crate) fn summary(&self) {
        let sums = self.0.lock();
        say(&sums.summary());
    }
}

impl Sums {
    fn summary(&self) -> serde_json::Value {
        json!({
            "event": "summary",
            "handshakes": self.handshakes,
            "failed": self.failed,
            "serials": self.serials,
            "peer_serials": self.peer_serials,
            "validations": self.validations,
            "key_ids": self.key_ids,
        })
    }
}
