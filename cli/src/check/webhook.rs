//! The webhook's configurations: whether they are there, and by which CA the API server verifies the webhook.

use std::time::Duration;

use countersign_contract::objects::{WEBHOOK_CA, WEBHOOK_CONFIGURATION};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use x509_parser::pem::Pem;

use super::{admission, category::Category};
use crate::{
    cluster::Cluster,
    finding::Finding,
    reading::{Gap, Reading},
    times::relative,
};

/// Its controller renews the CA at half of its life, 45 days before it ends.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was read.
#[derive(Debug)]
pub(super) struct Seen {
    mutating: Reading<Vec<ClientCa>>,
    validating: Reading<Vec<ClientCa>>,
    trial: admission::Seen,
}

/// The `caBundle` of an entry of a configuration.
#[derive(Clone, Debug, PartialEq)]
struct ClientCa {
    webhook: String,
    pem: Option<Vec<u8>>,
}

pub(super) async fn observe(cluster: &Cluster, system: &str) -> Seen {
    let mutating: Reading<MutatingWebhookConfiguration> = cluster.read(WEBHOOK_CONFIGURATION).await;
    let validating: Reading<ValidatingWebhookConfiguration> = cluster.read(WEBHOOK_CONFIGURATION).await;
    Seen {
        mutating: mutating.map(|found| {
            let entries = found.webhooks.into_iter().flatten();
            entries.map(|entry| client_ca(entry.name, entry.client_config)).collect()
        }),
        validating: validating.map(|found| {
            let entries = found.webhooks.into_iter().flatten();
            entries.map(|entry| client_ca(entry.name, entry.client_config)).collect()
        }),
        trial: admission::observe(cluster, system).await,
    }
}

fn client_ca(webhook: String, config: WebhookClientConfig) -> ClientCa {
    ClientCa { webhook, pem: config.ca_bundle.map(|bundle| bundle.0).filter(|bundle| !bundle.is_empty()) }
}

pub(super) fn category(seen: &Seen, system: &str, now: Timestamp) -> Category {
    let mut checks = vec![
        configuration("mutating", "mutatingwebhookconfiguration", &seen.mutating, system, now),
        configuration("validating", "validatingwebhookconfiguration", &seen.validating, system, now),
    ];
    checks.extend(admission::checks(&seen.trial, system));
    Category::new("webhook", checks)
}

fn configuration(
    name: &'static str,
    kind: &str,
    found: &Reading<Vec<ClientCa>>,
    system: &str,
    now: Timestamp,
) -> Finding {
    let apply = "kubectl apply --server-side -k manifests/base";
    let entries = match found {
        Reading::Found(entries) if !entries.is_empty() => entries,
        Reading::Found(_) | Reading::Absent => {
            let message = format!(
                "there is no {kind} {WEBHOOK_CONFIGURATION}: pods are created without agents, and objects are not validated"
            );
            return Finding::failed(name, Reason::WebhookNotConfigured, message).with_mends(apply);
        }
        other => return Finding::gap(name, other.gap().unwrap_or(Gap::Absent)),
    };
    let logs = format!("kubectl logs -n {system} deployment/{WEBHOOK_CA}");
    let mut first_end = None;
    for ClientCa { webhook, pem } in entries {
        let Some(pem) = pem else {
            let message = format!(
                "{kind} {WEBHOOK_CONFIGURATION}: {webhook} has no caBundle, so that the API server cannot call the webhook"
            );
            return Finding::failed(name, Reason::CABundleMissing, message).with_mends(logs);
        };
        match latest_end(pem) {
            // During a rotation it has two: as long as one is valid the webhook may be.
            Some(end) if first_end.is_none_or(|first| end < first) => first_end = Some(end),
            Some(_) => {}
            None => {
                let message = format!(
                    "{kind} {WEBHOOK_CONFIGURATION}: the caBundle of {webhook} has no certificate that can be read"
                );
                return Finding::failed(name, Reason::CABundleMissing, message).with_mends(logs);
            }
        }
    }
    let Some(end) = first_end else { return Finding::skipped(name, "it has no entries") };
    let when = relative(end, now);
    if end <= now {
        let message = format!("the CA in {kind} {WEBHOOK_CONFIGURATION} expired {when}, at {end}");
        return Finding::failed(name, Reason::CABundleExpired, message).with_mends(logs);
    }
    if end < now + SOON {
        let message = format!("the CA in {kind} {WEBHOOK_CONFIGURATION} expires {when}, at {end}, and is not renewed");
        return Finding::warning(name, Reason::CABundleExpiring, message).with_mends(logs);
    }
    Finding::ok(name, format!("{kind} {WEBHOOK_CONFIGURATION} has a CA, which expires {when}"))
}

/// When the last of the certificates ends.
fn latest_end(pem: &[u8]) -> Option<Timestamp> {
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    let ends = blocks.filter_map(|block| {
        let certificate = block.parse_x509().ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    ends.max()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{ClientCa, Reading, configuration};
    use crate::output::Mark;

    /// Of a CA from 2026-11-27 until 2036-11-24.
    const PEM: &str = include_str!("test_ca.pem");

    fn result(pem: Option<&str>, now: &str) -> (Mark, Option<&'static str>) {
        let entries = vec![ClientCa { webhook: "a".to_owned(), pem: pem.map(|pem| pem.as_bytes().to_vec()) }];
        let now: Timestamp = now.parse().unwrap();
        let check = configuration("mutating", "kind", &Reading::Found(entries), "countersign-system", now);
        (check.mark, check.code())
    }

    #[test]
    fn a_ca_that_is_missing_expiring_or_expired_is_found() {
        assert_eq!(result(Some(PEM), "2030-01-01T00:00:00Z"), (Mark::Ok, None));
        assert_eq!(result(Some(PEM), "2036-11-22T00:00:00Z"), (Mark::Warning, Some("CS5023")));
        assert_eq!(result(Some(PEM), "2037-01-01T00:00:00Z"), (Mark::Failed, Some("CS5022")));
        assert_eq!(result(None, "2030-01-01T00:00:00Z"), (Mark::Failed, Some("CS5021")));
        assert_eq!(result(Some("nothing"), "2030-01-01T00:00:00Z"), (Mark::Failed, Some("CS5021")));
    }

    #[test]
    fn a_missing_configuration_fails() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let check = configuration("mutating", "kind", &Reading::Absent, "countersign-system", now);
        assert_eq!(check.code(), Some("CS5020"));
    }
}
