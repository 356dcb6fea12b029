//! Where the credentials of a source come from, and which of them are used.

use std::{env, sync::Arc};

use tokio::runtime::Handle;

#[cfg(feature = "files")]
use super::folder;
use super::{
    AddressError, ENDPOINT_SOCKET, Inner, Source, streams,
    token_cache::{Origin, TokenCache},
    wit::Wit,
};

/// Options of a [`Source`].
#[derive(Clone, Debug, Default)]
pub struct SourceBuilder {
    hint: Option<String>,
}

impl SourceBuilder {
    /// Presents the SVID with this hint instead of the first (SPIFFE Workload API, section 5.2.1). While none has it, none is
    /// presented.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()) }
    }

    /// As [`Source::from_env`].
    ///
    /// # Errors
    /// As [`Source::from_env`].
    pub fn from_env(self) -> Result<Source, AddressError> {
        let address = env::var(ENDPOINT_SOCKET).map_err(|_| AddressError::Missing)?;
        self.from_address(&address)
    }

    /// As [`Source::from_address`].
    ///
    /// # Errors
    /// As [`Source::from_address`].
    pub fn from_address(self, address: &str) -> Result<Source, AddressError> {
        let client = streams::client(address.parse()?);
        let runtime = Handle::current();
        let (x509, x509_task) = streams::x509(&runtime, client.clone());
        let (jwt_bundles, jwt_task) = streams::jwt_bundles(&runtime, client.clone());
        let wit = Wit::from_workload_api(client.clone());
        let tokens = TokenCache::new(Origin::WorkloadApi(client));
        let tasks = vec![x509_task, jwt_task];
        Ok(Source(Arc::new(Inner { x509, jwt_bundles, wit, tokens, hint: self.hint, tasks })))
    }

    /// As [`Source::from_folder`].
    #[cfg(feature = "files")]
    #[must_use]
    pub fn from_folder(self, folder: impl Into<std::path::PathBuf>) -> Source {
        let folder = folder.into();
        let (x509, jwt_bundles, task) = folder::follow(folder.clone());
        let tokens = TokenCache::new(Origin::Folder(folder));
        let wit = Wit::Folder(jwt_bundles.clone());
        Source(Arc::new(Inner { x509, jwt_bundles, wit, tokens, hint: self.hint, tasks: vec![task] }))
    }
}
