//! What of ours a pod already has when it arrives: after re-invocation exactly what we made (and what the API server and
//! other mutators add to any container); made by hand, perhaps something else, which is refused.

use serde_json::{Map, Value};

use super::{
    Refusal,
    decide::{Container, Wanted},
    fields::{field, list, name, named},
    shape::{AGENT, AgentOptions, IDENTITY, IDENTITY_PATH, NO_API_TOKEN, PRIVATE, Shape, TOKEN},
    user,
};
use crate::control_plane::Settings;

/// The agent's container as it arrived.
#[derive(Debug, PartialEq)]
pub(super) enum Arrived {
    /// There is none.
    Absent,
    /// It is as it should be, at this place among the init containers.
    AsMade(usize),
    /// It is as it should have been before containers were added; this is what it should be now.
    Outdated(usize, Value),
}

/// What the API server's defaults and admission plugins add to any container.
const ADDED_FIELDS: [&str; 3] = ["terminationMessagePath", "imagePullPolicy", "resources"];
/// What may be asked of the node, in whatever amount.
const ADDED_RESOURCES: [&str; 2] = ["requests", "limits"];
/// What security policies add to any container's security context.
const ADDED_SECURITY: [&str; 3] = ["appArmorProfile", "runAsGroup", "seLinuxOptions"];

/// Refuses volumes and mounts that have our names, but not our shape.
pub(super) fn check(pod: &Value, wanted: &Wanted, shape: &Shape) -> Result<(), Refusal> {
    for volume in list(pod, "/spec/volumes").iter().filter(|volume| is_ours(name(volume))) {
        let expected = named(&shape.volumes, name(volume));
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
            let wanted = wanted.containers.iter().find(|wanted| wanted.name == name(container));
            check_mounts(container, wanted.map(|wanted| shape.mount(wanted)))?;
        }
    }
    Ok(())
}

/// Reads the agent's container, if the pod has one.
pub(super) fn agent(
    pod: &Value,
    wanted: &Wanted,
    shape: &Shape,
    options: &AgentOptions,
    settings: &Settings,
) -> Result<Arrived, Refusal> {
    let init_containers = list(pod, "/spec/initContainers");
    let mut found = init_containers.iter().enumerate().filter(|(_, container)| name(container) == AGENT);
    let Some((place, arrived)) = found.next() else { return Ok(Arrived::Absent) };
    let Some(difference) = difference(&shape.agent, arrived) else { return Ok(Arrived::AsMade(place)) };
    // Perhaps a container came later: then the agent is as it was made for those that have their mount.
    let has_mount = |container: &&Container| has_mount(container.of(pod), &shape.mount(container));
    let earlier: Vec<Container> = wanted.containers.iter().filter(has_mount).cloned().collect();
    if earlier.is_empty() || earlier.len() == wanted.containers.len() {
        return Err(Refusal::NameTaken { what: format!("container `{AGENT}`"), difference });
    }
    let user = user::choose(pod, &earlier);
    let earlier = Shape::new(pod, &Wanted { containers: earlier, ..wanted.clone() }, user, options, settings);
    taken(self::difference(&earlier.agent, arrived), || format!("container `{AGENT}`"))?;
    let mut now = shape.agent.clone();
    for others in ["image", "resources"] {
        if let (Some(fields), Some(value)) = (now.as_object_mut(), arrived.get(others)) {
            fields.insert(others.to_owned(), value.clone());
        }
    }
    Ok(Arrived::Outdated(place, now))
}

/// Whether the container has exactly this mount.
pub(super) fn has_mount(container: &Value, mount: &Value) -> bool {
    list(container, "/volumeMounts").iter().any(|found| {
        field(found, "mountPath") == field(mount, "mountPath")
            && part(found).is_none()
            && missing(mount, found).is_none()
    })
}

/// The containers that have a part of their identity mounted somewhere else, with the path of each such mount.
pub(super) fn parts<'a>(
    pod: &'a Value,
    wanted: &'a Wanted,
    shape: &'a Shape,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    wanted.containers.iter().flat_map(move |container| {
        let identity = shape.mount(container);
        list(container.of(pod), "/volumeMounts")
            .iter()
            .filter(move |mount| part(mount).is_some() && name(mount) == name(&identity))
            .map(|mount| (container.name.as_str(), field(mount, "mountPath").unwrap_or_default()))
    })
}

/// The field by which only a part of a volume is mounted.
fn part(mount: &Value) -> Option<&'static str> {
    ["subPath", "subPathExpr"].into_iter().find(|key| field(mount, key).is_some_and(|path| !path.is_empty()))
}

