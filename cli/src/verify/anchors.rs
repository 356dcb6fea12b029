//! The bundles by which the input is verified: those of files, or those of a cluster.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use countersign_core::{
    bundle::{Bundle, BundleSet},
    id::TrustDomain,
    x509::CaCertificate,
};
use serde_json::Value;

use super::input::{Content, recognize};
use crate::{Options, bundles, finding::Finding};

/// What is trusted.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    pub(super) set: BundleSet,
    /// Bundles of the cluster that could not be had, and why.
    pub(super) problems: Vec<Finding>,
    /// Whether somebody asked for trust to be looked at.
    pub(super) are_given: bool,
}

impl Anchors {
    /// Bundles of files, each `FILE` or `TRUST-DOMAIN=FILE`; `trust_domain` is that of files that name none.
    pub(super) fn of_files(files: &[String], trust_domain: Option<&TrustDomain>) -> Result<Self> {
        let mut anchors = Self { are_given: !files.is_empty(), ..Self::default() };
        for argument in files {
            let (named, file) = match argument.split_once('=') {
                Some((name, file)) => (Some(name.parse().with_context(|| format!("--bundle {argument}"))?), file),
                None => (trust_domain.cloned(), argument.as_str()),
            };
            let bytes = fs::read(Path::new(file)).with_context(|| format!("reading {file}"))?;
            let bundle = bundle(named, &bytes).with_context(|| format!("--bundle {argument}"))?;
            anchors.set.insert(bundle).with_context(|| format!("--bundle {argument}"))?;
        }
        Ok(anchors)
    }

    /// The bundles that the workloads of a cluster are given; those of one trust domain alone if it is named.
    pub(super) async fn of_cluster(options: &Options, trust_domain: Option<&TrustDomain>) -> Result<Self> {
        let cluster = options.cluster().await?;
        let mut anchors = Self { are_given: true, ..Self::default() };
        for found in bundles::read(&cluster, None).await? {
            if trust_domain.is_some_and(|only| found.trust_domain != only.as_str()) {
                continue;
            }
            match found.bundle {
                Ok(bundle) => anchors.set.insert(bundle)?,
                Err(missing) => anchors.problems.push(missing.finding(&found.trust_domain)),
            }
        }
        if let Some(only) = trust_domain.filter(|only| anchors.set.get(only).is_none() && anchors.problems.is_empty()) {
            bail!("this cluster has no TrustDomain for {only}: see kubectl get trustdomains");
        }
        Ok(anchors)
    }
}

fn bundle(named: Option<TrustDomain>, bytes: &[u8]) -> Result<Bundle> {
    let recognized = recognize(bytes).map_err(anyhow::Error::msg)?;
    match recognized.content {
        Content::Certificates(ders) => {
            let trust_domain = whose(named, &ders)?;
            Ok(Bundle::from_x509_der(&trust_domain, &ders.concat())?)
        }
        Content::Document(document) => {
            let trust_domain = whose(named, &certificates_in(&document))?;
            Ok(Bundle::parse(&trust_domain, &document)?)
        }
        Content::Token(_) | Content::OnlyKeys => {
            bail!("it is no bundle: give a SPIFFE bundle document, or certificates in PEM")
        }
    }
}

fn whose(named: Option<TrustDomain>, ders: &[Vec<u8>]) -> Result<TrustDomain> {
    named
        .or_else(|| trust_domain_of(ders))
        .context("its authorities do not name one trust domain: say whose bundle it is with --bundle TRUST-DOMAIN=FILE")
}

/// The trust domain that certificates of authorities name, if all name the same one.
pub(super) fn trust_domain_of(ders: &[Vec<u8>]) -> Option<TrustDomain> {
    let mut names = ders.iter().map(|der| Some(CaCertificate::from_der(der).ok()?.spiffe_id()?.trust_domain().clone()));
    let first = names.next()??;
    names.all(|name| name.as_ref() == Some(&first)).then_some(first)
}

/// The certificates in a bundle document, as far as they can be read.
pub(super) fn certificates_in(document: &[u8]) -> Vec<Vec<u8>> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let keys = document.get("keys").and_then(Value::as_array).into_iter().flatten();
    let encoded = keys.filter_map(|key| key.pointer("/x5c/0")?.as_str());
    encoded
        .filter_map(|base64| {
            let block = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
            Some(pem::parse(block).ok()?.into_contents())
        })
        .collect()
}
