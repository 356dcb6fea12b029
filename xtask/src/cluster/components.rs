//! The components of a cluster and their command lines.

use super::layout::Layout;
use super::state::Extent;

/// A program of `target/cluster/bin` that runs as long as the cluster.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) name: &'static str,
    pub(super) args: Vec<String>,
}

/// On in Kubernetes 1.37 in version v1; the gates also serve v1beta1, which earlier versions have.
const GATES: &str =
    "--feature-gates=PodCertificateRequest=true,ClusterTrustBundle=true,ClusterTrustBundleProjection=true";

/// The issuer of service account tokens.
const ACCOUNT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The components that others depend on: etcd, the API server, and containerd, which takes as long to start.
pub(super) fn storage_and_api(layout: &Layout, extent: Extent) -> Vec<Component> {
    let mut components = vec![etcd(), api_server(layout, extent)];
    if extent == Extent::Whole {
        components.push(containerd(layout));
    }
    components
}

/// The components that need the API server.
pub(super) fn the_rest(layout: &Layout, extent: Extent) -> Vec<Component> {
    match extent {
        Extent::Whole => {
            vec![controller_manager(layout), scheduler(layout), kubelet(layout), proxy(layout), dns(layout)]
        }
        Extent::ApiServer => Vec::new(),
    }
}

/// Without fsync: the data need not survive the machine. The quota is enough for a hundred thousand pods and their history.
fn etcd() -> Component {
    let args = [
        "--data-dir=/var/lib/etcd",
        "--quota-backend-bytes=8589934592",
        "--unsafe-no-fsync",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
    ];
    Component { name: "etcd", args: args.map(str::to_owned).into() }
}

fn api_server(layout: &Layout, extent: Extent) -> Component {
    let (pki, config) = (layout.pki(), layout.config());
    let (pki, config) = (pki.display(), config.display());
    let audit = match extent {
        Extent::Whole => "audit.yaml",
        Extent::ApiServer => "audit-api-server-only.yaml",
    };
    let args = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={}", layout.node_ip()),
        "--bind-address=0.0.0.0".to_owned(),
        "--secure-port=6443".to_owned(),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--service-account-issuer={ACCOUNT_ISSUER}"),
        format!("--service-account-key-file={pki}/sa.key"),
        format!("--service-account-signing-key-file={pki}/sa.key"),
        format!("--service-cluster-ip-range={}", layout.services()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--kubelet-client-certificate={pki}/kubelet-client.crt"),
        format!("--kubelet-client-key={pki}/kubelet-client.key"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--requestheader-client-ca-file={pki}/front-proxy-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={pki}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={pki}/front-proxy-client.key"),
        format!("--audit-policy-file={config}/{audit}"),
        "--audit-log-path=/var/log/audit.log".to_owned(),
        "--audit-log-maxsize=200".to_owned(),
        // Rotated files are searched too, so none of a test run may be deleted.
        "--audit-log-maxbackup=10".to_owned(),
        GATES.to_owned(),
        "--runtime-config=certificates.k8s.io/v1beta1/podcertificaterequests=true,\
         certificates.k8s.io/v1beta1/clustertrustbundles=true"
            .to_owned(),
    ];
    Component { name: "kube-apiserver", args }
}

fn containerd(layout: &Layout) -> Component {
    let args = vec![format!("--config={}/containerd.toml", layout.config().display())];
    Component { name: "containerd", args }
}

/// With raised rates; otherwise the default service account of a namespace appears seconds late.
fn controller_manager(layout: &Layout) -> Component {
    let (pki, config) = (layout.pki(), layout.config());
    let (pki, config) = (pki.display(), config.display());
    let args = vec![
        format!("--kubeconfig={config}/kube-controller-manager.conf"),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
        format!("--service-account-private-key-file={pki}/sa.key"),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--cluster-signing-cert-file={pki}/ca.crt"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
        format!("--cluster-cidr={}", layout.pods()),
        "--allocate-node-cidrs=false".to_owned(),
        "--flex-volume-plugin-dir=/var/lib/kubelet/volumeplugins".to_owned(),
        GATES.to_owned(),
    ];
    Component { name: "kube-controller-manager", args }
}

fn scheduler(layout: &Layout) -> Component {
    let args = vec![
        format!("--kubeconfig={}/kube-scheduler.conf", layout.config().display()),
        "--leader-elect=false".to_owned(),
    ];
    Component { name: "kube-scheduler", args }
}

fn kubelet(layout: &Layout) -> Component {
    let config = layout.config();
    let args = vec![
        format!("--config={}/kubelet.yaml", config.display()),
        format!("--kubeconfig={}/kubelet.conf", config.display()),
        format!("--hostname-override={}", layout.name),
        format!("--node-ip={}", layout.node_ip()),
    ];
    Component { name: "kubelet", args }
}

fn proxy(layout: &Layout) -> Component {
    let args = vec![
        format!("--config={}/kube-proxy.yaml", layout.config().display()),
        format!("--hostname-override={}", layout.name),
    ];
    Component { name: "kube-proxy", args }
}

fn dns(layout: &Layout) -> Component {
    let args = vec!["-conf".to_owned(), format!("{}/Corefile", layout.config().display())];
    Component { name: "coredns", args }
}
