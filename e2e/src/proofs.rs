//! Chains of services that prove requests to each other, by the workload `hop` and the examples of the agent's proof socket.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    World,
    fixture::{Image, PodSpec},
    pods::{APP, is_event, lines},
    wait::{DEFAULT_TIMEOUT, until},
};

/// The port at which a neighbour takes commands.
const CONTROL: &str = "7000";

/// Arguments of a service, `--accept METHOD` and others, as one text.
#[must_use]
pub fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

impl World {
    /// A pod of `hop`, with the Service of its name at these ports.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn hop(&self, name: &str, ports: &[u16], arguments: &str) -> Result<()> {
        let pod = PodSpec { image: Image::Hop, ..PodSpec::demo(name, &words(arguments)) };
        self.service_of(name, name, ports).await?;
        self.cluster.apply(&pod.pod(&self.namespace)).await.map(drop)
    }

    /// A Service of this name, for the pods with the label `app: APP`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn service_of(&self, name: &str, app: &str, ports: &[u16]) -> Result<()> {
        let ports: Vec<_> = ports.iter().map(|port| format!("{{name: p{port}, port: {port}}}")).collect();
        let yaml = format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {}}}
spec: {{selector: {{app: {app}}}, ports: [{}]}}
",
            self.namespace,
            ports.join(", ")
        );
        self.cluster.apply(&yaml).await.map(drop)
    }

    /// The name by which a Service of the test's namespace is called.
    #[must_use]
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc", self.namespace)
    }

    /// Waits until a service says that it listens.
    ///
    /// # Errors
    /// It did not in time.
    pub async fn listens(&self, pod: &str) -> Result<()> {
        self.ready(pod).await?;
        self.wait_for_output(pod, "that it listens", DEFAULT_TIMEOUT, |line| is_event(line, "listening"))
            .await
            .map(drop)
    }

    /// Calls once from the pod `caller`, of `hop hold`: what comes back, or `error`.
    ///
    /// # Errors
    /// The program could not be run.
    pub async fn call(&self, caller: &str, arguments: &str) -> Result<Value> {
        let command = [vec!["/countersign-hop", "call"], words(arguments)].concat();
        let output = self.exec(caller, &command).await?;
        let said = lines(&String::from_utf8_lossy(&output.stdout));
        let answer = said.into_iter().find(|line| is_event(line, "answer") || is_event(line, "error"));
        answer.with_context(|| format!("{arguments}: {}", output.stderr))
    }

    /// As [`Self::call`], again until it succeeds: names of Services and endpoints take a moment.
    ///
    /// # Errors
    /// It did not in time.
    pub async fn call_until_answered(&self, caller: &str, arguments: &str) -> Result<String> {
        until(&format!("{arguments} is answered"), DEFAULT_TIMEOUT, async || {
            let answer = self.call(caller, arguments).await?;
            Ok(if answer["status"] == 200 { answer["body"].as_str().map(str::to_owned) } else { None })
        })
        .await
    }

    /// Calls so many times from the pod `caller`: how many calls were made, and how many of them failed.
    ///
    /// # Errors
    /// The program could not be run.
    pub async fn calls(&self, caller: &str, count: u32, arguments: &str) -> Result<Value> {
        let count = count.to_string();
        let command = [vec!["/countersign-hop", "call", "--count", &count], words(arguments)].concat();
        let output = self.exec(caller, &command).await?;
        let said = lines(&String::from_utf8_lossy(&output.stdout));
        let done = said.iter().find(|line| is_event(line, "done")).cloned();
        done.with_context(|| format!("{arguments}: {said:?} {}", output.stderr))
    }

    /// Tells a neighbour to repeat all that it forwarded from `port`, at `target`, or where it was for.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn replay(&self, neighbour: &str, port: u16, target: &str) -> Result<Vec<Value>> {
        let answer = self.ask_neighbour(neighbour, &format!("/replay/{port}/{target}")).await?;
        let results = answer["results"].as_array().cloned().with_context(|| answer.to_string())?;
        ensure!(!results.is_empty(), "nothing was recorded at {port}");
        Ok(results)
    }

    /// Tells a neighbour what to alter from now on.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn alter(&self, neighbour: &str, what: &str) -> Result<()> {
        self.ask_neighbour(neighbour, &format!("/alter/{what}")).await.map(drop)
    }

    async fn ask_neighbour(&self, neighbour: &str, path: &str) -> Result<Value> {
        let output = self.exec(neighbour, &["/countersign-hop", "ask", "--port", CONTROL, path]).await?;
        let said = lines(&String::from_utf8_lossy(&output.stdout));
        said.into_iter().next().with_context(|| format!("{path}: {}", output.stderr))
    }

    /// What the application in a pod has logged beside JSON.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn app_log(&self, pod: &str) -> Result<String> {
        self.logs(pod, APP).await
    }
}
