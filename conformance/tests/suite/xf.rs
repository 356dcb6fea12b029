//! XF: peers of federated trust domains, in both roles.

use crate::support::authority::Authority;
use crate::support::env::{Env, FEDERATED, case};
use crate::support::failure::{Verdict, control};
use crate::support::role::Role;

#[tokio::test]
async fn xf_1_server_accepts_a_peer_of_a_federated_trust_domain() -> Verdict {
    accepts_federated(Role::Server).await
}

#[tokio::test]
async fn xf_1_client_accepts_a_peer_of_a_federated_trust_domain() -> Verdict {
    accepts_federated(Role::Client).await
}

async fn accepts_federated(role: Role) -> Verdict {
    case(async |env| {
        let federated = federate(env).await?;
        role.accepts(env, &federated.issue(&federated.id("/xf-1"))).await
    })
    .await
}

#[tokio::test]
async fn xf_2_server_does_not_merge_bundles() -> Verdict {
    keeps_bundles_apart(Role::Server).await
}

#[tokio::test]
async fn xf_2_client_does_not_merge_bundles() -> Verdict {
    keeps_bundles_apart(Role::Client).await
}

/// Each of the two chains verifies by a bundle that the client has, but not by that of its own SPIFFE ID.
async fn keeps_bundles_apart(role: Role) -> Verdict {
    case(async |env| {
        let federated = federate(env).await?;
        role.control(env).await?;
        control(role.accepts(env, &federated.issue(&federated.id("/control"))).await)?;
        role.rejects(env, &env.own.issue(&federated.id("/xf-2"))).await?;
        role.rejects(env, &federated.issue(&env.own.id("/xf-2"))).await
    })
    .await
}

#[tokio::test]
async fn xf_3_server_does_not_trust_a_trust_domain_that_was_left_out() -> Verdict {
    forgets_federated(Role::Server).await
}

#[tokio::test]
async fn xf_3_client_does_not_trust_a_trust_domain_that_was_left_out() -> Verdict {
    forgets_federated(Role::Client).await
}

async fn forgets_federated(role: Role) -> Verdict {
    case(async |env| {
        let federated = federate(env).await?;
        let peer = federated.issue(&federated.id("/xf-3"));
        control(role.accepts(env, &peer).await)?;
        env.apply_bundles(&[&env.own], &[]).await?;
        role.control(env).await?;
        role.rejects(env, &peer).await
    })
    .await
}

/// The client has the bundle of a second trust domain.
async fn federate(env: &Env) -> Verdict<Authority> {
    let federated = Authority::new(FEDERATED);
    env.apply_bundles(&[&env.own], &[&federated]).await?;
    Ok(federated)
}
