//! The program itself: its command line, its signals, its logs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::issuer::identity;
use support::{AgentHome, DEFAULT_ID, FakeIssuer};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

fn agent(arguments: &[&str], environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-agent"));
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn end(child: &mut Child) -> ExitStatus {
    tokio::time::timeout(Duration::from_secs(20), child.wait()).await.expect("it ends").unwrap()
}

async fn log_of(child: &mut Child) -> String {
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
    log
}

/// R87: at the most verbose level, the log contains no token and no key in any form.
#[tokio::test]
async fn waits_runs_ends_on_sigterm_and_never_logs_a_secret() {
    let mut shop = identity(DEFAULT_ID);
    shop.jwt_audiences = vec!["payments".into()];
    let (home, issuer) = (AgentHome::new(), FakeIssuer::start(vec![shop]).await);
    let mut environment = home.environment(&issuer);
    environment.push(("COUNTERSIGN_LOG", "trace".into()));
    // A file: a pipe that is not read would fill up and block the agent.
    let log = std::fs::File::create(home.path("log")).unwrap();
    let mut running = agent(&["run"], &environment).stderr(log).spawn().unwrap();
    let waited = end(&mut agent(&["wait", "--timeout", "20s"], &environment).spawn().unwrap()).await;
    assert!(waited.success());
    assert!(
        home.credentials().join("credential-bundle.private-key.x509.pem").exists(),
        "wait returns no sooner than it is there"
    );
    let client = spiffe::WorkloadApiClient::connect_to(home.endpoint()).await.unwrap();
    let token = client.fetch_jwt_token(["api"], None).await.unwrap();

    kill(Pid::from_raw(running.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(end(&mut running).await.code(), Some(0));
    let log = std::fs::read_to_string(home.path("log")).unwrap();
    let read = |file: &str| std::fs::read_to_string(home.credentials().join(file)).unwrap();
    assert!(log.contains(DEFAULT_ID), "the log is there: {log}");
    let key = read("tls.key").lines().nth(1).unwrap().to_owned();
    let pod_token = std::fs::read_to_string(home.path("token")).unwrap();
    let tokens = [token, read("jwt/payments.token"), pod_token];
    let parts = tokens.iter().flat_map(|token| token.split('.').skip(1));
    for secret in parts.filter(|part| part.len() > 8).chain([key.as_str()]) {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn wait_leaves_its_reason_as_the_termination_message() {
    let (home, issuer) = (AgentHome::new(), FakeIssuer::start(Vec::new()).await);
    let environment = home.environment(&issuer);
    let _running = agent(&["run"], &environment).spawn().unwrap();
    let mut poll = tokio::time::interval(Duration::from_millis(5));
    while !std::fs::read_to_string(home.path("private/status")).unwrap_or_default().contains("selects it") {
        poll.tick().await;
    }
    let message = home.path("termination-log");
    let arguments = ["wait", "--timeout", "50ms", "--termination-log", message.to_str().unwrap()];
    let waited = end(&mut agent(&arguments, &environment).spawn().unwrap()).await;
    assert_eq!(waited.code(), Some(1));
    assert_eq!(std::fs::read_to_string(message).unwrap(), "no identity after 50ms: no WorkloadIdentity selects it");
    assert_eq!(issuer.state.hellos.load(Ordering::Relaxed), 1, "a pod without identity keeps its stream");
}

/// The files in `/proc` of a process that is not dumpable belong to root, and no core is written for it (prctl(2), core(5)).
/// Both commands have the token's volume mounted, and so need this.
#[tokio::test]
async fn no_other_process_of_its_user_reads_its_memory_or_files_and_it_leaves_no_core() {
    let home = AgentHome::new();
    // Readable: the mode 0111 of the image would have the same effect.
    let program = home.path("agent");
    std::fs::copy(env!("CARGO_BIN_EXE_countersign-agent"), &program).unwrap();
    std::fs::set_permissions(home.directory.path(), Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(home.path("private"), Permissions::from_mode(0o777)).unwrap();
    std::fs::set_permissions(home.path("identity"), Permissions::from_mode(0o777)).unwrap();
    let issuer = FakeIssuer::start(Vec::new()).await;
    for arguments in [["run"].as_slice(), &["wait", "--timeout", "1m"]] {
        // As a user that is not root, with the largest core that is allowed.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"ulimit -c "$(ulimit -H -c)" && exec "$0" "$@""#]).arg(&program).args(arguments);
        command.env_clear().envs(home.environment(&issuer)).current_dir(home.path("private")).kill_on_drop(true);
        if nix::unistd::Uid::effective().is_root() {
            command.uid(65532).gid(65532);
        }
        let mut running = command.spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", running.id().unwrap()));
        let is_protected = async {
            let mut poll = tokio::time::interval(Duration::from_millis(5));
            // Until `exec` the process is the shell.
            while std::fs::read_to_string(process.join("comm")).unwrap() != "agent\n"
                || std::fs::symlink_metadata(process.join("environ")).unwrap().uid() != 0
            {
                poll.tick().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), is_protected).await;
        assert!(in_time.is_ok(), "{arguments:?}: its own user can read its files in /proc");
        kill(Pid::from_raw(running.id().unwrap().cast_signed()), Signal::SIGABRT).unwrap();
        let ended = end(&mut running).await;
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_missing_variable_is_named() {
    let mut ended = agent(&["run"], &[]).spawn().unwrap();
    assert_eq!(end(&mut ended).await.code(), Some(1));
    assert!(log_of(&mut ended).await.contains("COUNTERSIGN_ISSUER is not set"));
}

/// R3: each container's session has its own identity, over one connection.
#[tokio::test]
async fn sessions_are_apart() {
    let (home, issuer) = (AgentHome::new(), FakeIssuer::start(vec![identity(DEFAULT_ID)]).await);
    let mut environment = home.environment(&issuer);
    let directories = ["a", "b"].map(|name| home.path(name));
    directories.iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
    let sessions = format!("a={},b={}", directories[0].display(), directories[1].display());
    environment.retain(|(name, _)| *name != "COUNTERSIGN_SESSIONS");
    environment.push(("COUNTERSIGN_SESSIONS", sessions));
    let _running = agent(&["run"], &environment).spawn().unwrap();
    assert!(end(&mut agent(&["wait"], &environment).spawn().unwrap()).await.success());
    let keys = directories.map(|directory| std::fs::read_to_string(directory.join("credentials/tls.key")).unwrap());
    assert_ne!(keys[0], keys[1]);
    assert_eq!(issuer.state.hellos.load(Ordering::Relaxed), 2);
}
