//! The program as it runs in its pod: readiness, ports, web certificates that come later, and its end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

/// Where `test_set` finds what it is made of.
mod publication {
    pub(crate) use countersign_endpoint::publication::Entry;
}
#[path = "../src/test_set.rs"]
#[allow(dead_code, reason = "the unit tests use more of it")]
mod test_set;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use jiff::Timestamp;
use test_set::TestDomain;

/// Long enough for a machine that is busy; no test waits for it to end.
const PATIENCE: Duration = Duration::from_secs(60);

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Status and text of `/readyz`; `None` while nothing listens.
fn ready(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}

async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        loop {
            ticks.tick().await;
            if let Some(value) = condition() {
                return value;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("timeout: {what}"))
}

fn write_set(directory: &Path) {
    let now = Timestamp::now();
    for entry in TestDomain::new("a.example", now).files("", None, now) {
        let path = directory.join("1").join(&entry.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &entry.content).unwrap();
    }
    symlink("1", directory.join("credentials")).unwrap();
}

fn write_web_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    fs::write(directory.join("tls.crt"), made.cert.pem()).unwrap();
    fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn it_is_ready_with_its_first_set_opens_the_web_with_its_first_certificate_and_ends_when_told() {
    let (identity, web) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The Secret is optional: the kubelet mounts an empty directory.
    let mounted = web.path().join("default");
    fs::create_dir(&mounted).unwrap();
    let (spiffe, https, http) = (free(), free(), free());
    let child = Command::new(env!("CARGO_BIN_EXE_countersign-endpoint"))
        .arg("--identity-dir")
        .arg(identity.path())
        .arg("--web-certificates")
        .arg(web.path())
        .args([format!("--listen-spiffe={spiffe}"), format!("--listen-web={https}"), format!("--listen-http={http}")])
        .args(["--drain=10ms", "--log=warn", "--host=x.example=a.example", "--host", "y.example=a.example"])
        .spawn()
        .unwrap();
    let mut program = Program(child);
    let response = eventually("the port of probes opens", || ready(http)).await;
    assert!(response.contains("503") && response.contains("no set of credentials was published yet"), "{response}");
    write_set(identity.path());
    eventually("it is ready", || ready(http).filter(|response| response.starts_with("HTTP/1.1 200"))).await;
    assert!(TcpStream::connect(spiffe).is_ok());
    assert!(TcpStream::connect(https).is_err(), "there is no certificate for it");
    write_web_certificate(&mounted);
    eventually("the port of the web opens", || TcpStream::connect(https).ok()).await;
    Command::new("kill").arg(program.0.id().to_string()).status().unwrap();
    let ended: ExitStatus = eventually("it ends", || program.0.try_wait().unwrap()).await;
    assert!(ended.success(), "{ended}");
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign-endpoint"))
        .args(["--host=x.example=a.example", "--host=x.example=b.example"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("x.example stands for a.example and for b.example"), "{error}");
}
