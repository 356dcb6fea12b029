//! `rotate`, `taint` and `revoke`: each sets a field of a TrustDomain, as a commit to its manifest would, and follows what the operator
//! makes of it.

mod apply;
mod effects;
mod names;
mod plan;
mod progress;
mod report;

use anyhow::Result;
use countersign_crds::Lifetime;

use crate::{Options, Outcome};
use apply::Following;
use plan::Request;

/// Replace every authority of a trust domain.
///
/// Successors are published first, and sign once every workload knows them: no credential and no connection is lost. Sets
/// spec.authority.rotation.after of the TrustDomain. Exit code 1 if it is not complete in time.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateArgs {
    /// The TrustDomain, or the trust domain.
    trust_domain: String,
    #[command(flatten)]
    how: How,
}

/// Stop trusting authorities once what they signed is renewed.
///
/// They sign nothing any more, workloads renew what they signed, and then they leave the bundle. Adds to spec.authority.tainted of the
/// TrustDomain. Exit code 1 if it is not complete in time.
#[derive(Debug, clap::Args)]
pub(crate) struct TaintArgs {
    /// The TrustDomain, or the trust domain.
    trust_domain: String,
    /// Authorities by id or by subject key id, as bundle show and status.authorities have them.
    #[arg(required = true, value_name = "AUTHORITY")]
    authorities: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Stop trusting authorities at once, because their keys have leaked.
///
/// They leave the bundle at once, and what they signed is refused by everyone who has the new bundle. Adds to spec.authority.revoked of
/// the TrustDomain; it cannot be undone. Exit code 1 if it is not complete in time.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// The TrustDomain, or the trust domain.
    trust_domain: String,
    /// Authorities by id or by subject key id, as bundle show and status.authorities have them.
    #[arg(required = true, value_name = "AUTHORITY")]
    authorities: Vec<String>,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

/// What the three have in common.
#[derive(Debug, clap::Args)]
struct How {
    /// Say what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Return once it is requested.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait until the last pod has acknowledged it.
    #[arg(long, default_value = "15m", value_name = "SPAN")]
    timeout: Lifetime,
}

pub(crate) async fn rotate(args: RotateArgs, options: &Options) -> Result<Outcome> {
    carry_out(&args.trust_domain, &Request::Rotate, &args.how, true, options).await
}

pub(crate) async fn taint(args: TaintArgs, options: &Options) -> Result<Outcome> {
    carry_out(&args.trust_domain, &Request::Taint(args.authorities), &args.how, true, options).await
}

pub(crate) async fn revoke(args: RevokeArgs, options: &Options) -> Result<Outcome> {
    carry_out(&args.trust_domain, &Request::Revoke(args.authorities), &args.how, args.yes, options).await
}

async fn carry_out(name: &str, request: &Request, how: &How, is_confirmed: bool, options: &Options) -> Result<Outcome> {
    let following = match (how.dry_run, how.no_wait) {
        (true, _) => Following::DryRun,
        (false, true) => Following::Requested,
        (false, false) => Following::Complete { timeout: how.timeout.duration() },
    };
    let cluster = options.cluster().await?;
    let report = apply::run(&cluster, name, request, following, is_confirmed).await?;
    options.print(&report)?;
    Ok(if report.is_well() { Outcome::Well } else { Outcome::Problem })
}
