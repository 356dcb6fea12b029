//! Waiting for conditions, with a deadline and an error that shows the last observed state.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use kube::{Api, Resource, runtime::watcher};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{interval, timeout};

/// Timeout for anything that should happen, on a machine that is busy with other tests.
///
/// After an outage of the API server, the components of Kubernetes recover most slowly: scheduler, kubelet and controllers retry
/// after up to a minute (client-go's reflector: 30 s plus as much jitter), and once more if the API server has not loaded its
/// roles by then.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(240);

/// Polls until there is a result, for state that cannot be watched.
///
/// # Errors
/// The deadline passed; the error states what was waited for and the result of the last poll.
pub async fn until<T>(what: &str, deadline: Duration, mut poll: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let mut last = None;
    let polling = async {
        let mut tick = interval(Duration::from_millis(200));
        loop {
            tick.tick().await;
            match poll().await {
                Ok(Some(answer)) => return answer,
                Ok(None) => last = None,
                Err(error) => last = Some(error),
            }
        }
    };
    match timeout(deadline, polling).await {
        Ok(answer) => Ok(answer),
        Err(_) => match last {
            Some(error) => Err(error).with_context(|| format!("waited {deadline:?} until {what}")),
            None => bail!("waited {deadline:?} until {what}"),
        },
    }
}

/// Watches one object until it satisfies `wanted`.
///
/// # Errors
/// The deadline passed; the error states what was waited for and shows the object as last seen.
pub async fn watch<K>(api: &Api<K>, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let mut last = None;
    let watching = async {
        let mut seen = std::pin::pin!(watcher::watch_object(api.clone(), name));
        while let Some(update) = seen.next().await {
            // The watcher retries after an error.
            if let Ok(update) = update {
                if let Some(object) = update.clone().filter(|object| wanted(object)) {
                    return Some(object);
                }
                last = update;
            }
        }
        None
    };
    match timeout(DEFAULT_TIMEOUT, watching).await {
        Ok(Some(object)) => Ok(object),
        Ok(None) => bail!("the watch ended before {name} was {what}"),
        Err(_) => {
            let seen = last.map_or_else(|| "it does not exist".to_owned(), |object| outline(&object));
            bail!("waited {DEFAULT_TIMEOUT:?} until {name} was {what}; last seen: {seen}")
        }
    }
}

/// Waits until an object is deleted.
///
/// # Errors
/// The deadline passed.
pub async fn gone<K>(api: &Api<K>, name: &str, deadline: Duration) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    until(&format!("{name} is gone"), deadline, async || Ok(api.get_opt(name).await?.is_none().then_some(()))).await
}

/// Status and name of an object, for an error.
fn outline<K: Serialize>(object: &K) -> String {
    let value = serde_json::to_value(object).unwrap_or_default();
    value.get("status").unwrap_or(&value).to_string()
}
