//! The messages of the Issuer API and of the Workload API.

use std::fmt::Debug;

use countersign_proto::issuer::v1::{SessionRequest, SessionResponse, session_request, session_response};
use countersign_proto::workload::{
    JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, WitsvidResponse, X509svidRequest, X509svidResponse,
};
use prost::Message;

/// An accepted message can be written and read again unchanged, and its log output reveals no secret: with the same mark
/// appended to every secret, the mark does not appear. The first byte chooses the message.
pub(crate) fn messages(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % 8 {
        0 => check(rest, |message: &mut SessionRequest| match message.kind.as_mut() {
            Some(session_request::Kind::Hello(hello)) => {
                mark(&mut hello.token);
                hello.x509.iter_mut().for_each(|x509| mark(&mut x509.token));
            }
            Some(session_request::Kind::TokenRefresh(refresh)) => mark(&mut refresh.token),
            Some(session_request::Kind::X509(x509)) => mark(&mut x509.token),
            Some(session_request::Kind::Jwt(jwt)) => mark(&mut jwt.token),
            Some(session_request::Kind::Wit(wit)) => mark(&mut wit.token),
            Some(session_request::Kind::Ack(_) | session_request::Kind::Receipt(_)) | None => {}
        }),
        1 => check(rest, |message: &mut SessionResponse| match message.kind.as_mut() {
            Some(session_response::Kind::Jwt(jwt)) => mark(&mut jwt.token),
            Some(session_response::Kind::Wit(wit)) => mark(&mut wit.token),
            _ => {}
        }),
        2 => check(rest, |message: &mut X509svidResponse| {
            for svid in &mut message.svids {
                svid.x509_svid_key = MARK.as_bytes().into();
            }
        }),
        3 => check(rest, |message: &mut JwtsvidResponse| {
            message.svids.iter_mut().for_each(|svid| mark(&mut svid.svid));
        }),
        4 => check(rest, |message: &mut ValidateJwtsvidRequest| mark(&mut message.svid)),
        5 => check(rest, |_: &mut JwtsvidRequest| {}),
        6 => check(rest, |message: &mut WitsvidResponse| {
            for svid in &mut message.svids {
                mark(&mut svid.wit_svid);
                mark(&mut svid.wit_svid_key);
            }
        }),
        _ => check(rest, |_: &mut X509svidRequest| {}),
    }
}

const MARK: &str = "a secret that nobody else would write";

/// How `Debug` prints the beginning of the mark as bytes.
const MARK_AS_NUMBERS: &str = "97, 32, 115, 101";

fn mark(secret: &mut String) {
    secret.push_str(MARK);
}

fn check<M: Message + Default + PartialEq + Debug>(bytes: &[u8], mark: impl Fn(&mut M)) {
    let Ok(mut message) = M::decode(bytes) else {
        return;
    };
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).unwrap(), message);
    let shows = |message: &M| {
        let shown = format!("{message:?}{message:#?}");
        [MARK, MARK_AS_NUMBERS].iter().any(|mark| shown.contains(mark))
    };
    // The fuzzer sees comparisons with its input, and may write the mark into fields that may be shown.
    if shows(&message) {
        return;
    }
    mark(&mut message);
    assert!(!shows(&message), "{message:?}");
}
