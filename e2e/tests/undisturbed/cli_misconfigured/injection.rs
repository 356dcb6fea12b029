//! Pods without an agent: labels that are missing, misspelt, too late or on another object.

use countersign_e2e::fixture::PodSpec;

use super::{Case, Places, with_identity, with_identity_deployed};

pub(super) fn cases(places: &Places<'_>) -> Vec<Case> {
    let bare = places.namespace("bare");
    let in_bare =
        |pod: &PodSpec<'_>, reason| Case::new(bare.clone(), pod.name, with_identity(places, &bare, pod), reason);
    let unlabelled = PodSpec::hold("unlabelled");
    let key = PodSpec { labels: "countersign.dev/injet: sidecar", ..PodSpec::hold("misspelt-key") };
    let annotation = PodSpec { annotations: "countersign.dev/inject: sidecar", ..PodSpec::hold("as-annotation") };

    let misspelt = places.namespace("misspelt");
    let late = places.namespace("late");
    let shop = places.shop();
    let out = PodSpec { labels: "countersign.dev/inject: 'false'", ..PodSpec::hold("opted-out") };

    // The label of the Deployment is not that of its pods.
    let on_deployment = with_identity_deployed(places, &bare, &PodSpec::hold("on-deployment"));
    let on_deployment = on_deployment.replace(
        &format!("kind: Deployment\nmetadata: {{name: on-deployment, namespace: {bare}}}"),
        &format!(
            "kind: Deployment\nmetadata: {{name: on-deployment, namespace: {bare}, labels: {{countersign.dev/inject: sidecar}}}}"
        ),
    );
    vec![
        in_bare(&unlabelled, "NotAsked").mend(&format!("kubectl label namespace {bare}")).mend("again"),
        in_bare(&key, "NotAsked").mend("countersign.dev/injet"),
        in_bare(&annotation, "NotAsked").mend("annotation"),
        Case::new(bare.clone(), "deployment/on-deployment", on_deployment, "NotAsked").mend("template"),
        Case::new(
            misspelt.clone(),
            "misspelt-label",
            with_identity(places, &misspelt, &PodSpec::hold("misspelt-label")),
            "NotAsked",
        )
        .mend("countersign.dev/injects"),
        Case::new(late.clone(), "too-early", with_identity(places, &late, &PodSpec::hold("too-early")), "NotInjected")
            .mend("again"),
        // Of a pod without a template, nothing else makes another.
        Case::new(shop.clone(), out.name, with_identity(places, &shop, &out), "OptedOut")
            .mend("countersign.dev/inject")
            .mend("again"),
        // Two mistakes: there is no WorkloadIdentity either.
        Case::new(bare.clone(), "nothing-right", PodSpec::hold("nothing-right").pod(&bare), "NotAsked")
            .mend("kubectl label namespace"),
    ]
}
