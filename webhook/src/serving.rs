//! The stored serving certificate: Secret `countersign-webhook-tls`, written by the controller of the webhook's CA and watched by
//! each serving replica. It is not mounted, because a mounted Secret is updated a minute or more after it was written; an
//! urgently replaced certificate would be served until then.

use std::sync::Arc;

use countersign_contract::objects::webhook_secret::SERVING as SECRET;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use rustls::{
    client::verify_server_name,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use tokio::sync::watch::Sender;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroize as _;

use countersign_runtime::tls::ServingCertificate;

use crate::metrics::CertificateMetrics;

/// The Secret's type, which names its keys.
pub const TYPE: &str = "kubernetes.io/tls";
/// The Secret's key of the chain, PEM.
pub const CHAIN: &str = "tls.crt";
/// The Secret's key of the private key, PEM.
pub const KEY: &str = "tls.key";

/// Why the stored certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// A key is absent.
    #[error("Secret {SECRET} has no key `{0}`")]
    Absent(&'static str),
    /// A key is malformed.
    #[error("`{0}` of Secret {SECRET} cannot be read")]
    Unreadable(&'static str),
    /// Certificate and key do not match, or the key is of an unknown kind.
    #[error("`tls.crt` and `tls.key` of Secret {SECRET} do not belong together: {0}")]
    Mismatch(rustls::Error),
    /// The certificate is for another name.
    #[error("the certificate in Secret {SECRET} is not for {0}")]
    Name(String),
    /// The certificate has expired.
    #[error("the certificate in Secret {SECRET} expired at {0}")]
    Expired(Timestamp),
}

/// A certificate with its matching key.
#[derive(Debug)]
pub struct StoredCertificate {
    certified: CertifiedKey,
    leaf: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl StoredCertificate {
    /// Reads a chain, leaf first, and the leaf's key, both PEM.
    ///
    /// # Errors
    /// When one cannot be read, or they do not match.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, ServingError> {
        let unreadable = || ServingError::Unreadable(CHAIN);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|_| unreadable())?;
        let leaf = chain.first().cloned().ok_or_else(unreadable)?;
        let mut key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ServingError::Unreadable(KEY))?;
        // By reference: `CertifiedKey::from_der` would leave a copy of the key that is not zeroized.
        let signing = any_supported_type(&key);
        key.zeroize();
        let certified = CertifiedKey::new(chain, signing.map_err(ServingError::Mismatch)?);
        certified.keys_match().map_err(ServingError::Mismatch)?;
        let (_, parsed) = parse_x509_certificate(&leaf).map_err(|_| unreadable())?;
        let time =
            |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|_| unreadable());
        let (not_before, not_after) = (time(parsed.validity().not_before)?, time(parsed.validity().not_after)?);
        Ok(Self { certified, leaf, not_before, not_after })
    }

    /// Reads the Secret.
    ///
    /// # Errors
    /// As [`StoredCertificate::read`], and when a key is absent.
    pub fn stored(secret: &Secret) -> Result<Self, ServingError> {
        let value = |key| secret.data.as_ref().and_then(|data| data.get(key)).ok_or(ServingError::Absent(key));
        Self::read(&value(CHAIN)?.0, &value(KEY)?.0)
    }

    /// Checks everything that an API server calling `name` at `now` verifies, except the chain to its `caBundle`.
    ///
    /// # Errors
    /// When the API server would reject it.
    pub fn check(&self, name: &str, now: Timestamp) -> Result<(), ServingError> {
        if now >= self.not_after {
            return Err(ServingError::Expired(self.not_after));
        }
        let other = || ServingError::Name(name.to_owned());
        let parsed = ParsedCertificate::try_from(&self.leaf).map_err(|_| ServingError::Unreadable(CHAIN))?;
        let name = ServerName::try_from(name).map_err(|_| other())?;
        verify_server_name(&parsed, &name).map_err(|_| other())
    }

    /// The certificate itself.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// When it begins.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// When it ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// For the TLS server.
    #[must_use]
    pub fn into_certified_key(self) -> CertifiedKey {
        self.certified
    }
}

/// Watches the Secret and passes its certificate to the TLS server.
pub struct Reader {
    /// The name by which API servers call the webhook.
    pub name: String,
    /// The certificate of the TLS server.
    pub certificate: Arc<ServingCertificate>,
    /// When that certificate expires.
    pub serves_until: Sender<Option<Timestamp>>,
    /// The expiry as a metric.
    pub metrics: CertificateMetrics,
}

