//! Finds TrustDomains by either of their names.

use anyhow::{Context as _, Result, bail};
use countersign_crds::TrustDomain;
use kube::{Api, ResourceExt};

use crate::{access::required, cluster::Cluster, reading::Right};

const RESOURCE: &str = "trustdomains.countersign.dev";

/// The TrustDomain of this name, or the one for the trust domain of this name.
pub(crate) async fn find(cluster: &Cluster, name: &str) -> Result<TrustDomain> {
    let domains: Api<TrustDomain> = Api::all(cluster.client.clone());
    let found = domains.get_opt(name).await.with_context(|| format!("reading TrustDomain {name}"));
    let found = required(found, &Right::new("get", RESOURCE, None))?;
    if let Some(found) = found {
        return Ok(found);
    }
    let all: Vec<TrustDomain> = required(cluster.list().await, &Right::new("list", RESOURCE, None))?;
    let mut named: Vec<&TrustDomain> = all.iter().filter(|one| one.trust_domain_name() == name).collect();
    match (named.pop(), named.is_empty()) {
        (Some(found), true) => Ok(found.clone()),
        (Some(found), false) => {
            bail!("several TrustDomains are for {name}: name one by its object, such as {}", found.name_any())
        }
        (None, _) => {
            let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            bail!("there is no TrustDomain {name}; there are: {names}")
        }
    }
}
