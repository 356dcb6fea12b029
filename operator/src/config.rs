//! What an operator process is told on its command line or in its environment. Everything that belongs to the installation
//! (audience, issuer's address, trust domains) is observed in the cluster instead.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use countersign_contract::{
    environment::{self, component},
    network::{self, port},
    objects::{AUTHORITIES_NAMESPACE, FEDERATION_NAMESPACE, OPERATOR, SYSTEM_NAMESPACE},
    pod::TOKEN_LIFE,
};
use countersign_core::journal::Format;
use countersign_federation::Network;

/// Options of `countersign-operator`.
#[derive(Clone, Debug, Parser)]
#[command(name = "countersign-operator", version, about = "Watches, indexes, decides, issues and publishes.")]
pub struct Config {
    /// Namespace in which the operator runs: Service, ConfigMap and TLS name of the issuer live there.
    #[arg(long, env = component::NAMESPACE, default_value = SYSTEM_NAMESPACE)]
    pub namespace: String,

    /// Namespace which holds the authorities' journals and nothing else.
    #[arg(long, env = component::AUTHORITIES_NAMESPACE, default_value = AUTHORITIES_NAMESPACE)]
    pub authorities_namespace: String,

    /// Namespace which holds what is kept of remote trust domains and nothing else.
    #[arg(long, env = component::FEDERATION_NAMESPACE, default_value = FEDERATION_NAMESPACE)]
    pub federation_namespace: String,

    /// Networks in which bundle endpoints may be beside public addresses, in CIDR form such as `10.0.0.0/8`, separated by
    /// commas. Without it no endpoint at a private, loopback or link-local address is called, whatever its name resolves to.
    #[arg(long, env = component::FEDERATION_NETWORKS, value_delimiter = ',')]
    pub federation_networks: Vec<Network>,

    /// What `{cluster}` in paths stands for; without it such paths are not granted.
    #[arg(long, env = component::CLUSTER_NAME, default_value = "")]
    pub cluster_name: String,

    /// The format in which authorities' journals are written, `v1` or `v2`. `v2` is for when no replica of a release that does
    /// not read it runs any more, and there is no way back: a journal that was written in it stays in it.
    #[arg(long, env = component::JOURNAL_FORMAT, default_value = "v1", value_parser = journal_format)]
    pub journal_format: Format,

    /// The longest life of a service account token that is accepted, such as `2h`. Kubelets ask for an hour; whoever else may
    /// request tokens may ask for years.
    #[arg(long, env = component::MAX_TOKEN_LIFE, default_value = "2h", value_parser = token_life)]
    pub max_token_life: Duration,

    /// Where the issuer listens (TLS 1.3, HTTP/2).
    #[arg(long, env = component::LISTEN_ISSUER, default_value_t = any_address(port::ISSUER))]
    pub listen_issuer: SocketAddr,

    /// Where replicas ask each other for what lives in their streams (mutual TLS 1.3); the others are asked on the same port.
    #[arg(long, env = component::LISTEN_INSPECT, default_value_t = any_address(port::INSPECT))]
    pub listen_inspect: SocketAddr,

    /// This replica's name: its pod's.
    #[arg(long, env = component::POD_NAME, default_value = OPERATOR)]
    pub replica: String,

    /// Where `/metrics`, `/healthz` and `/readyz` are served, in plain text.
    #[arg(long, env = component::LISTEN_HTTP, default_value_t = any_address(port::HTTP))]
    pub listen_http: SocketAddr,

    /// What is logged, as a tracing filter such as `info,countersign_operator=debug`.
    #[arg(long, env = environment::LOG, default_value = "info")]
    pub log: String,
}

impl Config {
    /// The DNS names of the issuer's serving certificate.
    #[must_use]
    pub fn serving_names(&self) -> Vec<String> {
        vec![self.issuer_name()]
    }

    /// The name the issuer's serving certificate carries and agents ask for.
    #[must_use]
    pub fn issuer_name(&self) -> String {
        network::issuer_name(&self.namespace)
    }
}

/// The default of `--max-token-life`.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(2 * 3600);

fn token_life(text: &str) -> anyhow::Result<Duration> {
    let life: jiff::SignedDuration = text.parse().context("write a span such as 2h or 90m")?;
    let life = Duration::try_from(life).context("write a span above zero")?;
    ensure!(life >= TOKEN_LIFE, "agents' tokens live {TOKEN_LIFE:?}; write 1h or more");
    Ok(life)
}

/// `port` of every address of the pod.
fn any_address(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn journal_format(text: &str) -> anyhow::Result<Format> {
    match text {
        "v1" => Ok(Format::V1),
        "v2" => Ok(Format::V2),
        _ => anyhow::bail!("write v1 or v2"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Format, MAX_TOKEN_LIFE};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        Config::command().debug_assert();
    }

    #[test]
    fn the_issuer_is_named_after_its_service_and_namespace() {
        let config = Config::parse_from(["countersign-operator", "--namespace", "elsewhere"]);
        assert_eq!(config.issuer_name(), "countersign-issuer.elsewhere.svc");
        assert_eq!(config.listen_issuer.port(), 8443);
    }

    #[test]
    fn journals_are_written_in_the_first_format_until_the_second_is_enabled() {
        let config = |format: &[&str]| Config::try_parse_from([&["countersign-operator"], format].concat());
        assert_eq!(config(&[]).expect("defaults").journal_format, Format::V1);
        assert_eq!(config(&["--journal-format", "v2"]).expect("v2").journal_format, Format::V2);
        assert!(config(&["--journal-format", "v3"]).is_err());
    }

    #[test]
    fn tokens_may_live_two_hours_and_never_less_than_those_of_agents_do() {
        let config = |life: &[&str]| Config::try_parse_from([&["countersign-operator"], life].concat());
        assert_eq!(config(&[]).expect("defaults").max_token_life, MAX_TOKEN_LIFE);
        assert!(config(&["--max-token-life", "1h"]).is_ok());
        for short in ["59m", "0s", "-2h", "long"] {
            assert!(config(&["--max-token-life", short]).is_err(), "{short}");
        }
    }
}
