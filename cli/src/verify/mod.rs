//! `verify`: whose credential this is, whether it is acceptable, and whether it is trusted.

mod anchors;
mod authorities;
mod chain;
mod input;
mod report;
mod token;

#[cfg(test)]
mod tests;

use std::{fs, io, io::Read as _, path::PathBuf};

use anyhow::{Context as _, Result};
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_reasons::Reason;
use jiff::Timestamp;

use crate::{Options, Outcome, finding::Finding};
use anchors::Anchors;
use input::Content;
use report::{Report, Subject};

/// Say whose credential a file holds, and whether it is acceptable.
///
/// The file holds an X.509 certificate or chain, a JWT-SVID, a WIT-SVID, or a bundle. The answer is who it is, until when it is valid,
/// every rule that it breaks, and with --bundle or --cluster whether it is trusted. No cluster is asked unless --cluster is given.
/// Private keys in the input are never shown. Exit code 1 if it is not acceptable.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// PEM, DER, a token, or a bundle document; - reads standard input.
    file: PathBuf,
    /// Verify by this bundle, a SPIFFE bundle document or PEM; may be repeated.
    #[arg(long, value_name = "[TRUST-DOMAIN=]FILE", conflicts_with = "cluster")]
    bundle: Vec<String>,
    /// Verify by the bundles that the workloads of the cluster are given.
    #[arg(long)]
    cluster: bool,
    /// With --cluster: by the bundle of this trust domain alone. Otherwise: the trust domain of bundles that name none.
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// The audience that a JWT-SVID must be for.
    #[arg(long)]
    audience: Option<String>,
}

pub(crate) async fn run(args: Args, options: &Options) -> Result<Outcome> {
    let bytes = read(&args.file)?;
    let anchors = match args.cluster {
        true => Anchors::of_cluster(options, args.trust_domain.as_ref()).await?,
        false => Anchors::of_files(&args.bundle, args.trust_domain.as_ref())?,
    };
    let asked = Asked { anchors, trust_domain: args.trust_domain, audience: args.audience, now: Timestamp::now() };
    let source =
        if args.file.as_os_str() == "-" { "standard input".to_owned() } else { args.file.display().to_string() };
    let report = report(&source, &bytes, &asked);
    options.print(&report)?;
    Ok(if report.acceptable { Outcome::Well } else { Outcome::Problem })
}

/// What the input is held against.
#[derive(Debug)]
struct Asked {
    anchors: Anchors,
    trust_domain: Option<TrustDomain>,
    audience: Option<String>,
    now: Timestamp,
}

fn read(file: &PathBuf) -> Result<Vec<u8>> {
    if file.as_os_str() != "-" {
        return fs::read(file).with_context(|| format!("reading {}", file.display()));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(input::MAX_INPUT).unwrap_or(u64::MAX).saturating_add(1);
    io::stdin().take(most).read_to_end(&mut bytes).context("reading standard input")?;
    Ok(bytes)
}

fn report(source: &str, bytes: &[u8], asked: &Asked) -> Report {
    let (subject, mut findings) = match input::recognize(bytes) {
        Ok(recognized) => {
            let (subject, mut findings) = match &recognized.content {
                Content::Certificates(ders) => certificates(ders, asked),
                Content::Token(text) => token::examine(text, asked),
                Content::Document(document) => authorities::examine_document(document, asked),
                Content::OnlyKeys => (Subject::Nothing, vec![nothing_but_keys()]),
            };
            findings
                .extend(recognized.left_out.iter().map(|what| Finding::skipped("rest", format!("{what} is left out"))));
            findings.extend(private_keys(recognized.private_keys, &recognized.content));
            (subject, findings)
        }
        Err(what) => {
            let mend =
                "give a certificate or chain in PEM or DER, a token in compact form, or a SPIFFE bundle document";
            let finding = Finding::failed("input", Reason::InputUnrecognized, format!("it cannot be verified: {what}"));
            (Subject::Nothing, vec![finding.with_mend(mend)])
        }
    };
    let own = subject.trust_domain();
    let concerns = |problem: &&Finding| own.as_ref().is_none_or(|own| problem.about == *own);
    findings.extend(asked.anchors.problems.iter().filter(concerns).cloned());
    Report { source: source.to_owned(), acceptable: !findings.iter().any(Finding::has_failed), subject, findings }
}

/// Authorities alone are a bundle; anything else is a chain, leaf first.
fn certificates(ders: &[Vec<u8>], asked: &Asked) -> (Subject, Vec<Finding>) {
    let mut read = Vec::new();
    for (der, position) in ders.iter().zip(1..) {
        match countersign_core::x509::CertificateClaims::from_der(der) {
            Ok(claims) => read.push(claims),
            Err(error) => {
                let message = format!("certificate {position} of {}: {error}", ders.len());
                return (Subject::Nothing, vec![Finding::failed("input", Reason::InputUnrecognized, message)]);
            }
        }
    }
    // The id of an authority is that of its trust domain: one with a path claims to be a workload.
    let claims_a_path = |uri: &String| uri.parse().is_ok_and(|id: SpiffeId| !id.path().is_empty());
    if read.iter().all(|claims| claims.is_ca && !claims.uris.iter().any(claims_a_path)) {
        authorities::examine_certificates(ders, &read, asked)
    } else {
        chain::examine(ders, &read, asked)
    }
}

fn nothing_but_keys() -> Finding {
    let message = "it holds a private key and nothing to verify".to_owned();
    Finding::failed("input", Reason::InputUnrecognized, message)
        .with_mend("give the certificate or token that goes with the key, never the key")
}

fn private_keys(count: usize, content: &Content) -> Option<Finding> {
    let what = match count {
        0 => return None,
        1 => "a private key, which is not shown".to_owned(),
        count => format!("{count} private keys, which are not shown"),
    };
    Some(match content {
        Content::Document(_) => {
            let message = format!("it holds {what}: anybody who has read this bundle can sign for its trust domain");
            Finding::failed("private key", Reason::PrivateKeyFound, message)
                .with_mend("remove the key from the bundle, and have its owner revoke the authority")
        }
        _ => {
            let message = format!("it holds {what}: anybody who reads this file can act as its owner");
            Finding::warning("private key", Reason::PrivateKeyFound, message)
                .with_mend("keep it readable by its owner alone, and out of tickets and repositories")
        }
    })
}
