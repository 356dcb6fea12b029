//! The state a session is told: who its pod is and whom it trusts, composed of what is published.

use countersign_reasons::Reason;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use countersign_core::{
    entitlement::{Entitled, PathPattern},
    federation::fitting_stream,
    id::TrustDomain,
};
use countersign_proto::issuer::v1;
use tokio::sync::watch;

use crate::published::Published;
use countersign_index::{Entitlement, SharedIndex};

/// Notifies every session of what the authorities publish, for as long as the process lives.
pub async fn notify_sessions(mut published: watch::Receiver<Arc<Published>>, index: SharedIndex) {
    while published.changed().await.is_ok() {
        published.mark_unchanged();
        index.notify_sessions();
    }
    std::future::pending::<()>().await;
}

/// The whole state, its generation still 0. Identities whose trust domain has no authority yet are held back: their
/// holder could do nothing with them.
#[must_use]
pub fn compose(entitlement: &Entitlement, published: &Published) -> v1::State {
    let mut state = v1::State { control_plane_roots: published.control_plane_roots.clone(), ..v1::State::default() };
    let entitled = match entitlement {
        Entitlement::Entitled(entitled) => entitled,
        Entitlement::None(absence) => {
            state.reason = absence.reason.with_code(&absence.message);
            return state;
        }
        Entitlement::Gone => {
            "the pod does not exist or has ended".clone_into(&mut state.reason);
            return state;
        }
    };
    let (served, waiting): (Vec<_>, Vec<_>) =
        entitled.iter().partition(|one| published.signers.contains_key(one.id.trust_domain()));
    state.bundles = bundles(&served, published);
    state.identities = served.iter().map(|entitled| identity(entitled, published)).collect();
    state.renewal = served.iter().map(|entitled| entitled.renewal).max().unwrap_or(0);
    if let (true, Some(first)) = (served.is_empty(), waiting.first()) {
        state.reason = Reason::AuthorityNotReady.with_code(&format!(
            "the authority of trust domain {} is not there yet; the conditions of TrustDomain {} say why",
            first.id.trust_domain(),
            first.domain.name
        ));
    }
    state
}

fn identity(entitled: &Entitled, published: &Published) -> v1::Identity {
    let spec = &entitled.identity;
    let foreign = entitled.federates_with().filter(|(name, _)| published.bundles.contains_key(*name));
    let signers = published.signers.get(entitled.id.trust_domain());
    v1::Identity {
        spiffe_id: entitled.id.to_string(),
        hint: entitled.hint.clone().unwrap_or_default(),
        x509_ttl: seconds(entitled.x509_ttl()),
        jwt_audiences: spec.jwt.audiences.iter().map(ToString::to_string).collect(),
        jwt_ttl: seconds(entitled.jwt_ttl()),
        wit_ttl: entitled.wit_ttl().map_or(0, seconds),
        wit_export_key: spec.wit.is_some_and(|wit| wit.export_key),
        federates_with: foreign.map(|(name, _)| name.to_string()).collect(),
        tainted_authorities: signers.map(|signers| signers.tainted.clone()).unwrap_or_default(),
        tainted_key_ids: signers.map(|signers| signers.tainted_key_ids.clone()).unwrap_or_default(),
        dns_names: Some(v1::DnsNames { names: entitled.dns_names.clone() }),
    }
}

