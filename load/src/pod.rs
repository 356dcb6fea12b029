//! A pod of realistic size: three containers with probes, environment and mounts, owners and annotations. With what the
//! API server adds (defaults, the token volume, managedFields) about 8 KB of JSON.

use countersign_contract::{
    environment::{agent, application},
    files,
    metadata::annotation::INJECTED,
    pod,
};
use serde_json::{Value, json};

use crate::dataset::PodName;

/// The label that enables the identity of a pod in the namespace `load-flip`.
pub(crate) const SWITCH: &str = "countersign-load/switch";

/// The object to create, already bound to its node: no scheduler runs here.
pub(crate) fn object(pod: &PodName) -> Value {
    let app = pod.account.as_str();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod.name, "namespace": pod.namespace,
            "labels": {
                "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop",
                "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/version": "2.41.7",
                "pod-template-hash": format!("{:09x}", fingerprint(app)), SWITCH: "on",
            },
            "annotations": {
                INJECTED: "sidecar",
                "checksum/config": format!("{:064x}", fingerprint(app)),
                "prometheus.io/scrape": "true", "prometheus.io/port": "9090",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true, "blockOwnerDeletion": true,
                "name": format!("{app}-{:09x}", fingerprint(app)), "uid": "3f1c2b0a-58a4-43b4-a9a1-04ef2b2a8c11",
            }],
        },
        "spec": {
            "nodeName": pod.node,
            "serviceAccountName": pod.account,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10001},
            "initContainers": [agent()],
            "containers": [application(app), proxy()],
            "volumes": [
                {"name": "config", "configMap": {"name": format!("{app}-config")}},
                {"name": pod::IDENTITY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
                {"name": pod::PRIVATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
        },
    })
}

fn agent() -> Value {
    json!({
        "name": pod::AGENT, "image": "registry.example.org/platform/countersign/agent:1.4.2",
        "restartPolicy": "Always", "args": ["run"],
        "env": [
            {"name": agent::ISSUER, "value": "10.96.114.7:8443"},
            {"name": agent::ISSUER_NAME, "value": "countersign-issuer.countersign-system.svc"},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "16Mi"}},
        "volumeMounts": [
            {"name": pod::IDENTITY_VOLUME, "mountPath": files::IDENTITY},
            {"name": pod::PRIVATE_VOLUME, "mountPath": files::PRIVATE},
        ],
    })
}

fn application(app: &str) -> Value {
    json!({
        "name": "app", "image": format!("registry.example.org/shop/{app}:2.41.7"),
        "args": ["--listen=:8080", "--config=/etc/app/config.yaml"],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "DATABASE_URL", "value": format!("postgres://{app}.databases.svc.cluster.local:5432/{app}")},
            {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.observability.svc.cluster.local:4317"},
            {"name": application::ENDPOINT_SOCKET, "value": files::ENDPOINT_SOCKET},
        ],
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/live", "port": "http"}, "periodSeconds": 10},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/app"},
            {"name": pod::IDENTITY_VOLUME, "mountPath": files::IDENTITY, "readOnly": true},
        ],
    })
}

fn proxy() -> Value {
    json!({
        "name": "proxy", "image": "registry.example.org/platform/proxy:1.31.0",
        "args": ["--config-path=/etc/proxy/bootstrap.yaml", "--log-level=warning"],
        "ports": [{"name": "inbound", "containerPort": 15006}],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"tcpSocket": {"port": 15006}, "periodSeconds": 5},
    })
}

/// FNV-1a, 32 bits, for values that differ between applications.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
