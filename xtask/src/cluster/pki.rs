//! Certificate authorities, certificates and kubeconfigs of a cluster, created with it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::layout::Layout;

const LIFE: Duration = Duration::days(365);
/// Tolerates machines whose clocks differ.
const BACKDATE: Duration = Duration::hours(1);

/// A client of the API server: file name, organisation (group), common name (user).
type Client = (&'static str, &'static str, &'static str);

const CLIENTS: [Client; 4] = [
    ("admin", "system:masters", "admin"),
    ("kube-controller-manager", "", "system:kube-controller-manager"),
    ("kube-scheduler", "", "system:kube-scheduler"),
    ("kube-proxy", "", "system:kube-proxy"),
];

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// Creates all keys, certificates and kubeconfigs.
pub(super) fn make(layout: &Layout) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    let pki = layout.pki();
    for dir in [&pki, &layout.config()] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let ca = Authority::make(&pki, "ca", now)?;
    let front = Authority::make(&pki, "front-proxy-ca", now)?;
    let accounts = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    write(&pki.join("sa.key"), &accounts.serialize_pem())?;

    let node = format!("system:node:{}", layout.name);
    let (ip, api) = (layout.node_ip(), layout.api_ip());
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        &ip,
        &api,
    ];
    ca.server("", "kube-apiserver", &names, now)?.write(&pki, "apiserver")?;
    ca.server("system:nodes", &node, &[&layout.name, &ip], now)?.write(&pki, "kubelet-server")?;
    ca.client("system:masters", "kube-apiserver-kubelet-client", now)?.write(&pki, "kubelet-client")?;
    front.client("", "front-proxy-client", now)?.write(&pki, "front-proxy-client")?;
    let own = [("kubelet", "system:nodes", node.as_str())];
    for (file, organisation, name) in CLIENTS.into_iter().chain(own) {
        let client = ca.client(organisation, name, now)?;
        let text = kubeconfig(layout, &ca.pem, file, &client)?;
        write(&layout.config().join(format!("{file}.conf")), &text)?;
        if file == "admin" {
            write(&layout.kubeconfig(), &text)?;
        }
    }
    Ok(())
}

impl Authority {
    fn make(pki: &Path, name: &str, now: OffsetDateTime) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params("", name, &[], now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Pair { certificate: pem.clone(), key: key.serialize_pem() }.write(pki, name)?;
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    fn server(&self, organisation: &str, name: &str, sans: &[&str], now: OffsetDateTime) -> Result<Pair> {
        self.issue(params(organisation, name, sans, now)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, organisation: &str, name: &str, now: OffsetDateTime) -> Result<Pair> {
        self.issue(params(organisation, name, &[], now)?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pair> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

impl Pair {
    fn write(&self, pki: &Path, name: &str) -> Result<()> {
        write(&pki.join(format!("{name}.crt")), &self.certificate)?;
        write(&pki.join(format!("{name}.key")), &self.key)
    }
}

fn params(organisation: &str, name: &str, sans: &[&str], now: OffsetDateTime) -> Result<CertificateParams> {
    let sans: Vec<String> = sans.iter().map(|s| (*s).to_owned()).collect();
    let mut params = CertificateParams::new(sans).with_context(|| format!("the names of {name}"))?;
    let mut subject = DistinguishedName::new();
    if !organisation.is_empty() {
        subject.push(DnType::OrganizationName, organisation);
    }
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.not_before = now - BACKDATE;
    params.not_after = now + LIFE;
    Ok(params)
}

/// A kubeconfig in JSON, which is valid YAML.
fn kubeconfig(layout: &Layout, ca: &str, user: &str, client: &Pair) -> Result<String> {
    let name = &layout.name;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": format!("https://{}:6443", layout.node_ip()),
            "certificate-authority-data": base64(ca),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": base64(&client.certificate),
            "client-key-data": base64(&client.key),
        }}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Readable by the owner only: most files contain a key.
fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