/// Of the identities' own trust domains, and of the foreign ones to whose bundles all have consented, as far as they are known
/// here and fit into one State.
fn bundles(served: &[&Entitled], published: &Published) -> Vec<v1::Bundle> {
    let own: BTreeSet<&TrustDomain> = served.iter().map(|entitled| entitled.id.trust_domain()).collect();
    let foreign: BTreeMap<_, _> = served.iter().flat_map(|entitled| entitled.federates_with()).collect();
    let bundle = |name: &TrustDomain, patterns: &[PathPattern]| {
        let bundle = published.bundles.get(name)?;
        let signers = published.signers.get(name);
        Some(v1::Bundle {
            trust_domain: name.to_string(),
            document: bundle.document.clone(),
            sequence: bundle.sequence,
            path_patterns: patterns.iter().map(ToString::to_string).collect(),
            jwt_issuer: signers.and_then(|signers| signers.jwt_issuer.clone()).unwrap_or_default(),
        })
    };
    let foreign = foreign.into_iter().filter(|(name, _)| !own.contains(name));
    let (local, remote): (Vec<_>, Vec<_>) = foreign.partition(|(name, _)| published.signers.contains_key(*name));
    let lengths = remote.iter().filter_map(|(name, _)| Some((published.bundles.get(*name)?.document.len(), *name)));
    let fitting = fitting_stream(lengths);
    let own = own.into_iter().map(|name| (name, &[][..]));
    let foreign = local.into_iter().chain(remote.iter().copied().filter(|(name, _)| fitting.contains(name)));
    let all = own.chain(foreign.map(|(name, patterns)| (name, &**patterns)));
    let mut bundles: Vec<_> = all.filter_map(|(name, patterns)| bundle(name, patterns)).collect();
    bundles.sort_by(|one, other| one.trust_domain.cmp(&other.trust_domain));
    bundles
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use countersign_core::{
        entitlement::{
            DomainKind, DomainSpec, Foreign, IdentitySpec, JwtSpec, LifetimeBounds, PathTemplate, Selector, X509Spec,
        },
        id::SpiffeId,
    };
    use jiff::Timestamp;

    use super::*;
    use crate::published::{DomainSigners, PublishedBundle};

    /// A pod of example.org whose identity has all consents to these trust domains.
    fn entitled(foreign: &[&str]) -> Entitlement {
        let trust_domain: TrustDomain = "example.org".parse().unwrap();
        let bounds = LifetimeBounds { default: Duration::from_secs(60), longest: Duration::from_secs(60) };
        let domain = DomainSpec {
            trust_domain: trust_domain.clone(),
            name: "example.org".to_owned(),
            uid: "u".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            kind: DomainKind::Local,
            cluster: String::new(),
            x509: bounds,
            jwt: bounds,
            wit: None,
            grants: Vec::new(),
        };
        let identity = IdentitySpec {
            namespace: "shop".to_owned(),
            name: "cart".to_owned(),
            uid: "u".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            trust_domain: trust_domain.clone(),
            selector: Selector::default(),
            path: PathTemplate::default(),
            x509: X509Spec::default(),
            jwt: JwtSpec::default(),
            wit: None,
            federates_with: Vec::new(),
            hint: None,
        };
        let consent = |name: &&str| Foreign {
            trust_domain: name.parse().unwrap(),
            consent: Ok(["/ns/*/sa/api".parse().unwrap()].into()),
        };
        Entitlement::Entitled(vec![Entitled {
            identity: Arc::new(identity),
            domain: Arc::new(domain),
            id: SpiffeId::new(&trust_domain, "/a").unwrap(),
            dns_names: Vec::new(),
            hint: None,
            foreign: foreign.iter().map(consent).collect(),
            renewal: 0,
        }])
    }

    /// With bundles of so many KiB; of the first alone the authority is here.
    fn published(bundles: &[(&str, usize)]) -> Published {
        let bundle = |(name, kib): &(&str, usize)| {
            let bundle = PublishedBundle { document: vec![b' '; kib * 1024].into(), sequence: 1 };
            (name.parse().unwrap(), Arc::new(bundle))
        };
        let signers = DomainSigners {
            x509: None,
            jwt: None,
            wit: None,
            jwt_issuer: Some("https://id.example.org".to_owned()),
            tainted: Vec::new(),
            tainted_key_ids: Vec::new(),
        };
        Published {
            bundles: bundles.iter().map(bundle).collect(),
            signers: [(bundles[0].0.parse().unwrap(), Arc::new(signers))].into(),
            ..Published::default()
        }
    }

    fn names(state: &v1::State) -> Vec<&str> {
        state.bundles.iter().map(|bundle| bundle.trust_domain.as_str()).collect()
    }

    /// R50: a peer with a long bundle pushes out neither the own bundle nor a short one.
    #[test]
    fn foreign_bundles_beyond_what_one_stream_is_sent_are_left_out_and_never_the_own_one() {
        let bundles = [("example.org", 600), ("a.org", 1), ("b.org", 400), ("c.org", 128)];
        let state = compose(&entitled(&["a.org", "b.org", "c.org"]), &published(&bundles));
        assert_eq!(names(&state), ["a.org", "c.org", "example.org"]);
    }

    /// R48: what no consent is given to is not sent, and what is sent carries the accepted paths.
    #[test]
    fn a_stream_is_sent_the_bundles_that_all_consent_to_with_the_accepted_paths() {
        let bundles = [("example.org", 1), ("a.org", 1), ("b.org", 1)];
        let state = compose(&entitled(&["a.org", "gone.org"]), &published(&bundles));
        assert_eq!(names(&state), ["a.org", "example.org"]);
        assert_eq!(state.identities[0].federates_with, ["a.org"]);
        assert_eq!(state.bundles[0].path_patterns, ["/ns/*/sa/api"]);
        assert_eq!(state.bundles[1].path_patterns, [""; 0]);
        assert_eq!(state.bundles[1].jwt_issuer, "https://id.example.org");
    }
}