impl Reader {
    /// Serves the certificate of the Secret, for as long as the program runs. An unusable certificate or the Secret's deletion
    /// leaves the last good one in place.
    pub async fn watch(self, client: Client, namespace: &str) {
        let api: Api<Secret> = Api::namespaced(client, namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
        let mut secrets = Box::pin(watcher(api, only).default_backoff().applied_objects());
        while let Some(next) = secrets.next().await {
            match next {
                Ok(secret) => self.publish(&secret, Timestamp::now()),
                Err(error) => tracing::warn!(%error, "cannot watch Secret {SECRET}; trying again"),
            }
        }
    }

    fn publish(&self, secret: &Secret, now: Timestamp) {
        let read = StoredCertificate::stored(secret).and_then(|read| read.check(&self.name, now).map(|()| read));
        match read {
            Ok(read) => {
                let not_after = read.not_after();
                self.certificate.publish(read.into_certified_key());
                self.metrics.expires(not_after);
                self.serves_until.send_replace(Some(not_after));
                tracing::info!(%not_after, "serving with the certificate of Secret {SECRET}");
            }
            Err(error) => tracing::error!(%error, "keeping the serving certificate as it was"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use k8s_openapi::ByteString;
    use tokio::sync::watch;

    use super::*;
    use crate::ca::{self, CaState, ValidityPeriods};

    const NAME: &str = "countersign-webhook.countersign-system.svc";
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn issued(name: &str, now: Timestamp) -> (String, String) {
        let periods = ValidityPeriods::new(DAY * 90, DAY, DAY / 12).unwrap();
        let state = CaState::default();
        let state = state.after(&ca::next(&state, periods, now), periods, now).unwrap();
        let issued = state.issue(&[name.to_owned()], now).unwrap();
        (issued.certificate, issued.key.to_string())
    }

    fn secret((certificate, key): (String, String)) -> Secret {
        let entry = |key: &str, value: String| (key.to_owned(), ByteString(value.into_bytes()));
        let data = BTreeMap::from([entry(CHAIN, certificate), entry(KEY, key)]);
        Secret { data: Some(data), ..Secret::default() }
    }

    fn reader() -> (Reader, watch::Receiver<Option<Timestamp>>) {
        let (serves_until, seen) = watch::channel(None);
        let (certificate, metrics) = (Arc::default(), CertificateMetrics::default());
        (Reader { name: NAME.to_owned(), certificate, serves_until, metrics }, seen)
    }

    #[test]
    fn what_the_secret_holds_is_served_until_it_ends() {
        let (reader, seen) = reader();
        let now = Timestamp::now();
        reader.publish(&secret(issued(NAME, now)), now);
        assert!(reader.certificate.current().is_some());
        let until = seen.borrow().unwrap();
        assert!(until <= now + DAY && until > now + DAY - Duration::from_secs(2), "{until}");
    }

    #[test]
    fn what_no_api_server_would_accept_leaves_the_last_good_certificate() {
        let now = Timestamp::now();
        let (certificate, _) = issued(NAME, now);
        let (_, another_key) = issued(NAME, now);
        let mut without_key = secret(issued(NAME, now));
        without_key.data.as_mut().unwrap().remove(KEY);
        let cases = [
            ("an empty Secret", Secret::default(), "has no key `tls.crt`"),
            ("no private key", without_key, "has no key `tls.key`"),
            ("no certificate", secret((String::new(), another_key.clone())), "`tls.crt` of Secret"),
            ("no PEM key", secret((certificate.clone(), "none".to_owned())), "`tls.key` of Secret"),
            ("another key", secret((certificate, another_key)), "do not belong together"),
            ("another name", secret(issued("another.svc", now)), "is not for countersign-webhook"),
            ("an expired one", secret(issued(NAME, now - DAY * 2)), "expired at"),
        ];
        for (what, secret, named) in cases {
            let read = StoredCertificate::stored(&secret).and_then(|read| read.check(NAME, now));
            let error = read.expect_err(what).to_string();
            assert!(error.contains(named), "{what}: {error}");
            let (reader, seen) = reader();
            reader.publish(&secret, now);
            assert!(reader.certificate.current().is_none() && seen.borrow().is_none(), "{what} is served");
            reader.publish(&self::secret(issued(NAME, now)), now);
            let before = *seen.borrow();
            reader.publish(&secret, now);
            assert_eq!(*seen.borrow(), before, "{what} replaces a good one");
        }
    }

    // R87
    #[test]
    fn neither_debug_output_nor_an_error_holds_the_key() {
        let (certificate, key) = issued(NAME, Timestamp::now());
        let read = StoredCertificate::read(certificate.as_bytes(), key.as_bytes()).unwrap();
        let body = key.lines().nth(1).unwrap();
        assert!(!format!("{read:?}").contains(body));
        let error = StoredCertificate::read(key.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(!format!("{error:?}{error}").contains(body));
    }
}
