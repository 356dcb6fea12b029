//! What the caller may not read is reported, and the rest of the command goes on.

use anyhow::Result;

use crate::reading::{Gap, Right};

/// What was read; or that the caller may not read it, which is no error of the command.
pub(crate) fn unless_denied<T>(read: Result<T>, needed: Right) -> Result<Result<T, Right>> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error) if is_forbidden(&error) => Ok(Err(needed)),
        Err(error) => Err(error),
    }
}

/// What was read; without it there is no answer, and the error says what to ask for.
pub(crate) fn required<T>(read: Result<T>, needed: &Right) -> Result<T> {
    read.map_err(|error| match error {
        error if is_forbidden(&error) => {
            let denied = Gap::Forbidden(needed);
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
        let needed = Right::new("list", "pods", Some("shop"));
        assert_eq!(unless_denied(failed(403), needed.clone()).unwrap(), Err(needed.clone()));
        assert!(unless_denied(failed(500), needed.clone()).is_err());
        assert_eq!(unless_denied(Ok(1), needed.clone()).unwrap(), Ok(1));
        let expected = "not readable: you may not list pods in namespace shop: ask for a role";
        assert!(required(failed(403), &needed).unwrap_err().to_string().starts_with(expected));
        assert!(required(failed(404), &needed).unwrap_err().to_string().contains("installed"));
    }
}
