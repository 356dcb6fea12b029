//! Configuration from environment variables (the contract is the table in `docs/reference.md`). Every error names the variable
//! and what it must hold.

use std::path::{Path, PathBuf};

use countersign_contract::environment::agent::{
    BUNDLE_DOCUMENTS, FILE_MODE, ISSUER, ISSUER_NAME, PRIVATE, ROOTS, SESSIONS, TOKEN_FILE,
};
use countersign_contract::files;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

/// The most sessions of one agent; a pod has far fewer containers.
const MAX_SESSIONS: usize = 256;

/// Why the environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable without a default is absent or empty.
    #[error("{variable} is not set: it must hold {wanted}; the webhook sets it when it injects the agent")]
    Missing {
        /// Its name.
        variable: &'static str,
        /// What it must hold.
        wanted: &'static str,
    },
    /// A variable holds something else.
    #[error("{variable} must hold {wanted}: {found}")]
    Invalid {
        /// Its name.
        variable: &'static str,
        /// What it must hold.
        wanted: &'static str,
        /// What is wrong with its value.
        found: String,
    },
}

/// Configuration of `countersign-agent run`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the issuer listens: `host:port`.
    pub issuer: String,
    /// The name its certificate must carry.
    pub issuer_name: ServerName<'static>,
    /// The control plane's roots at the time of injection; not empty.
    pub roots: Vec<CertificateDer<'static>>,
    /// The projected service account token.
    pub token_file: PathBuf,
    /// In the order given; not empty, names and directories distinct.
    pub sessions: Vec<SessionConfig>,
    /// The agent's own directory, which survives a restart of its container.
    pub private: PathBuf,
    /// Permission bits of the files with credentials.
    pub file_mode: u32,
    /// Whether bundle documents and issuer URLs are written too.
    pub bundle_documents: bool,
}

/// One session: a name the issuer knows and a directory the workload sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Empty for the pod as a whole, otherwise the container's name.
    pub name: String,
    /// Where its socket and files are.
    pub directory: PathBuf,
}

impl SessionConfig {
    /// As configured, `name=directory`; the ready marker names it so too.
    pub fn label(&self) -> String {
        format!("{}={}", self.name, self.directory.display())
    }
}

impl Config {
    /// Reads the variables through `variable`, which returns the value of the variable with that name.
    ///
    /// # Errors
    /// The first variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let required = |name, wanted| variable(name).ok_or(ConfigError::Missing { variable: name, wanted });
        let (private, sessions) = read_shared(variable)?;
        Ok(Self {
            issuer: issuer(required(ISSUER, "the issuer's host:port")?)?,
            issuer_name: issuer_name(required(ISSUER_NAME, "the TLS name of the issuer")?)?,
            roots: roots(&required(ROOTS, "the control plane's roots, PEM")?)?,
            token_file: variable(TOKEN_FILE).map_or_else(|| PathBuf::from(files::TOKEN_FILE), PathBuf::from),
            sessions,
            private,
            file_mode: variable(FILE_MODE).map_or(Ok(0o444), |mode| file_mode(&mode))?,
            bundle_documents: variable(BUNDLE_DOCUMENTS).map_or(Ok(false), |value| switch(BUNDLE_DOCUMENTS, &value))?,
        })
    }
}

/// Configuration of `countersign-agent wait`: which sessions it waits for, and where their marker is.
#[derive(Debug, Clone)]
pub struct WaitConfig {
    /// As in [`Config`].
    pub sessions: Vec<SessionConfig>,
    /// As in [`Config`].
    pub private: PathBuf,
}

impl WaitConfig {
    /// As [`Config::read`], without the variables that only `run` needs.
    ///
    /// # Errors
    /// The first variable that is wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let (private, sessions) = read_shared(|name| variable(name).filter(|value| !value.trim().is_empty()))?;
        Ok(Self { sessions, private })
    }
}

fn read_shared(variable: impl Fn(&str) -> Option<String>) -> Result<(PathBuf, Vec<SessionConfig>), ConfigError> {
    let private = variable(PRIVATE).map_or_else(|| PathBuf::from(files::PRIVATE), PathBuf::from);
    let sessions = match variable(SESSIONS) {
        Some(configured) => sessions(&configured)?,
        None => vec![SessionConfig { name: String::new(), directory: PathBuf::from(files::IDENTITY) }],
    };
    Ok((private, sessions))
}

fn issuer(value: String) -> Result<String, ConfigError> {
    let port = value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(value),
        _ => Err(ConfigError::Invalid {
            variable: ISSUER,
            wanted: "host:port, an IPv6 address in brackets",
            found: format!("{value:?} is not that"),
        }),
    }
}

