//! Pods that no `WorkloadIdentity` selects.

use countersign_e2e::fixture::PodSpec;

use super::{Case, Places, WELL, with_identity};

pub(super) fn cases(places: &Places<'_>) -> Vec<Case> {
    [accounts(places), labels(places), containers(places)].into_iter().flatten().collect()
}

fn accounts(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let named = places.identity(&shop, "orders", "serviceAccounts: [orders]", "");
    let misspelt = named + &PodSpec::hold("wrong-account").account("order").pod(&shop);
    let default = PodSpec::hold("default-account").account("default").pod(&shop);

    let entry = format!("{shop}/qualified");
    let qualified = places.identity(&shop, "qualified", &format!("serviceAccounts: ['{entry}']"), "");
    let qualified = qualified + &PodSpec::hold("qualified").pod(&shop);

    // The WorkloadIdentity is in another namespace than the pod.
    let fresh = places.namespace("fresh");
    let elsewhere = places.identity(&shop, "elsewhere", "serviceAccounts: [elsewhere]", "");
    let elsewhere = elsewhere + &PodSpec::hold("elsewhere").pod(&fresh);
    let proposed = format!("trustDomain: {}\n", places.world.trust_domain);

    // Two mistakes: the account is not selected, and the trust domain does not exist.
    let twice = places.identity_of("missing.example", &shop, "twice", "serviceAccounts: [twice]", "");
    let twice = twice + &PodSpec::hold("twice").account("twcie").pod(&shop);
    let reason = "ServiceAccountNotSelected";
    vec![
        Case::new(shop.clone(), "wrong-account", misspelt, reason).says("order").mend("orders"),
        Case::new(shop.clone(), "default-account", default, reason).mend("serviceAccountName"),
        Case::new(shop.clone(), "qualified", qualified, reason).mend(&entry),
        Case::new(shop, "twice", twice, reason).says("twcie"),
        Case::new(fresh, "elsewhere", elsewhere, "NoWorkloadIdentity").mend("kind: WorkloadIdentity").mend(&proposed),
    ]
}

fn labels(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let of = |namespace: &str, name: &str| {
        places.identity(namespace, name, &format!("serviceAccounts: [{name}], matchLabels: {{tier: backend}}"), "")
    };
    let value = PodSpec { labels: "tier: back-end", ..PodSpec::hold("label-value") };
    let on_deployment = PodSpec::hold("label-on-deployment").deployment(&shop, 1).replace(
        &format!("kind: Deployment\nmetadata: {{name: label-on-deployment, namespace: {shop}}}"),
        &format!(
            "kind: Deployment\nmetadata: {{name: label-on-deployment, namespace: {shop}, labels: {{tier: backend}}}}"
        ),
    );

    // A WorkloadIdentity that selects by labels alone is no mistake of pods that it was never meant for.
    let among = places.namespace("labels");
    let by_label = places.identity(&among, "a-label", "matchLabels: {app: a-label}", "");
    let host = PodSpec { more: "hostNetwork: true", ..PodSpec::hold("host-network") };
    vec![
        Case::new(shop.clone(), "label-value", of(&shop, "label-value") + &value.pod(&shop), "LabelsDiffer")
            .says("tier=backend")
            .mend("labels"),
        Case::new(
            shop.clone(),
            "deployment/label-on-deployment",
            of(&shop, "label-on-deployment") + &on_deployment,
            "LabelsDiffer",
        )
        .mend("template"),
        Case::new(among.clone(), "a-label", by_label + &PodSpec::hold("a-label").pod(&among), "LabelOnlyNotGranted")
            .mend("allowLabelOnly"),
        Case::new(
            among.clone(),
            "beside-label",
            PodSpec::hold("beside-label").pod(&among),
            "ServiceAccountNotSelected",
        ),
        Case::new(
            among.clone(),
            "own-label",
            of(&among, "own-label") + &PodSpec::hold("own-label").pod(&among),
            "LabelsDiffer",
        )
        .says("own-label")
        .mend("workloadidentity own-label"),
        Case::new(among.clone(), host.name, with_identity(places, &among, &host), WELL),
    ]
}

fn containers(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let case = |pod: &PodSpec<'_>, container: &str| {
        let selector = format!("serviceAccounts: [{}], containers: [{container}]", pod.name);
        let yaml = places.identity(&shop, pod.name, &selector, "") + &pod.pod(&shop);
        Case::new(shop.clone(), pod.name, yaml, "ContainerNotSelected")
    };
    let annotation = "countersign.dev/per-container: \"true\"";
    let misspelt =
        PodSpec { annotations: "countersign.dev/per-containers: 'true'", ..PodSpec::hold("misspelt-annotation") };
    let other = PodSpec { annotations: "countersign.dev/per-container: 'true'", ..PodSpec::hold("other-container") };
    let side = "- name: side
  image: countersign.local/demo:dev
  imagePullPolicy: IfNotPresent
  args: [hold]
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
    let one =
        PodSpec { annotations: "countersign.dev/per-container: 'true'", more: side, ..PodSpec::hold("one-of-two") };
    vec![
        case(&PodSpec::hold("no-annotation"), "app").mend(annotation),
        case(&misspelt, "app").mend(annotation),
        // The annotation is there: what is wrong is the name.
        case(&other, "application").says("application").mend("application"),
        case(&one, "side").says("container app").mend("workloadidentity one-of-two"),
    ]
}
