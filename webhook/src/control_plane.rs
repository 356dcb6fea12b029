//! The settings that the operator publishes for agents: a typed copy of ConfigMap `countersign-control-plane`, kept by a watch.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwapOption;
use countersign_contract::objects::control_plane::{AUDIENCE, CLUSTER_NAME, CONFIG_MAP, ISSUER, ISSUER_NAME, ROOTS};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// The settings with which an agent finds and authenticates the issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The control plane's roots, current and next, as PEM.
    pub roots: String,
    /// The issuer's address, `host:port`.
    pub issuer: String,
    /// The name in the issuer's certificate.
    pub issuer_name: String,
    /// The audience of agents' tokens, which identifies this installation.
    pub audience: String,
    /// The value of `{cluster}` in paths, empty without one.
    pub cluster_name: String,
}

/// Why a ConfigMap is not usable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A key is absent or empty.
    #[error("ConfigMap {CONFIG_MAP} has no `{0}`: the operator writes it")]
    Absent(&'static str),
    /// `roots.pem` is malformed.
    #[error(
        "`roots.pem` of ConfigMap {CONFIG_MAP} holds no certificate, or one that cannot be read: the operator writes it"
    )]
    Roots,
    /// `issuer` is malformed.
    #[error("`issuer` of ConfigMap {CONFIG_MAP} is `{0}`, not an address and a port: the operator writes it")]
    Issuer(String),
}

impl Settings {
    /// Reads the ConfigMap's `data`.
    ///
    /// # Errors
    /// When a key is absent or malformed.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let value = |key: &'static str| {
            data.get(key).map(|value| value.trim()).filter(|value| !value.is_empty()).ok_or(SettingsError::Absent(key))
        };
        let roots = value(ROOTS)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(roots.as_bytes()).collect();
        if certificates.map_err(|_| SettingsError::Roots)?.is_empty() {
            return Err(SettingsError::Roots);
        }
        let issuer = value(ISSUER)?;
        let port =
            issuer.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(SettingsError::Issuer(issuer.to_owned()));
        }
        Ok(Self {
            roots: format!("{roots}\n"),
            issuer: issuer.to_owned(),
            issuer_name: value(ISSUER_NAME)?.to_owned(),
            audience: value(AUDIENCE)?.to_owned(),
            cluster_name: value(CLUSTER_NAME).unwrap_or_default().to_owned(),
        })
    }
}

/// The current settings; `None` until they have been read.
pub type Current = Arc<ArcSwapOption<Settings>>;

/// Keeps `current` up to date for as long as the program runs. An unreadable ConfigMap or its deletion leaves the last good
/// settings in place.
pub async fn watch(client: Client, namespace: &str, current: Current) {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let mut maps = Box::pin(watcher(api, only).default_backoff().applied_objects());
    while let Some(next) = maps.next().await {
        match next {
            Ok(map) => publish(&map, &current),
            Err(error) => tracing::warn!(%error, "cannot watch ConfigMap {CONFIG_MAP}; trying again"),
        }
    }
}

fn publish(map: &ConfigMap, current: &Current) {
    match Settings::read(map.data.as_ref().unwrap_or(&BTreeMap::new())) {
        Ok(settings) if current.load().as_deref() == Some(&settings) => {}
        Ok(settings) => {
            tracing::info!(issuer = settings.issuer, audience = settings.audience, "control plane settings published");
            current.store(Some(Arc::new(settings)));
        }
        Err(error) => tracing::error!(%error, "keeping the control plane settings as they were"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> BTreeMap<String, String> {
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
        [
            ("roots.pem", root.pem()),
            ("issuer", "[fd00::1]:8443".into()),
            ("issuer-name", "issuer.svc".into()),
            ("audience", "countersign.dev/uid".into()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    #[test]
    fn reads_what_the_operator_writes() {
        let settings = Settings::read(&data()).unwrap();
        assert_eq!(settings.issuer, "[fd00::1]:8443");
        assert_eq!(settings.audience, "countersign.dev/uid");
    }

    #[test]
    fn every_key_is_needed() {
        for key in ["roots.pem", "issuer", "issuer-name", "audience"] {
            let mut data = data();
            data.insert(key.to_owned(), " ".to_owned());
            assert_eq!(Settings::read(&data), Err(SettingsError::Absent(key)));
            data.remove(key);
            assert_eq!(Settings::read(&data), Err(SettingsError::Absent(key)));
        }
    }

    #[test]
    fn what_no_agent_could_use_is_refused() {
        let with = |key: &str, value: &str| {
            let mut data = data();
            data.insert(key.to_owned(), value.to_owned());
            Settings::read(&data)
        };
        assert_eq!(with("roots.pem", "none"), Err(SettingsError::Roots));
        assert_eq!(with("issuer", "10.0.0.1"), Err(SettingsError::Issuer("10.0.0.1".into())));
        assert_eq!(with("issuer", ":8443"), Err(SettingsError::Issuer(":8443".into())));
    }

    #[test]
    fn a_damaged_map_leaves_the_last_good_settings() {
        let current = Current::default();
        publish(&ConfigMap { data: Some(data()), ..ConfigMap::default() }, &current);
        let before = current.load_full();
        assert!(before.is_some());
        publish(&ConfigMap::default(), &current);
        assert_eq!(current.load_full(), before);
    }
}
