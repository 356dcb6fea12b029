//! Why a pod is refused.

use crate::projection::Unreadable;
use countersign_reasons::Reason;

/// Why a pod is refused. Each message states the problem, its place, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object is something else.
    #[error("the object is not a pod but {found}: point only `pods` at this webhook")]
    NotAPod {
        /// Its kind.
        found: String,
    },
    /// The mode exists, but not in this release.
    #[error(
        "the mode `{mode}` of label countersign.dev/inject is not offered by this release: use `sidecar` or `auto`"
    )]
    ModeNotOffered {
        /// The mode.
        mode: String,
    },
    /// No mode has this name.
    #[error("label countersign.dev/inject is `{value}`: use `auto`, `sidecar` or `false`")]
    UnknownMode {
        /// The label's value.
        value: String,
    },
    /// The namespace's label has an unsupported value.
    #[error(
        "the namespace's label countersign.dev/inject is neither `auto`, `sidecar` nor `false`: correct it, or label the pod"
    )]
    NamespaceMode,
    /// An annotation has an invalid value.
    #[error("annotation {annotation} is `{value}`: {expected}")]
    Annotation {
        /// The annotation's key.
        annotation: &'static str,
        /// Its value.
        value: String,
        /// The expected value.
        expected: &'static str,
    },
    /// An annotation names a container that is not there.
    #[error("annotation countersign.dev/containers names `{name}`, but the pod's containers are {}", .have.join(", "))]
    NoSuchContainer {
        /// The name.
        name: String,
        /// The names there are.
        have: Vec<String>,
    },
    /// A volume is named after the container, and a volume's name has at most 63 characters.
    #[error(
        "container `{name}` cannot have its own session: its name has more than {longest} characters; shorten it, or leave it out with countersign.dev/containers"
    )]
    ContainerNameTooLong {
        /// The container.
        name: String,
        /// The longest name possible.
        longest: usize,
    },
    /// A pod has no container.
    #[error("the pod has no containers")]
    NoContainers,
    /// A container, volume or mount of the pod has an injected name but differs from what is injected.
    #[error("{what} is Countersign's, but differs from what Countersign makes ({difference}): remove it, or rename it")]
    NameTaken {
        /// The object, and its place.
        what: String,
        /// The first difference.
        difference: String,
    },
    /// The fields that are read exceed a limit, or are malformed.
    #[error("the pod is not accepted: {0}")]
    Unreadable(#[from] Unreadable),
    /// A container mounts something else at the path of the identity.
    #[error(
        "container `{container}` mounts volume `{volume}` at {path}, where its identity goes: mount it elsewhere, or leave the container out with countersign.dev/containers"
    )]
    MountTaken {
        /// The container.
        container: String,
        /// What is mounted there.
        volume: String,
        /// Where.
        path: String,
    },
}

impl Refusal {
    /// The reason as one word, for metrics and for `status.details.causes`.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotAPod { .. } => Reason::NotAPod,
            Self::ModeNotOffered { .. } => Reason::ModeNotOffered,
            Self::UnknownMode { .. } => Reason::UnknownMode,
            Self::NamespaceMode => Reason::NamespaceMode,
            Self::Annotation { .. } => Reason::InvalidAnnotation,
            Self::NoSuchContainer { .. } => Reason::AnnotatedContainerUnknown,
            Self::ContainerNameTooLong { .. } => Reason::ContainerNameTooLong,
            Self::NoContainers => Reason::NoContainers,
            Self::NameTaken { .. } => Reason::NameTaken,
            Self::MountTaken { .. } => Reason::MountTaken,
            Self::Unreadable(unreadable) => unreadable.reason(),
        }
    }
}
