//! Service meshes: the agent's connection to the issuer must bypass the mesh's sidecar, which starts after the agent and waits
//! for it. Annotations of the mesh exclude the connection from redirection; values set by the user are kept and extended.

use std::net::SocketAddr;

use serde_json::Value;

use super::pod_fields::{annotation, label, list, name};
use crate::control_plane::Settings;

/// A mesh that puts sidecars into pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mesh {
    /// Istio with sidecars. Its ambient mode needs nothing.
    Istio,
    /// Linkerd.
    Linkerd,
}

/// The annotations that exclude the agent's connection from the meshes that the pod is marked for, or that are listed in
/// `everywhere`. They include the user's values. Empty if the issuer has no IP address.
pub(super) fn annotations(pod: &Value, everywhere: &[Mesh], settings: &Settings) -> Vec<(&'static str, String)> {
    let Ok(issuer) = settings.issuer.parse::<SocketAddr>() else { return vec![] };
    [Mesh::Istio, Mesh::Linkerd]
        .into_iter()
        .filter(|mesh| mesh.is_marked(pod).unwrap_or_else(|| everywhere.contains(mesh)))
        .filter_map(|mesh| {
            let (key, ours) = mesh.exclusion(issuer);
            appended(annotation(pod, key).unwrap_or_default(), &ours).map(|value| (key, value))
        })
        .collect()
}

impl Mesh {
    /// Whether the pod is marked as in or out of the mesh; `None` without a mark, since its namespace may be in it.
    fn is_marked(self, pod: &Value) -> Option<bool> {
        let value = |key: &str| label(pod, key).or(annotation(pod, key));
        let (inject, marks, proxy) = match self {
            Self::Istio => {
                (value("sidecar.istio.io/inject"), ["istio.io/rev", "sidecar.istio.io/status"], "istio-proxy")
            }
            Self::Linkerd => (
                value("linkerd.io/inject"),
                ["linkerd.io/proxy-version", "linkerd.io/control-plane-ns"],
                "linkerd-proxy",
            ),
        };
        match inject {
            Some("false" | "disabled") => return Some(false),
            Some("true" | "enabled" | "ingress") => return Some(true),
            _ => {}
        }
        let has_proxy = ["/spec/initContainers", "/spec/containers"]
            .iter()
            .any(|pointer| list(pod, pointer).iter().any(|container| name(container) == proxy));
        (has_proxy || marks.iter().any(|mark| value(mark).is_some())).then_some(true)
    }

    /// The annotation and the value to add. Istio accepts an address, so that the application's own connections to that port
    /// stay in the mesh; Linkerd accepts only a port.
    fn exclusion(self, issuer: SocketAddr) -> (&'static str, String) {
        match self {
            Self::Istio => {
                let bits = if issuer.is_ipv4() { 32 } else { 128 };
                ("traffic.sidecar.istio.io/excludeOutboundIPRanges", format!("{}/{bits}", issuer.ip()))
            }
            Self::Linkerd => ("config.linkerd.io/skip-outbound-ports", issuer.port().to_string()),
        }
    }
}

/// The list with `new` appended; `None` if it is there already.
fn appended(list: &str, new: &str) -> Option<String> {
    let mut items = list.split(',').map(str::trim).filter(|item| !item.is_empty()).peekable();
    if items.peek().is_none() {
        return Some(new.to_owned());
    }
    (!items.any(|item| item == new || item == "*")).then(|| format!("{},{new}", list.trim_end_matches([',', ' '])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(issuer: &str) -> Settings {
        let text = String::new;
        Settings {
            roots: text(),
            issuer: issuer.to_owned(),
            issuer_name: text(),
            audience: text(),
            cluster_name: String::new(),
        }
    }

    fn keys(metadata: Value, everywhere: &[Mesh]) -> Vec<&'static str> {
        let pod = json!({ "metadata": metadata, "spec": {} });
        annotations(&pod, everywhere, &settings("10.0.0.1:8443")).into_iter().map(|(key, _)| key).collect()
    }

    const ISTIO: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
    const LINKERD: &str = "config.linkerd.io/skip-outbound-ports";

    #[test]
    fn a_pod_that_shows_a_mesh_is_kept_out_of_its_way() {
        for mark in [
            json!({ "labels": { "sidecar.istio.io/inject": "true" } }),
            json!({ "labels": { "istio.io/rev": "canary" } }),
            json!({ "annotations": { "sidecar.istio.io/status": "{}" } }),
        ] {
            assert_eq!(keys(mark.clone(), &[]), [ISTIO], "{mark}");
        }
        for mark in [
            json!({ "annotations": { "linkerd.io/inject": "enabled" } }),
            json!({ "annotations": { "linkerd.io/inject": "ingress" } }),
            json!({ "labels": { "linkerd.io/control-plane-ns": "linkerd" } }),
        ] {
            assert_eq!(keys(mark.clone(), &[]), [LINKERD], "{mark}");
        }
        assert_eq!(keys(json!({}), &[]), [""; 0]);
    }

    #[test]
    fn a_mesh_of_namespaces_is_named_once_and_a_pod_may_be_out_of_it() {
        assert_eq!(keys(json!({}), &[Mesh::Linkerd, Mesh::Istio]), [ISTIO, LINKERD]);
        let out = json!({ "labels": { "sidecar.istio.io/inject": "false" }, "annotations": { "linkerd.io/inject": "disabled" } });
        assert_eq!(keys(out, &[Mesh::Linkerd, Mesh::Istio]), [""; 0]);
    }

    #[test]
    fn a_proxy_that_is_there_already_shows_it() {
        let pod = json!({ "spec": { "initContainers": [{ "name": "istio-proxy" }], "containers": [{ "name": "linkerd-proxy" }] } });
        let found = annotations(&pod, &[], &settings("[fd00::1]:8443"));
        assert_eq!(found, [(ISTIO, "fd00::1/128".to_owned()), (LINKERD, "8443".to_owned())]);
    }

    #[test]
    fn what_the_user_says_stays_and_nothing_is_said_twice() {
        assert_eq!(appended("", "8443").as_deref(), Some("8443"));
        assert_eq!(appended("25, 3306", "8443").as_deref(), Some("25, 3306,8443"));
        assert_eq!(appended("25,", "8443").as_deref(), Some("25,8443"));
        assert_eq!(appended("25, 8443", "8443"), None);
        assert_eq!(appended("*", "8443"), None);
    }

    #[test]
    fn an_issuer_without_an_address_cannot_be_excluded() {
        let pod = json!({ "metadata": { "labels": { "istio.io/rev": "a" } } });
        assert_eq!(annotations(&pod, &[], &settings("issuer.svc:8443")), []);
    }
}
