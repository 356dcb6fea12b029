//! The webhook, called directly: it answers every input with a clear error and keeps serving.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result};
use countersign_e2e::{Cluster, cluster::SYSTEM, scenario};
use http::Request;
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Service};
use kube::{Api, Client, Config};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

/// A client of the webhook, which connects as the API server does: to the Service's address, with the published `caBundle`.
async fn webhook(cluster: &Cluster) -> Result<Client> {
    let service = cluster.api::<Service>(SYSTEM).get("countersign-webhook").await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("the webhook's Service has no address")?;
    let configuration =
        Api::<MutatingWebhookConfiguration>::all(cluster.client.clone()).get("countersign").await?.webhooks;
    let bundle = configuration.into_iter().flatten().next().and_then(|webhook| webhook.client_config.ca_bundle);
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bundle.context("no caBundle")?.0).collect();
    let mut config = Config::new(format!("https://{address}:443").parse()?);
    config.root_cert = Some(roots?.iter().map(|root| root.to_vec()).collect());
    config.tls_server_name = Some(format!("countersign-webhook.{SYSTEM}.svc"));
    Ok(Client::try_from(config)?)
}

async fn post(webhook: &Client, path: &str, body: String) -> Result<Result<String, (u16, String)>> {
    let request = Request::post(path).header("content-type", "application/json").body(body.into_bytes())?;
    match webhook.request_text(request).await {
        Ok(text) => Ok(Ok(text)),
        Err(kube::Error::Api(status)) => Ok(Err((status.code, status.message.clone()))),
        Err(error) => Err(error.into()),
    }
}

fn review(object: &Value) -> String {
    let request = json!({ "uid": "u1", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE",
        "namespace": "somewhere", "object": object });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request }).to_string()
}

#[tokio::test]
async fn what_is_no_pod_no_review_or_huge_gets_a_clear_error() {
    scenario("admission", async |world| {
        let webhook = webhook(&world.cluster).await?;
        for path in ["/mutate-pods/by-pod", "/mutate-pods/by-namespace"] {
            let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "replicas": 1 } });
            for (what, object) in [("a Deployment", deployment), ("a list", json!([])), ("nothing", Value::Null)] {
                let answer = post(&webhook, path, review(&object)).await?;
                let answer: Value = serde_json::from_str(&answer.map_err(|error| anyhow::anyhow!("{error:?}"))?)?;
                assert_eq!(answer["response"]["allowed"], false, "{what}: {answer}");
                let message = answer["response"]["status"]["message"].as_str().unwrap_or_default();
                assert!(message.contains("not a pod"), "{what}: {message}");
            }
            for (what, body, code, named) in [
                ("no review", "{}".to_owned(), 400, "AdmissionReview"),
                ("no JSON", "[".repeat(100_000), 400, "AdmissionReview"),
                ("a huge one", " ".repeat(3 * 1024 * 1024 + 1), 413, "3145728"),
            ] {
                let (status, message) = post(&webhook, path, body).await?.expect_err(what);
                assert_eq!(status, code, "{what}: {message}");
                assert!(message.contains(named), "{what}: {message}");
            }
        }
        // The webhook keeps serving: a pod is injected.
        let pod = countersign_e2e::fixture::PodSpec::hold("after");
        let applied = world.cluster.apply(&pod.pod(&world.namespace)).await?;
        let injected = &applied.last().expect("a pod").data["spec"]["initContainers"][0]["name"];
        assert_eq!(injected, "countersign-agent");
        Ok(())
    })
    .await;
}