fn issuer_name(value: String) -> Result<ServerName<'static>, ConfigError> {
    ServerName::try_from(value).map_err(|error| ConfigError::Invalid {
        variable: ISSUER_NAME,
        wanted: "the DNS name in the issuer's certificate",
        found: error.to_string(),
    })
}

fn roots(pem: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let invalid =
        |found| ConfigError::Invalid { variable: ROOTS, wanted: "one or more CERTIFICATE blocks, PEM", found };
    let roots = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(error.to_string()))?;
    if roots.is_empty() { Err(invalid("it holds none".into())) } else { Ok(roots) }
}

fn file_mode(value: &str) -> Result<u32, ConfigError> {
    let invalid = |found: &str| ConfigError::Invalid {
        variable: FILE_MODE,
        wanted: "permission bits in octal such as 0440: readable by the owner, writable and executable by nobody",
        found: format!("{value:?} {found}"),
    };
    let mode = u32::from_str_radix(value.trim(), 8).map_err(|_| invalid("is not an octal number"))?;
    if mode & 0o400 == 0 || mode & !0o444 != 0 {
        return Err(invalid("has other bits"));
    }
    Ok(mode)
}

fn switch(variable: &'static str, value: &str) -> Result<bool, ConfigError> {
    match value.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            Err(ConfigError::Invalid { variable, wanted: "true or false", found: "it holds something else".to_owned() })
        }
    }
}

fn sessions(value: &str) -> Result<Vec<SessionConfig>, ConfigError> {
    let invalid = |found: String| ConfigError::Invalid {
        variable: SESSIONS,
        wanted: "name=directory, separated by commas, each name and directory once",
        found,
    };
    let mut sessions: Vec<SessionConfig> = Vec::new();
    for item in value.split(',').map(str::trim) {
        let (name, directory) = item.split_once('=').ok_or_else(|| invalid(format!("{item:?} has no '='")))?;
        if !Path::new(directory).is_absolute() {
            return Err(invalid(format!("{directory:?} is not an absolute path")));
        }
        let session = SessionConfig { name: name.to_owned(), directory: PathBuf::from(directory) };
        if sessions.iter().any(|other| other.name == session.name || other.directory == session.directory) {
            return Err(invalid(format!("{item:?} repeats a name or a directory")));
        }
        sessions.push(session);
    }
    if sessions.len() > MAX_SESSIONS {
        return Err(invalid(format!("{} sessions are more than {MAX_SESSIONS}", sessions.len())));
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Config, ConfigError, SessionConfig, WaitConfig};

    const ROOT: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    fn read(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut variables: HashMap<&str, &str> = HashMap::from([
            ("COUNTERSIGN_ISSUER", "10.96.0.7:8443"),
            ("COUNTERSIGN_ISSUER_NAME", "countersign-issuer.countersign-system.svc"),
            ("COUNTERSIGN_ROOTS", ROOT),
        ]);
        variables.extend(changes.iter().copied());
        Config::read(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = read(&[]).unwrap();
        assert_eq!(config.token_file.to_str(), Some("/var/run/secrets/countersign.dev/token"));
        assert_eq!(config.private.to_str(), Some("/private"));
        assert_eq!(config.file_mode, 0o444);
        assert_eq!(config.sessions, [SessionConfig { name: String::new(), directory: "/run/countersign".into() }]);
    }

    #[test]
    fn sessions_one_a_container() {
        let config = read(&[("COUNTERSIGN_SESSIONS", "a=/sessions/a,b=/sessions/b")]).unwrap();
        assert_eq!(
            config.sessions.iter().map(SessionConfig::label).collect::<Vec<_>>(),
            ["a=/sessions/a", "b=/sessions/b"]
        );
    }

    #[test]
    fn an_error_names_the_variable() {
        for (variable, value) in [
            ("COUNTERSIGN_ISSUER", ""),
            ("COUNTERSIGN_ISSUER", "10.96.0.7"),
            ("COUNTERSIGN_ISSUER", ":8443"),
            ("COUNTERSIGN_ISSUER", "host:0"),
            ("COUNTERSIGN_ISSUER_NAME", "not a name"),
            ("COUNTERSIGN_ROOTS", "no pem"),
            ("COUNTERSIGN_FILE_MODE", "0644"),
            ("COUNTERSIGN_FILE_MODE", "rw"),
            ("COUNTERSIGN_FILE_MODE", "0044"),
            ("COUNTERSIGN_SESSIONS", "a"),
            ("COUNTERSIGN_SESSIONS", "a=relative"),
            ("COUNTERSIGN_SESSIONS", "a=/x,a=/y"),
            ("COUNTERSIGN_SESSIONS", "a=/x,b=/x"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.starts_with(variable), "{error}");
        }
    }

    #[test]
    fn waiting_needs_no_issuer() {
        assert_eq!(WaitConfig::read(|_| None).unwrap().sessions.len(), 1);
    }
}
