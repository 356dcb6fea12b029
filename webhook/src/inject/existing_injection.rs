//! Compares what a pod already has of an injection with the desired result. After a re-invocation it is what injection made,
//! plus what the API server and other mutators add to any container. Anything else that uses the injected names, such as
//! parts written by hand, is refused.

use countersign_contract::{files, pod::AGENT};
use serde_json::{Map, Value};

use super::{
    decide::{ContainerRef, InjectionRequest},
    injected_pod::InjectedPod,
    names::is_injected_volume,
    options::AgentOptions,
    pod_fields::{field, list, name, named},
    refusal::Refusal,
    run_as,
};
use crate::control_plane::Settings;

/// The agent's container that the pod already has.
#[derive(Debug, PartialEq)]
pub(super) enum ExistingAgent {
    /// There is none.
    Absent,
    /// It is up to date, at this index of the init containers.
    UpToDate(usize),
    /// It was injected before containers were added: its index, and its replacement.
    Outdated(usize, Value),
}

/// Fields that the API server's defaults and admission plugins add to any container.
const ADDED_FIELDS: [&str; 3] = ["terminationMessagePath", "imagePullPolicy", "resources"];
/// Fields of `resources` that others may set, to any amount.
const ADDED_RESOURCES: [&str; 2] = ["requests", "limits"];
/// Fields that security policies add to any container's security context.
const ADDED_SECURITY: [&str; 3] = ["appArmorProfile", "runAsGroup", "seLinuxOptions"];

/// Refuses volumes and mounts that have an injected name but differ from what is injected.
pub(super) fn check(pod: &Value, request: &InjectionRequest, injected: &InjectedPod) -> Result<(), Refusal> {
    for volume in list(pod, "/spec/volumes").iter().filter(|volume| is_injected_volume(name(volume))) {
        let expected = named(&injected.volumes, name(volume));
        let difference = expected
            .map_or_else(|| Some("this pod needs none of that name".to_owned()), |expected| missing(expected, volume));
        taken(difference, || format!("volume `{}`", name(volume)))?;
    }
    if list(pod, "/spec/containers").iter().any(|container| name(container) == AGENT) {
        let difference = "it is not among the init containers".to_owned();
        return Err(Refusal::NameTaken { what: format!("container `{AGENT}`"), difference });
    }
    for pointer in ["/spec/initContainers", "/spec/containers"] {
        for container in list(pod, pointer).iter().filter(|container| name(container) != AGENT) {
            let requested = request.containers.iter().find(|requested| requested.name == name(container));
            check_mounts(container, requested.map(|requested| injected.mount(requested)))?;
        }
    }
    Ok(())
}

/// Compares the agent's container, if the pod has one.
pub(super) fn agent(
    pod: &Value,
    request: &InjectionRequest,
    injected: &InjectedPod,
    options: &AgentOptions,
    settings: &Settings,
) -> Result<ExistingAgent, Refusal> {
    let init_containers = list(pod, "/spec/initContainers");
    let mut found = init_containers.iter().enumerate().filter(|(_, container)| name(container) == AGENT);
    let Some((index, existing)) = found.next() else { return Ok(ExistingAgent::Absent) };
    let Some(difference) = difference(&injected.agent, existing) else { return Ok(ExistingAgent::UpToDate(index)) };
    // A container may have been added since: then the agent is the one injected for the containers that have the mount.
    let has_mount = |container: &&ContainerRef| has_mount(container.of(pod), &injected.mount(container));
    let earlier: Vec<ContainerRef> = request.containers.iter().filter(has_mount).cloned().collect();
    if earlier.is_empty() || earlier.len() == request.containers.len() {
        return Err(Refusal::NameTaken { what: format!("container `{AGENT}`"), difference });
    }
    let run_as = run_as::choose(pod, &earlier);
    let earlier = InjectionRequest { containers: earlier, ..request.clone() };
    let earlier = InjectedPod::new(pod, &earlier, run_as, options, settings);
    taken(self::difference(&earlier.agent, existing), || format!("container `{AGENT}`"))?;
    let mut replacement = injected.agent.clone();
    // Other mutators may own these: a registry mirror, a vertical autoscaler.
    for key in ["image", "resources"] {
        if let (Some(fields), Some(value)) = (replacement.as_object_mut(), existing.get(key)) {
            fields.insert(key.to_owned(), value.clone());
        }
    }
    Ok(ExistingAgent::Outdated(index, replacement))
}

/// Whether the container has exactly this mount.
pub(super) fn has_mount(container: &Value, mount: &Value) -> bool {
    list(container, "/volumeMounts").iter().any(|found| {
        field(found, "mountPath") == field(mount, "mountPath")
            && sub_path_field(found).is_none()
            && missing(mount, found).is_none()
    })
}

/// Mounts of a part of the identity by `subPath`, outside the directory of the identity: container and path of each.
pub(super) fn sub_path_mounts<'a>(
    pod: &'a Value,
    request: &'a InjectionRequest,
    injected: &'a InjectedPod,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    request.containers.iter().flat_map(move |container| {
        let identity = injected.mount(container);
        list(container.of(pod), "/volumeMounts")
            .iter()
            .filter(move |mount| sub_path_field(mount).is_some() && name(mount) == name(&identity))
            .map(|mount| (container.name.as_str(), field(mount, "mountPath").unwrap_or_default()))
    })
}

/// The field of a mount that limits it to a part of the volume, if set.
fn sub_path_field(mount: &Value) -> Option<&'static str> {
    ["subPath", "subPathExpr"].into_iter().find(|key| field(mount, key).is_some_and(|path| !path.is_empty()))
}

