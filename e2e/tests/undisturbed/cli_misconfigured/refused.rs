//! Pods that are not created: the webhook or Kubernetes refuses them, or nothing makes them.

use countersign_e2e::fixture::PodSpec;

use super::{Case, Places, with_identity_deployed};

pub(super) fn cases(places: &Places<'_>) -> Vec<Case> {
    [by_the_webhook(places), by_kubernetes(places), nowhere(places)].into_iter().flatten().collect()
}

fn deployed(places: &Places<'_>, namespace: &str, pod: &PodSpec<'_>, reason: &'static str) -> Case {
    let yaml = with_identity_deployed(places, namespace, pod);
    Case::new(namespace.to_owned(), &format!("deployment/{}", pod.name), yaml, reason)
}

fn by_the_webhook(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let case = |pod: &PodSpec<'_>, reason| deployed(places, &shop, pod, reason);
    let label = |name, labels| PodSpec { labels, ..PodSpec::hold(name) };
    let annotated = |name, annotations| PodSpec { annotations, ..PodSpec::hold(name) };
    let volume =
        PodSpec { more: "volumes: [{name: countersign-identity, emptyDir: {}}]", ..PodSpec::hold("volume-taken") };
    let mount = PodSpec {
        container: "volumeMounts: [{name: own, mountPath: /run/countersign}]",
        more: "volumes: [{name: own, emptyDir: {}}]",
        ..PodSpec::hold("mount-taken")
    };
    let unknown = places.namespace("unknown");
    vec![
        case(&label("mode-true", "countersign.dev/inject: 'true'"), "UnknownMode").mend("sidecar"),
        case(&label("mode-node", "countersign.dev/inject: node"), "ModeNotOffered").mend("sidecar"),
        deployed(places, &unknown, &PodSpec::hold("namespace-true"), "NamespaceMode")
            .mend(&format!("kubectl label namespace {unknown}")),
        case(&annotated("hold-no", "countersign.dev/hold: 'no'"), "InvalidAnnotation").mend("annotation"),
        case(&annotated("container-main", "countersign.dev/containers: main"), "AnnotatedContainerUnknown")
            .mend("annotation"),
        case(&volume, "NameTaken").says("countersign-identity").mend("rename"),
        case(&mount, "MountTaken").says("/run/countersign").mend("elsewhere"),
    ]
}

fn by_kubernetes(places: &Places<'_>) -> Vec<Case> {
    let (shop, quota, limits) = (places.shop(), places.namespace("quota"), places.namespace("limits"));
    let case = |namespace: &str, pod: &PodSpec<'_>| deployed(places, namespace, pod, "PodNotCreated");
    let mut full = case(&quota, &PodSpec::hold("over-quota")).says("exceeded quota").mend("quota");
    full.yaml = format!(
        "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: none, namespace: {quota}}}\nspec: {{hard: {{pods: '0'}}}}\n{}",
        full.yaml
    );
    // The agent requests less than containers must.
    let mut small = case(&limits, &PodSpec::hold("agent-too-small")).says("minimum memory").mend("LimitRange");
    small.yaml = format!(
        "---
apiVersion: v1
kind: LimitRange
metadata: {{name: large, namespace: {limits}}}
spec: {{limits: [{{type: Container, min: {{memory: 64Mi}}, default: {{memory: 128Mi}}, defaultRequest: {{memory: 64Mi}}}}]}}
{}",
        small.yaml
    );
    let host = PodSpec { more: "hostNetwork: true", ..PodSpec::hold("host-refused") };
    let account = PodSpec::hold("no-account");
    let mut missing =
        case(&shop, &account).says("serviceaccount \"no-account\" not found").mend("serviceaccount no-account");
    missing.yaml = missing.yaml.replace(
        &format!("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: no-account, namespace: {shop}}}\n"),
        "",
    );
    vec![full, small, missing, case(&shop, &host).says("PodSecurity")]
}

fn nowhere(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let none = PodSpec::hold("no-replicas").deployment(&shop, 0);
    vec![
        Case::new(shop.clone(), "deployment/no-replicas", none, "PodNotFound").mend("replicas"),
        Case::new(shop.clone(), "no-such-pod", String::new(), "PodNotFound").mend("kubectl get pods"),
        // It is the beginning of the names of others.
        Case::new(shop.clone(), "no", String::new(), "PodNotFound").says("no pod no in"),
        Case::new(shop, "deployment/no-such-deployment", String::new(), "PodNotFound").says("no-such-deployment"),
    ]
}
