//! What the caller may not read is reported, and the rest of the command goes on.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

/// What the caller may not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Denied {
    pub(crate) verb: &'static str,
    /// With its group, as RBAC names it, such as `trustdomains.countersign.dev`.
    pub(crate) resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
}

impl Denied {
    pub(crate) fn new(verb: &'static str, resource: &str, namespace: Option<&str>) -> Self {
        Self { verb, resource: resource.to_owned(), namespace: namespace.map(str::to_owned) }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not readable: you may not {} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// What was read; or that the caller may not read it, which is no error of the command.
pub(crate) fn unless_denied<T>(read: Result<T>, denied: Denied) -> Result<Result<T, Denied>> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error) if is_forbidden(&error) => Ok(Err(denied)),
        Err(error) => Err(error),
    }
}

/// What was read; without it there is no answer, and the error says what to ask for.
pub(crate) fn required<T>(read: Result<T>, denied: &Denied) -> Result<T> {
    read.map_err(|error| match error {
        error if is_forbidden(&error) => {
            anyhow::anyhow!("{denied}: ask for a role with this verb, such as countersign-view")
        }
        error if has_code(&error, 404) => error.context("is Countersign installed?"),
        error => error,
    })
}

/// What was not written, and why: of the API server's answer the message alone.
pub(crate) fn not_written(error: anyhow::Error, verb: &str, resource: &str) -> anyhow::Error {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<kube::Error>());
    match found {
        Some(kube::Error::Api(status)) if status.code == 403 && status.message.contains("cannot") => anyhow::anyhow!(
            "{error}: you may not {verb} {resource}: ask for a role with this verb, such as countersign-admin"
        ),
        Some(kube::Error::Api(status)) => anyhow::anyhow!("{error}: {}", status.message),
        _ => error,
    }
}

pub(crate) fn is_forbidden(error: &anyhow::Error) -> bool {
    has_code(error, 403)
}

pub(crate) fn is_conflict(error: &anyhow::Error) -> bool {
    has_code(error, 409)
}

fn has_code(error: &anyhow::Error, code: u16) -> bool {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<kube::Error>());
    matches!(found, Some(kube::Error::Api(status)) if status.code == code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use kube::core::Status;

    use super::*;

    fn failed(code: u16) -> Result<()> {
        let status = Status::failure("no", "No").with_code(code).boxed();
        Err(kube::Error::Api(status)).context("listing pods")
    }

    #[test]
    fn only_what_is_forbidden_is_passed_over() {
        let denied = Denied::new("list", "pods", Some("shop"));
        assert_eq!(unless_denied(failed(403), denied.clone()).unwrap(), Err(denied.clone()));
        assert_eq!(denied.to_string(), "not readable: you may not list pods in namespace shop");
        assert!(unless_denied(failed(500), denied.clone()).is_err());
        assert_eq!(unless_denied(Ok(1), denied.clone()).unwrap(), Ok(1));
        assert!(required(failed(403), &denied).unwrap_err().to_string().contains("list pods in namespace shop"));
        assert!(required(failed(404), &denied).unwrap_err().to_string().contains("installed"));
    }
}
