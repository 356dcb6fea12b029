//! A client of etcd over its JSON gateway, from inside the node's network.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The client address of etcd in our own clusters.
const ADDRESS: &str = "127.0.0.1:2379";

/// Compacts etcd's history to the newest revision.
pub(super) fn compact() -> Result<()> {
    // Any read returns the newest revision; this key, one zero byte, does not exist.
    let read = ask("/v3/kv/range", &json!({ "key": "AA==" }))?;
    let revision = read.pointer("/header/revision").context("etcd names no revision")?;
    ask("/v3/kv/compaction", &json!({ "revision": revision, "physical": true })).map(drop)
}

fn ask(path: &str, body: &Value) -> Result<Value> {
    let mut stream = TcpStream::connect(ADDRESS).context("connecting to etcd")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let body = body.to_string();
    // With HTTP/1.0 the answer ends with the connection.
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {ADDRESS}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading etcd's answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("etcd's answer has no end of its head")?;
    if head.split_ascii_whitespace().nth(1) != Some("200") {
        bail!("etcd refuses {path}: {answer}");
    }
    serde_json::from_str(body).context("etcd's answer is no JSON")
}
