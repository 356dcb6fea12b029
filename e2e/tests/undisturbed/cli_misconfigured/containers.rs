//! Pods that are entitled to an identity, and whose containers do not run.

use countersign_e2e::fixture::PodSpec;

use super::{Case, Places, with_identity};

/// A pod whose agent has an image that does not exist: it is made without the webhook, which would inject another.
pub(super) const UNPULLED: &str = "agent-unpulled";
pub(super) const NO_SUCH_AGENT: &str = "countersign.local/agent:none";

pub(super) fn cases(places: &Places<'_>) -> Vec<Case> {
    let shop = places.shop();
    let case = |pod: &PodSpec<'_>, reason| Case::new(shop.clone(), pod.name, with_identity(places, &shop, pod), reason);
    let spec = |name, more| PodSpec { more, ..PodSpec::hold(name) };
    let migrate = "initContainers:
- name: migrate
  image: countersign.local/demo:dev
  imagePullPolicy: IfNotPresent
  args: [no-such-command]
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
    let secret = PodSpec {
        container: "volumeMounts: [{name: own, mountPath: /own}]",
        more: "volumes: [{name: own, secret: {secretName: no-such-secret}}]",
        ..PodSpec::hold("secret-missing")
    };
    let config =
        PodSpec { container: "envFrom: [{configMapRef: {name: no-such-map}}]", ..PodSpec::hold("config-missing") };
    let ended = PodSpec { restart: "Never", ..PodSpec::demo("ended", &["first-instruction", "--exit"]) };
    let failed = PodSpec { restart: "Never", ..PodSpec::demo("failed", &["no-such-command"]) };
    let mut image =
        case(&PodSpec::hold("image-missing"), "ContainersNotStarted").says("container app").mend("describe pod");
    image.yaml = image.yaml.replace("countersign.local/demo:dev", "countersign.local/no-such:dev");
    let unpulled = places.identity(&shop, UNPULLED, &format!("serviceAccounts: [{UNPULLED}]"), "");
    vec![
        Case::new(shop.clone(), UNPULLED, unpulled, "AgentImageNotPulled").says(NO_SUCH_AGENT).mend("describe pod"),
        case(&spec("no-node", "nodeSelector: {disk: nvme}"), "NotScheduled").says("selector").mend("describe pod"),
        case(&spec("gated", "schedulingGates: [{name: example.org/wait}]"), "NotScheduled").says("scheduling gates"),
        case(&secret, "AgentNotStarted").says("no-such-secret").mend("describe pod"),
        case(&config, "ContainersNotStarted").says("no-such-map").mend("describe pod"),
        case(&PodSpec::demo("crashes", &["no-such-command"]), "ContainersNotStarted")
            .says("container app")
            .mend("kubectl logs"),
        case(&spec("init-crashes", migrate), "ContainersNotStarted").says("container migrate").mend("kubectl logs"),
        case(&ended, "PodEnded").says("Succeeded"),
        case(&failed, "PodEnded").says("Failed").mend("kubectl logs"),
        image,
    ]
}
