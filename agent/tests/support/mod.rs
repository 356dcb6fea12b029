//! What an agent under test needs: an issuer that speaks the real Issuer API over real TLS with authorities of `core`, a token,
//! and a directory for a session. Shared by the tests and the benchmarks.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part of it")]

pub mod agent;
pub mod issuer;
mod later_version;
pub mod sessions;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_agent::config::Config;
use jiff::Timestamp;

pub use issuer::FakeIssuer;

pub const DEFAULT_ID: &str = "spiffe://example.org/ns/shop/sa/orders";

/// The directories and the token of one agent.
pub struct AgentHome {
    pub directory: tempfile::TempDir,
}

impl AgentHome {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["private", "identity"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let home = Self { directory };
        home.write_token(3600);
        home
    }

    /// A token as the kubelet would write it; the fake issuer does not read it.
    pub fn write_token(&self, seconds: i64) {
        let now = Timestamp::now().as_second();
        let claims = format!(r#"{{"iat":{now},"exp":{}}}"#, now + seconds);
        std::fs::write(self.path("token"), format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn credentials(&self) -> PathBuf {
        self.path("identity/credentials")
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.path("identity/workload.sock").display())
    }

    /// The agent's environment, as injection would set it.
    pub fn environment(&self, issuer: &FakeIssuer) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("COUNTERSIGN_ISSUER", issuer.address.to_string()),
            ("COUNTERSIGN_ISSUER_NAME", issuer::NAME.into()),
            ("COUNTERSIGN_ROOTS", issuer.control_plane_root_pem()),
            ("COUNTERSIGN_TOKEN_FILE", text(&self.path("token"))),
            ("COUNTERSIGN_PRIVATE", text(&self.path("private"))),
            ("COUNTERSIGN_SESSIONS", format!("={}", text(&self.path("identity")))),
        ]
    }

    pub fn config(&self, issuer: &FakeIssuer) -> Config {
        Self::read_config(&self.environment(issuer))
    }

    /// Of an agent with one session for each of `names`, each in the directory of that name.
    pub fn config_of_sessions(&self, issuer: &FakeIssuer, names: &[&str]) -> Config {
        let mut environment = self.environment(issuer);
        let sessions = names.iter().map(|name| format!("{name}={}", self.path(name).display()));
        environment.retain(|(name, _)| *name != "COUNTERSIGN_SESSIONS");
        environment.push(("COUNTERSIGN_SESSIONS", sessions.collect::<Vec<_>>().join(",")));
        Self::read_config(&environment)
    }

    fn read_config(environment: &[(&'static str, String)]) -> Config {
        Config::read(|name| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()))
            .unwrap()
    }
}
