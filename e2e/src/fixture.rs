//! The objects that tests apply, as YAML.

use std::fmt::Write as _;

use crate::World;

/// The audience of the tests' JWT-SVIDs, also of those in files.
pub const AUDIENCE: &str = "orders.example";

/// Where [`PodSpec::input`] is mounted.
pub const INPUT: &str = "/input";

/// The program that a pod runs.
#[derive(Clone, Copy, Debug)]
pub enum Image {
    /// `countersign-demo`.
    Demo,
    /// The Go client.
    ClientGo,
    /// The Python client.
    ClientPython,
    /// The example of a service of `countersign-verify`.
    VerifyService,
    /// The example of a client of `countersign-verify`.
    VerifyClient,
    /// The example in Go of a service that uses the agent's proof socket.
    ProofsGo,
    /// The same in Python.
    ProofsPython,
    /// A service, a caller or a neighbour in a chain of calls.
    Hop,
    /// Debian's Redis.
    Redis,
}

impl Image {
    fn name(self) -> &'static str {
        match self {
            Self::Demo => "countersign.local/demo:dev",
            Self::ClientGo => "countersign.local/client-go:dev",
            Self::ClientPython => "countersign.local/client-python:dev",
            Self::VerifyService => "countersign.local/verify-service:dev",
            Self::VerifyClient => "countersign.local/verify-client:dev",
            Self::ProofsGo => "countersign.local/proofs-go:dev",
            Self::ProofsPython => "countersign.local/proofs-python:dev",
            Self::Hop => "countersign.local/hop:dev",
            Self::Redis => "countersign.local/redis:dev",
        }
    }
}

/// A pod, or the template of pods.
#[derive(Clone, Debug)]
pub struct PodSpec<'a> {
    /// Name, and label `app`.
    pub name: &'a str,
    /// Its service account, which is created with it.
    pub account: &'a str,
    /// Its program.
    pub image: Image,
    /// The program's arguments.
    pub args: Vec<String>,
    /// Additional annotations and labels: the content of YAML flow mappings, such as `a: b, c: d`.
    pub annotations: &'a str,
    /// As `annotations`.
    pub labels: &'a str,
    /// Its restart policy.
    pub restart: &'a str,
    /// Additional fields of the program's container: YAML lines without indentation.
    pub container: &'a str,
    /// Additional fields of the pod's spec: YAML lines without indentation.
    pub more: &'a str,
    /// A volume, which is mounted at `/input`: the content of a YAML flow mapping, such as `configMap: {name: a}`; none if empty.
    pub input: &'a str,
}

impl<'a> PodSpec<'a> {
    /// A pod of `countersign-demo` that runs until it is deleted.
    #[must_use]
    pub fn demo(name: &'a str, args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let image = Image::Demo;
        Self {
            name,
            account: name,
            image,
            args,
            annotations: "",
            labels: "",
            restart: "Always",
            container: "",
            more: "",
            input: "",
        }
    }

    /// A pod that is idle.
    #[must_use]
    pub fn hold(name: &'a str) -> Self {
        Self::demo(name, &["hold"])
    }

    /// Sets the service account.
    #[must_use]
    pub fn account(self, account: &'a str) -> Self {
        Self { account, ..self }
    }

    /// A pod that runs another client to completion.
    #[must_use]
    pub fn client(name: &'a str, image: Image, args: &[&str]) -> Self {
        Self { image, restart: "Never", ..Self::demo(name, args) }
    }