/// Whether a volume's name is one of ours.
pub(super) fn is_ours(volume: &str) -> bool {
    let per_container = volume.strip_prefix(IDENTITY).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    per_container || [TOKEN, PRIVATE, NO_API_TOKEN].contains(&volume)
}

fn check_mounts(container: &Value, expected: Option<Value>) -> Result<(), Refusal> {
    for mount in list(container, "/volumeMounts") {
        let at = field(mount, "mountPath").unwrap_or_default();
        if is_ours(name(mount)) {
            let difference = match &expected {
                None => Some("the container gets no identity".to_owned()),
                Some(expected) => misused(expected, mount, at),
            };
            taken(difference, || format!("volume `{}`, mounted in container `{}`", name(mount), name(container)))?;
        } else if expected.is_some() && overlap(at, IDENTITY_PATH) {
            return Err(Refusal::MountTaken {
                container: name(container).to_owned(),
                volume: name(mount).to_owned(),
                path: at.to_owned(),
            });
        }
    }
    Ok(())
}

/// How a mount of ours differs from `expected`. A part of the identity may be mounted elsewhere: it never refreshes, of which
/// there is a warning.
fn misused(expected: &Value, mount: &Value, at: &str) -> Option<String> {
    match part(mount) {
        None => missing(expected, mount),
        Some(field) if overlap(at, IDENTITY_PATH) => Some(format!("{field}: there the whole volume is mounted")),
        Some(_) if name(mount) != name(expected) => Some("name".to_owned()),
        Some(_) => (mount.get("readOnly") != Some(&Value::Bool(true))).then(|| "readOnly".to_owned()),
    }
}

/// Whether something is mounted where the identity goes, or below.
pub(super) fn overlaps_identity(mount: &Value) -> bool {
    overlap(field(mount, "mountPath").unwrap_or_default(), IDENTITY_PATH)
}

/// Whether `found` is `ours`, or below it. What is mounted above `/run` hides nothing, so it is none of ours.
fn overlap(found: &str, ours: &str) -> bool {
    resolved(found).strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The place in the container to which a mount's path leads: absolute, without empty, `.` and `..` segments, and below `/run`
/// where it is below `/var/run`, which is a link to it in most images. Other links of the image are not known here.
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

/// The first difference between the agent as we make it and as it arrived, without what others add to any container.
fn difference(expected: &Value, arrived: &Value) -> Option<String> {
    let empty = Map::new();
    let expected_fields = expected.as_object().unwrap_or(&empty);
    let foreign = |key: &&String| !expected_fields.contains_key(*key) && !ADDED_FIELDS.contains(&key.as_str());
    if let Some(key) = arrived.as_object().unwrap_or(&empty).keys().find(foreign) {
        return Some(format!("field `{key}`"));
    }
    // How much it has is for autoscalers, defaulters and the installation to say; devices are not among it.
    if arrived.get("resources").is_some_and(|found| !only_adds(&Value::Null, found, &ADDED_RESOURCES)) {
        return Some("field `resources`".to_owned());
    }
    expected_fields.iter().filter(|(key, _)| *key != "resources").find_map(|(key, value)| {
        let found = arrived.get(key).unwrap_or(&Value::Null);
        let same = match key.as_str() {
            "imagePullPolicy" => true,
            "image" => same_image(value.as_str().unwrap_or_default(), found.as_str().unwrap_or_default()),
            "env" => same_named(value, found, |name| name.starts_with("COUNTERSIGN_")),
            "volumeMounts" => same_named(value, found, is_ours),
            "securityContext" => missing(value, found).is_none() && only_adds(value, found, &ADDED_SECURITY),
            _ => value == found,
        };
        (!same).then(|| format!("field `{key}`"))
    })
}

/// Whether an image is ours, perhaps from a mirror of its registry: `mirror.corp/countersign/agent:1` for `countersign.dev/countersign/agent:1`.
fn same_image(expected: &str, found: &str) -> bool {
    let without_registry =
        expected.split_once('/').filter(|(host, _)| host.contains(['.', ':'])).map_or(expected, |(_, rest)| rest);
    found == expected || found.strip_suffix(without_registry).is_some_and(|host| host.ends_with('/'))
}

/// Whether all of `expected` is in `found`, in whatever order, and nothing else of which `ours` says it is ours.
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

/// The first field of `expected` that `found` lacks or has otherwise. Lists must be the same in length.
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