fn check_mounts(container: &Value, expected: Option<Value>) -> Result<(), Refusal> {
    for mount in list(container, "/volumeMounts") {
        let at = field(mount, "mountPath").unwrap_or_default();
        if is_injected_volume(name(mount)) {
            let difference = match &expected {
                None => Some("the container gets no identity".to_owned()),
                Some(expected) => mount_difference(expected, mount, at),
            };
            taken(difference, || format!("volume `{}`, mounted in container `{}`", name(mount), name(container)))?;
        } else if expected.is_some() && overlap(at, files::IDENTITY) {
            return Err(Refusal::MountTaken {
                container: name(container).to_owned(),
                volume: name(mount).to_owned(),
                path: at.to_owned(),
            });
        }
    }
    Ok(())
}

/// The difference between a mount of an injected volume and `expected`. A part of the identity may be mounted elsewhere; it
/// is never refreshed, and a warning says so.
fn mount_difference(expected: &Value, mount: &Value, at: &str) -> Option<String> {
    match sub_path_field(mount) {
        None => missing(expected, mount),
        Some(field) if overlap(at, files::IDENTITY) => Some(format!("{field}: there the whole volume is mounted")),
        Some(_) if name(mount) != name(expected) => Some("name".to_owned()),
        Some(_) => (mount.get("readOnly") != Some(&Value::Bool(true))).then(|| "readOnly".to_owned()),
    }
}

/// Whether a mount is at the path of the identity, or below it.
pub(super) fn overlaps_identity(mount: &Value) -> bool {
    overlap(field(mount, "mountPath").unwrap_or_default(), files::IDENTITY)
}

/// Whether `path` is `directory`, or below it. Mounts above `directory` are allowed: they do not hide it.
fn overlap(path: &str, directory: &str) -> bool {
    resolved(path).strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The normalized mount path: absolute, without empty, `.` and `..` segments. `/var/run` becomes `/run`, since it is a link to
/// it in most images; other links of the image are unknown here.
fn resolved(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
        if segments == ["var", "run"] {
            segments = vec!["run"];
        }
    }
    segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
}

fn taken(difference: Option<String>, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    difference.map_or(Ok(()), |difference| Err(Refusal::NameTaken { what: what(), difference }))
}

/// The first difference between the agent as injected and as found, ignoring what others add to any container.
fn difference(expected: &Value, existing: &Value) -> Option<String> {
    let empty = Map::new();
    let expected_fields = expected.as_object().unwrap_or(&empty);
    let foreign = |key: &&String| !expected_fields.contains_key(*key) && !ADDED_FIELDS.contains(&key.as_str());
    if let Some(key) = existing.as_object().unwrap_or(&empty).keys().find(foreign) {
        return Some(format!("field `{key}`"));
    }
    // Amounts may be set by autoscalers, defaulters and the installation; devices may not.
    if existing.get("resources").is_some_and(|found| !only_adds(&Value::Null, found, &ADDED_RESOURCES)) {
        return Some("field `resources`".to_owned());
    }
    expected_fields.iter().filter(|(key, _)| *key != "resources").find_map(|(key, value)| {
        let found = existing.get(key).unwrap_or(&Value::Null);
        let same = match key.as_str() {
            "imagePullPolicy" => true,
            "image" => same_image(value.as_str().unwrap_or_default(), found.as_str().unwrap_or_default()),
            "env" => same_named(value, found, |name| name.starts_with("COUNTERSIGN_")),
            "volumeMounts" => same_named(value, found, is_injected_volume),
            "securityContext" => missing(value, found).is_none() && only_adds(value, found, &ADDED_SECURITY),
            _ => value == found,
        };
        (!same).then(|| format!("field `{key}`"))
    })
}

/// Whether an image is the expected one, possibly from a mirror of its registry: `mirror.corp/countersign/agent:1` for `countersign.dev/countersign/agent:1`.
fn same_image(expected: &str, found: &str) -> bool {
    let without_registry =
        expected.split_once('/').filter(|(host, _)| host.contains(['.', ':'])).map_or(expected, |(_, rest)| rest);
    found == expected || found.strip_suffix(without_registry).is_some_and(|host| host.ends_with('/'))
}

/// Whether `found` has all items of `expected`, in any order, and no others whose names satisfy `ours`.
fn same_named(expected: &Value, found: &Value, ours: impl Fn(&str) -> bool) -> bool {
    let (expected, found) = (list(expected, ""), list(found, ""));
    let count = found.iter().filter(|item| ours(name(item))).count();
    count == expected.len()
        && expected
            .iter()
            .all(|item| found.iter().any(|found| name(found) == name(item) && missing(item, found).is_none()))
}

fn only_adds(expected: &Value, found: &Value, allowed: &[&str]) -> bool {
    let known = |key: &String| expected.get(key).is_some() || allowed.contains(&key.as_str());
    found.as_object().is_some_and(|fields| fields.keys().all(known))
}

/// The first field of `expected` that is absent or different in `found`. Lists must have the same length.
fn missing(expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected.iter().find_map(|(key, value)| {
            missing(value, found.get(key).unwrap_or(&Value::Null))
                .map(|rest| format!("{key}{}{rest}", if rest.is_empty() { "" } else { "." }))
        }),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            expected.iter().zip(found).find_map(|(expected, found)| missing(expected, found))
        }
        _ => (expected != found).then(String::new),
    }
}
