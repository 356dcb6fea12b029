//! What was read with the caller's rights, or why it was not: one part that may not be read does not end a command.

use std::fmt::{self, Debug, Display};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Resource, ResourceExt as _, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};

use crate::cluster::Cluster;

/// One part of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading<T> {
    /// It was read.
    Found(T),
    /// There is no such object, or no such API.
    Absent,
    /// The caller lacks a right.
    Forbidden(Right),
    /// There was no answer that can be used.
    Failed(String),
}

/// What a caller must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Right {
    pub(crate) verb: String,
    /// `resource`, or `resource.group`.
    pub(crate) resource: String,
    /// `None`: in the whole cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
}

impl Right {
    pub(crate) fn new(verb: &str, resource: impl Into<String>, namespace: Option<&str>) -> Self {
        Self { verb: verb.to_owned(), resource: resource.into(), namespace: namespace.map(str::to_owned) }
    }

    pub(crate) fn of<K: Resource<DynamicType = ()>>(verb: &str, namespace: Option<&str>) -> Self {
        Self::new(verb, resource::<K>(), namespace)
    }
}

impl Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        self.namespace.iter().try_for_each(|namespace| write!(f, " in namespace {namespace}"))
    }
}

impl<T> Reading<T> {
    /// From an answer to a request for which `right` is needed.
    pub(crate) fn from(result: kube::Result<T>, right: impl FnOnce() -> Right) -> Self {
        match result {
            Ok(found) => Self::Found(found),
            Err(kube::Error::Api(status)) if status.code == 403 => Self::Forbidden(right()),
            Err(kube::Error::Api(status)) if status.code == 404 => Self::Absent,
            Err(error) => Self::Failed(describe(&error)),
        }
    }

    pub(crate) fn found(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            _ => None,
        }
    }

    /// Why it was not read.
    pub(crate) fn gap(&self) -> Option<Gap<'_>> {
        match self {
            Self::Found(_) => None,
            Self::Absent => Some(Gap::Absent),
            Self::Forbidden(right) => Some(Gap::Forbidden(right)),
            Self::Failed(message) => Some(Gap::Failed(message)),
        }
    }

    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Found(found) => Reading::Found(make(found)),
            Self::Absent => Reading::Absent,
            Self::Forbidden(right) => Reading::Forbidden(right),
            Self::Failed(message) => Reading::Failed(message),
        }
    }
}

impl<T> Reading<Vec<T>> {
    /// What was read; nothing where nothing could be.
    pub(crate) fn items(&self) -> &[T] {
        self.found().map_or(&[], Vec::as_slice)
    }
}

/// Why something was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap<'a> {
    Absent,
    Forbidden(&'a Right),
    Failed(&'a str),
}

impl Display for Gap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is none"),
            Self::Forbidden(right) => write!(f, "not readable: you may not {right}"),
            Self::Failed(message) => write!(f, "not readable: {message}"),
        }
    }
}

/// An error of the client in one line, without the debug form of the API server's answer.
pub(crate) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => {
            let mut text = error.to_string().trim_start_matches("ServiceError: ").to_owned();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

/// `plural`, or `plural.group`.
fn resource<K: Resource<DynamicType = ()>>() -> String {
    let (plural, group) = (K::plural(&()), K::group(&()));
    if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") }
}

impl Cluster {
    /// An object without a namespace.
    pub(crate) async fn read<K>(&self, name: &str) -> Reading<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        Reading::from(api.get(name).await, || Right::of::<K>("get", None))
    }

    /// An object of a namespace.
    pub(crate) async fn read_in<K>(&self, namespace: &str, name: &str) -> Reading<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        Reading::from(api.get(name).await, || Right::of::<K>("get", Some(namespace)))
    }

    /// All objects of a kind in the cluster.
    pub(crate) async fn read_all<K>(&self) -> Reading<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        reading(self.list().await, || Right::of::<K>("list", None))
    }

    /// All objects of a kind in a namespace.
    pub(crate) async fn read_all_in<K>(&self, namespace: &str) -> Reading<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        reading(self.list_in(namespace).await, || Right::of::<K>("list", Some(namespace)))
    }

    /// Objects of a kind in a namespace that have a label.
    pub(crate) async fn read_labelled<K>(&self, namespace: &str, selector: &str) -> Reading<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let list = api.list(&ListParams::default().labels(selector)).await.map(|list| list.items);
        Reading::from(list, || Right::of::<K>("list", Some(namespace)))
    }
}

fn reading<T>(result: anyhow::Result<T>, right: impl FnOnce() -> Right) -> Reading<T> {
    match result {
        Ok(found) => Reading::Found(found),
        Err(error) => match error.downcast::<kube::Error>() {
            Ok(error) => Reading::from(Err(error), right),
            Err(error) => Reading::Failed(format!("{error:#}")),
        },
    }
}

/// `namespace/name`, or the name.
pub(crate) fn full_name<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::{Gap, Reading, Right, reading};

    fn refused(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, message: "no".to_owned(), ..Status::default() }))
    }

    #[test]
    fn what_may_not_be_read_names_the_missing_right() {
        let right = || Right::new("list", "trustdomains.countersign.dev", None);
        let found: Reading<()> = Reading::from(Err(refused(403)), right);
        assert_eq!(found, Reading::Forbidden(right()));
        assert_eq!(found.gap().unwrap().to_string(), "not readable: you may not list trustdomains.countersign.dev",);
        let found: Reading<()> = Reading::from(Err(refused(404)), right);
        assert_eq!(found, Reading::Absent);
        let found: Reading<()> = Reading::from(Err(refused(500)), right);
        assert_eq!(found.gap(), Some(Gap::Failed("no")));
    }

    #[test]
    fn the_refusal_is_found_below_what_was_being_done() {
        let wrapped = anyhow::Error::from(refused(403)).context("listing pods");
        let right = || Right::new("list", "pods", Some("shop"));
        assert_eq!(reading::<()>(Err(wrapped), right), Reading::Forbidden(right()));
    }
}