    fn account_yaml(&self, namespace: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {}, namespace: {namespace}}}\n",
            self.account
        )
    }

    /// The pod, preceded by its service account.
    #[must_use]
    pub fn pod(&self, namespace: &str) -> String {
        format!(
            "{}---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {namespace}\n{}",
            self.account_yaml(namespace),
            self.name,
            self.template(0)
        )
    }

    /// A Deployment of these pods, preceded by their service account.
    #[must_use]
    pub fn deployment(&self, namespace: &str, replicas: u32) -> String {
        let name = self.name;
        format!(
            "{}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
{}",
            self.account_yaml(namespace),
            self.template(4)
        )
    }

    /// A Job of `pods` parallel pods, none of which may fail, preceded by their service account.
    #[must_use]
    pub fn job(&self, namespace: &str, pods: usize) -> String {
        format!(
            "{}---
apiVersion: batch/v1
kind: Job
metadata: {{name: {}, namespace: {namespace}}}
spec:
  backoffLimit: 0
  completions: {pods}
  parallelism: {pods}
  template:
    metadata:
{}",
            self.account_yaml(namespace),
            self.name,
            self.template(4)
        )
    }

    /// Labels, annotations and spec, starting inside `metadata`, indented by `indent`.
    fn template(&self, indent: usize) -> String {
        let Self { name, account, labels, annotations, restart, .. } = self;
        let args = serde_json::json!(self.args);
        let image = self.image.name();
        let mut text = format!(
            "  labels: {{app: {name}, {labels}}}
  annotations: {{{annotations}}}
spec:
  serviceAccountName: {account}
  restartPolicy: {restart}
  terminationGracePeriodSeconds: 2
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    seccompProfile: {{type: RuntimeDefault}}
  containers:
  - name: app
    image: {image}
    imagePullPolicy: IfNotPresent
    args: {args}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {{drop: [ALL]}}
"
        );
        for line in self.container.lines() {
            let _ = writeln!(text, "    {line}");
        }
        if !self.input.is_empty() {
            let _ = writeln!(text, "    volumeMounts: [{{name: input, mountPath: {INPUT}, readOnly: true}}]");
            let _ = writeln!(text, "  volumes: [{{name: input, {}}}]", self.input);
        }
        for line in self.more.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text.lines().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{:indent$}{line}", "");
            all
        })
    }
}

impl World {
    /// The test's TrustDomain, which grants everything below `/ns/<namespace>` to the test's namespace. `authority` is the
    /// content of a YAML flow mapping, such as `x509: {svidTTL: 20s}`.
    #[must_use]
    pub fn trust_domain_yaml(&self, authority: &str) -> String {
        self.granting_yaml(authority, "")
    }

    /// As [`Self::trust_domain_yaml`]; `grant` are additional fields of the grant: the content of a YAML flow mapping.
    #[must_use]
    pub fn granting_yaml(&self, authority: &str, grant: &str) -> String {
        format!(
            "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {}}}
spec:
  authority: {{{authority}}}
  grants:
  - {{namespaces: {{matchNames: [{}]}},
     paths: ['/ns/{{namespace}}/**'], dnsNames: ['{{serviceAccount}}.{{namespace}}.svc'], audiences: ['*'], {grant}}}
",
            self.trust_domain, self.namespace
        )
    }

    /// A WorkloadIdentity for one service account, with the default path. `more` are additional fields of its spec: YAML
    /// lines without indentation.
    #[must_use]
    pub fn identity_yaml(&self, account: &str, more: &str) -> String {
        self.named_identity_yaml(account, account, more)
    }

    /// As [`Self::identity_yaml`], with another object name.
    #[must_use]
    pub fn named_identity_yaml(&self, name: &str, account: &str, more: &str) -> String {
        let mut text = format!(
            "---
apiVersion: countersign.dev/v1alpha1
kind: WorkloadIdentity
metadata: {{name: {name}, namespace: {}}}
spec:
  trustDomain: {}
  selector: {{serviceAccounts: [{account}]}}
",
            self.namespace, self.trust_domain
        );
        for line in more.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    /// The id that [`Self::identity_yaml`] gives to a service account.
    #[must_use]
    pub fn id(&self, account: &str) -> String {
        format!("spiffe://{}/ns/{}/sa/{account}", self.trust_domain, self.namespace)
    }
}
