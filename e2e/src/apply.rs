//! Creates objects from YAML by server-side apply, in document order.

use anyhow::{Context as _, Result};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};

use crate::Cluster;

/// The field manager of the tests.
pub const FIELD_MANAGER: &str = "countersign-e2e";

/// Parses all documents of a YAML text.
///
/// # Errors
/// The text is not YAML, or a document is not an object with kind and name.
pub fn documents(yaml: &str) -> Result<Vec<DynamicObject>> {
    serde_saphyr::from_multiple(yaml).with_context(|| format!("read objects from:\n{yaml}"))
}

impl Cluster {
    /// Applies all documents of a YAML text in order, and returns the resulting objects.
    ///
    /// # Errors
    /// The API server refuses one of them: those before it have been applied, those after it have not. The error's source
    /// is the `kube::Error`.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        let mut applied = Vec::new();
        for object in documents(yaml)? {
            applied.push(self.apply_object(&object).await?);
        }
        Ok(applied)
    }

    /// Applies one object.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply_object(&self, object: &DynamicObject) -> Result<DynamicObject> {
        let (api, name) = self.find(object).await?;
        api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object))
            .await
            .with_context(|| format!("apply {}", title(object)))
    }

    /// Applies one object that the API server must refuse, and returns its message.
    ///
    /// # Errors
    /// It was accepted, or refused for a reason other than its content.
    pub async fn refusal(&self, yaml: &str) -> Result<String> {
        match self.apply(yaml).await {
            Ok(_) => anyhow::bail!("the API server accepted:\n{yaml}"),
            Err(error) => match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) if [400, 403, 422].contains(&status.code) => Ok(status.message.clone()),
                _ => Err(error),
            },
        }
    }

    /// Deletes one object; it is no error if it does not exist.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, object: &DynamicObject) -> Result<()> {
        let (api, name) = self.find(object).await?;
        delete(&api, &name).await.with_context(|| format!("delete {}", title(object)))
    }

    async fn find(&self, object: &DynamicObject) -> Result<(Api<DynamicObject>, String)> {
        let types = object.types.as_ref().context("an object without kind")?;
        let gvk = GroupVersionKind::try_from(types).context("an object's apiVersion")?;
        let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
        let name = object.metadata.name.clone().context("an object without name")?;
        Ok((self.kind(&gvk, namespace).await?, name))
    }
}

/// Deletes an object by name in the background; it is no error if it does not exist.
///
/// # Errors
/// The API server refuses.
pub async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn title(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| types.kind.as_str());
    let namespace = object.metadata.namespace.as_deref().unwrap_or("-");
    let name = object.metadata.name.as_deref().unwrap_or("?");
    format!("{kind} {namespace}/{name}")
}
