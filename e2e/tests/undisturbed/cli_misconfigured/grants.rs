//! `WorkloadIdentities` that select the pod and are refused, or give less than they ask for.

use countersign_e2e::fixture::PodSpec;

use super::{ANY, Case, Places, with_identity};

pub(super) fn cases(places: &Places<'_>) -> Vec<Case> {
    [trust_domains(places), claims(places), less(places)].into_iter().flatten().collect()
}

/// A pod with an identity that has these additional fields.
fn case(places: &Places<'_>, name: &str, more: &str, reason: &'static str) -> Case {
    let shop = places.shop();
    let identity = places.identity(&shop, name, &format!("serviceAccounts: [{name}]"), more);
    let yaml = identity + &PodSpec::hold(name).pod(&shop);
    Case::new(shop, name, yaml, reason)
}

fn trust_domains(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let own = &places.world.trust_domain;
    let of = |trust_domain: &str, namespace: &str, name: &str, reason| {
        let identity = places.identity_of(trust_domain, namespace, name, &format!("serviceAccounts: [{name}]"), "");
        Case::new(namespace.to_owned(), name, identity + &PodSpec::hold(name).pod(namespace), reason)
    };
    let stray = places.namespace("stray");
    // A second TrustDomain for the same trust domain has no effect.
    let mut twin = of(&places.trust_domain("twin"), &shop, "domain-twin", "Duplicate").mend(own);
    twin.yaml = format!(
        "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {}}}
spec: {{trustDomain: {own}, authority: {{}}, grants: [{{namespaces: {{matchNames: [{shop}]}}, paths: ['/ns/{{namespace}}/**']}}]}}
{}",
        places.trust_domain("twin"),
        twin.yaml
    );
    vec![
        twin,
        of(&format!("{own}x"), &shop, "domain-misspelt", "NoTrustDomain").mend(own).mend("kubectl replace --force"),
        // Objects are named, not the trust domains for which they are.
        of(&places.trust_domain("named"), &shop, "domain-of-object", "NoTrustDomain")
            .mend(&places.trust_domain("object")),
        of(&format!("spiffe://{own}"), &places.namespace("unreadable"), "domain-with-scheme", "NoTrustDomain")
            .mend(own),
        of(&places.trust_domain("partner"), &shop, "domain-remote", "RemoteTrustDomain").mend("spec.authority"),
        of(&places.trust_domain("empty"), &shop, "domain-empty", "NotGranted").mend("kubectl patch trustdomain empty."),
        of(own, &stray, "namespace-stray", "NotGranted").mend(&format!("\"matchNames\":[\"{stray}\"]")),
    ]
}

fn claims(places: &Places<'_>) -> Vec<Case> {
    let case = |name: &str, more: &str, reason| case(places, name, more, reason);
    let lifetime = "LifetimeTooLong";
    vec![
        case("path-other", "path: /orders", "NotGranted").says("/orders").mend("\"paths\":[\"/orders\"]"),
        case("name-other", "x509: {dnsNames: [orders.example.org]}", "NotGranted")
            .mend("\"dnsNames\":[\"orders.example.org\"]"),
        case("audience-other", "jwt: {audiences: ['https://orders.example']}", "NotGranted")
            .mend("\"audiences\":[\"https://orders.example\"]"),
        // One grant has the path, another the audience.
        case("audience-apart", "jwt: {audiences: [billing.example]}", "NotGranted")
            .mend("\"audiences\":[\"billing.example\"]"),
        // Two mistakes.
        case("name-and-ttl", "x509: {dnsNames: [orders.example.org], ttl: 24h}", "NotGranted")
            .mend("orders.example.org"),
        case("ttl-certificate", "x509: {ttl: 24h}", lifetime).says("X509-SVID").mend("ttl"),
        case("ttl-token", "jwt: {ttl: 1h, audiences: [orders.example]}", lifetime).says("JWT-SVID").mend("ttl"),
        case("path-reserved", "path: '/countersign/{namespace}'", "Reserved").mend("first segment"),
        case("path-cluster", "path: '/{cluster}/{namespace}/x'", "NoClusterName").mend("--cluster-name"),
        case("path-taken", "path: '/ns/{namespace}/taken'", "Conflict").says("holder").mend("spec.path"),
    ]
}

/// The pod has an identity, and not all that its owner expects.
fn less(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let case = |name: &str, more: &str, reason| case(places, name, more, reason);
    let federation =
        |name: &str, with: &str, reason| case(name, &format!("federatesWith: ['{with}']"), reason).mend(with).warns();
    let side = "- name: side
  image: countersign.local/demo:dev
  imagePullPolicy: IfNotPresent
  args: [hold]
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
    let left_out = PodSpec { annotations: "countersign.dev/containers: side", more: side, ..PodSpec::hold("left-out") };
    let env = "env: [{name: SPIFFE_ENDPOINT_SOCKET, value: 'unix:///run/spire/agent.sock'}]";
    let socket = PodSpec { container: env, ..PodSpec::hold("other-socket") };
    let mount =
        "volumeMounts: [{name: countersign-identity, mountPath: /etc/tls, subPath: credentials, readOnly: true}]";
    let sub_path = PodSpec { container: mount, ..PodSpec::hold("sub-path") };
    // One WorkloadIdentity is granted, another for the same account is not.
    let half = PodSpec::hold("half-granted");
    let refused = places.identity(&shop, "half-refused", "serviceAccounts: [half-granted]", "path: /orders");
    let half_yaml = refused + &with_identity(places, &shop, &half);
    let pod = |pod: &PodSpec<'_>, reason| Case::new(shop.clone(), pod.name, with_identity(places, &shop, pod), reason);
    vec![
        case("name-taken", "path: '/front/{namespace}'\nx509: {dnsNames: [front.test]}", "ClaimedByAnother")
            .mend("front")
            .warns(),
        federation("federation-other", "other.example", "FederationNotGranted").mend("federatesWith"),
        federation("federation-missing", "missing.example", "NoRemoteTrustDomain").mend("spec.remote"),
        federation("federation-closed", &places.trust_domain("elsewhere"), "NamespaceNotAdmitted")
            .mend("spec.remote.namespaces"),
        federation("federation-empty", &places.trust_domain("partner"), "NoBundle"),
        Case::new(shop.clone(), half.name, half_yaml, "NotGranted").says("half-refused").warns(),
        case("no-proofs", "wit: {}", "NoWITAuthority").mend("wit: {}").warns(),
        pod(&sub_path, "SubPathMount").mend("/run/countersign").warns(),
        // The application finds no identity, although its pod has one.
        pod(&left_out, ANY).mend("countersign.dev/containers").mend("app"),
        pod(&socket, ANY).mend("SPIFFE_ENDPOINT_SOCKET"),
    ]
}
