//! Writes the issuer's events on pods as Kubernetes events.

use countersign_issuer::events::{PodEvent, PodEvents, PodRef};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use countersign_contract::objects::OPERATOR;

/// The longest note the Kubernetes API takes, bytes.
const MAX_NOTE: usize = 1024;

/// Writes events until every sink is gone, within their rates.
pub async fn publish(client: Client, mut events: PodEvents) {
    let recorder = Recorder::new(client, Reporter { controller: OPERATOR.to_owned(), instance: None });
    while let Some((pod, session, about)) = events.next_within_rate().await {
        if let Err(error) = recorder.publish(&event(&session, &about), &reference(&pod)).await {
            tracing::debug!(namespace = pod.namespace, pod = pod.name, %error, "event could not be written");
        }
    }
}

fn event(session: &str, about: &PodEvent) -> Event {
    let type_ = if about.is_warning() { EventType::Warning } else { EventType::Normal };
    let reason = about.reason();
    // What is cut off must not be the code.
    let text = about.text();
    let longest = MAX_NOTE.saturating_sub(session.len() + "container :  (CS0000)".len());
    let text = reason.with_code(text.get(..text.floor_char_boundary(longest)).unwrap_or_default());
    let note = if session.is_empty() { text } else { format!("container {session}: {text}") };
    // The recorder folds events of equal action and reason into one and keeps the first note; the digest keeps different
    // notes apart.
    let action = format!("Entitle-{:08x}", digest(&note));
    Event { type_, reason: reason.name().to_owned(), note: Some(note), action, secondary: None }
}

/// FNV-1a, 32 bits: tells notes apart, protects nothing.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn reference(pod: &PodRef) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_NOTE, event, publish};
    use crate::fake_api_server::answering;
    use countersign_issuer::{
        events::{EventSink, PodEvent, PodRef},
        metrics::IssuerMetrics,
    };
    use serde_json::json;
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Arc,
        time::Duration,
    };
    use tokio::time::Instant;

    fn pod(namespace: &str, uid: &str) -> PodRef {
        PodRef { namespace: namespace.to_owned(), name: "p".to_owned(), uid: uid.to_owned() }
    }

    fn none(why: &str) -> PodEvent {
        PodEvent::NoIdentity(why.to_owned())
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_speaks_of_a_stolen_token_is_written_before_all_else_and_nothing_faster_than_the_rate() {
        let (client, questions) = answering(|_| (201, json!({"metadata": {"name": "e"}, "involvedObject": {}})));
        let (sink, notices) = EventSink::new(Arc::new(IssuerMetrics::default()));
        for number in 0..100 {
            sink.send(pod(&number.to_string(), &number.to_string()), "", none("x"));
        }
        let begin = Instant::now();
        sink.send(pod("n", "stolen"), "", PodEvent::several_addresses([address(1), address(2)].into_iter()));
        drop(sink);
        publish(client, notices).await;
        let asked = questions.all();
        assert_eq!(asked.len(), 101, "what exceeds the rate waits");
        assert!(asked[0].path.contains("/namespaces/n/"), "{}", asked[0].path);
        let at_once = asked.iter().filter(|asked| asked.at == begin).count();
        assert_eq!(at_once, 51);
        assert_eq!(asked.last().map(|asked| asked.at - begin), Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_event_names_the_container_and_fits_the_api() {
        let short = event("app", &none("no grant"));
        assert_eq!(short.note.as_deref(), Some("container app: no grant (CS1200)"));
        let long = event("", &none(&"ä".repeat(2000)));
        assert!(long.note.is_some_and(|note| note.len() <= MAX_NOTE && note.ends_with(" (CS1200)")));
        assert_ne!(event("", &none("x")).action, event("", &none("y")).action);
    }
}
