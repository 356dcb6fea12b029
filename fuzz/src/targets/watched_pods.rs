//! Pods in the API server's binary form, as decoded by the operator. The API server is trusted, but the content of its
//! objects comes from users who may create pods, and the decoder is hand-written.

use countersign_index::PodRecord;
use countersign_operator::watch::{
    pods::PodLite,
    protobuf::{Events, object},
};
use serde_json::Value;

/// The shortest pod in a list has two bytes; fields that are left out still take space in JSON.
const MOST_PER_BYTE: usize = 256;

/// The events do not depend on how a watch's stream is cut. Each is one line of JSON with pods that the index accepts, a
/// list of them or a refusal. Only annotations that are read pass. The output is at most this many times as long as the
/// input. First byte: the highest bit selects an answer instead of a stream; the others are the length of the pieces.
pub(crate) fn pods(input: &[u8]) {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    if kind & 0x80 != 0 {
        if let Ok(json) = object(input.to_vec()) {
            check(&json, &serde_json::from_slice(&json).unwrap(), input.len());
        }
        return;
    }
    let whole = read(input, input.len().max(1));
    assert_eq!(whole, read(input, usize::from(*kind) + 1));
    for line in &whole.0 {
        let (end, json) = line.split_last().unwrap();
        assert!(*end == b'\n' && !json.contains(end), "not one line");
        let event: Value = serde_json::from_slice(json).unwrap();
        assert!(event["type"].is_string());
        check(json, &event["object"], input.len());
    }
}

/// The lines up to the first error, and that error.
fn read(input: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut events, mut lines) = (Events::default(), Vec::new());
    for piece in input.chunks(piece) {
        events.push(piece);
        loop {
            match events.line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => return (lines, Some(error.to_string())),
            }
        }
    }
    (lines, None)
}

fn check(json: &[u8], object: &Value, came: usize) {
    assert!(json.len() <= (came + 4) * MOST_PER_BYTE, "{came} bytes became {}", json.len());
    assert_eq!(object["apiVersion"], "v1");
    match object["kind"].as_str() {
        Some("Pod") => pod(object),
        Some("PodList") => object["items"].as_array().unwrap().iter().for_each(pod),
        Some("Status") => assert!(object["code"].is_i64()),
        other => panic!("{other:?} was not asked for"),
    }
}

fn pod(object: &Value) {
    let annotations = object["metadata"]["annotations"].as_object().unwrap();
    let is_read =
        |key: &String| ["countersign.dev/", "k8s.io/initial-events-end"].iter().any(|read| key.starts_with(read));
    assert!(annotations.keys().all(is_read), "{annotations:?}");
    let read: PodLite = serde_json::from_value(object.clone()).unwrap();
    let record = PodRecord::from(read);
    assert_eq!(object["metadata"]["name"], record.facts.name);
    assert_eq!(object["metadata"]["uid"], record.facts.uid);
    assert_eq!(object["spec"]["serviceAccountName"], record.facts.service_account);
}

#[cfg(test)]
mod tests {
    use super::{object, read};
    use crate::seeds::seeds;

    #[test]
    fn every_seed_is_read_to_its_end() {
        let inputs = seeds().into_iter().filter(|(target, ..)| *target == "watched-pods");
        let read: Vec<_> = inputs
            .map(|(_, _, input)| match input.split_first().unwrap() {
                (0x80, answer) => usize::from(object(answer.to_vec()).is_ok()),
                (_, stream) => match read(stream, 1) {
                    (lines, None) => lines.len(),
                    (_, Some(error)) => panic!("{error}"),
                },
            })
            .collect();
        assert_eq!(read, [3, 1, 1, 1, 1]);
    }
}
