//! The bundle of one trust domain, for other programs.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    Options, Outcome, bundles,
    output::{self, Format},
};

/// Print the bundle of a trust domain.
///
/// As a SPIFFE bundle document, or as PEM. Of a remote trust domain it is the one that workloads are given. Exit code 2 if there is none.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The TrustDomain, or the trust domain.
    name: String,
    /// The bundle document has every kind of authority; PEM has those of X.509-SVIDs alone.
    #[arg(long, value_enum, default_value_t = As::Spiffe)]
    format: As,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum As {
    /// A SPIFFE bundle document, JSON.
    Spiffe,
    /// Certificates.
    Pem,
}

pub(crate) async fn run(Args { name, format }: Args, options: &Options) -> Result<Outcome> {
    if format == As::Pem && options.output != Format::Text {
        bail!("--format pem is text: leave --output out");
    }
    let cluster = options.cluster().await?;
    let found = bundles::read(&cluster, Some(&name)).await?;
    let found = found.into_iter().next();
    let found =
        found.with_context(|| format!("there is no TrustDomain {name}: see kubectl countersign bundle show"))?;
    let bundle = match found.bundle {
        Ok(bundle) => bundle,
        Err(missing) => bail!("trust domain {}: {missing}", found.trust_domain),
    };
    match format {
        As::Pem if bundle.x509_authorities.is_empty() => {
            bail!("the bundle of {} has no X.509 authority: export it as --format spiffe", found.trust_domain)
        }
        As::Pem => output::print_text(&bundle.x509_pem()),
        As::Spiffe => {
            let document: Value = serde_json::from_slice(&bundle.to_json()).context("the bundle document")?;
            let text = match options.output {
                Format::Text | Format::Json => serde_json::to_string_pretty(&document)? + "\n",
                Format::Yaml => serde_saphyr::to_string(&document).context("writing YAML")?,
            };
            output::print_text(&text);
        }
    }
    Ok(Outcome::Well)
}
