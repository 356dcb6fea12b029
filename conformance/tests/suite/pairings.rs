//! Pairings: each of three clients calls each over mTLS, within a trust domain and across two that federate. Every call is
//! judged by both ends: the caller knows the server, and the server says whom it saw.

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::control::Decision;
use crate::support::env::{FEDERATED, OWN};
use crate::support::failure::{Verdict, expect, fail};
use crate::support::mock::{Listening, Mock, X509Update};
use crate::support::process::{Harness, Program, READY, Start};

#[derive(Debug, Clone, Copy)]
enum Client {
    Verify,
    GoSpiffe,
    Spiffe,
}

use Client::{GoSpiffe, Spiffe, Verify};

macro_rules! pairings {
    ($($within:ident, $across:ident: $caller:expr, $server:expr;)*) => {$(
        #[tokio::test]
        async fn $within() -> Verdict {
            call($caller, $server, OWN, stringify!($within)).await
        }

        #[tokio::test]
        async fn $across() -> Verdict {
            call($caller, $server, FEDERATED, stringify!($across)).await
        }
    )*};
}

pairings! {
    verify_calls_verify, verify_calls_verify_of_another_trust_domain: Verify, Verify;
    verify_calls_go_spiffe, verify_calls_go_spiffe_of_another_trust_domain: Verify, GoSpiffe;
    verify_calls_spiffe, verify_calls_spiffe_of_another_trust_domain: Verify, Spiffe;
    go_spiffe_calls_verify, go_spiffe_calls_verify_of_another_trust_domain: GoSpiffe, Verify;
    go_spiffe_calls_go_spiffe, go_spiffe_calls_go_spiffe_of_another_trust_domain: GoSpiffe, GoSpiffe;
    go_spiffe_calls_spiffe, go_spiffe_calls_spiffe_of_another_trust_domain: GoSpiffe, Spiffe;
    spiffe_calls_verify, spiffe_calls_verify_of_another_trust_domain: Spiffe, Verify;
    spiffe_calls_go_spiffe, spiffe_calls_go_spiffe_of_another_trust_domain: Spiffe, GoSpiffe;
    spiffe_calls_spiffe, spiffe_calls_spiffe_of_another_trust_domain: Spiffe, Spiffe;
}

/// A call from [`OWN`] to a server of this trust domain.
#[expect(clippy::print_stderr, reason = "a test that did not run must not look as if it had")]
async fn call(caller: Client, server: Client, server_domain: &str, test: &str) -> Verdict {
    let (Some(caller), Some(server)) = (caller.program(), server.program()) else {
        eprintln!("NOT RUN: {test}: there is no harness of go-spiffe (COUNTERSIGN_GO_HARNESS)");
        return Ok(());
    };
    let here = Authority::new(OWN);
    let there = (server_domain != OWN).then(|| Authority::new(server_domain));
    let here_api = WorkloadApi::serve(&here, there.as_ref())?;
    let there_api = there.as_ref().map(|there| WorkloadApi::serve(there, Some(&here))).transpose()?;
    let (of_caller, of_server) = (here.id(PATH), there.as_ref().unwrap_or(&here).id(PATH));

    let caller = here_api.start(&caller).await?;
    let server = there_api.as_ref().unwrap_or(&here_api).start(&server).await?;
    let (decision, seen) = caller.control()?.dial_harness(server.x509_port()?).await?;
    let logs = format!("{}\n{}", caller.log(), server.log());
    caller.end().await;
    server.end().await;
    expect(decision == Decision::Accepted(of_server), || format!("the caller decided {decision:?}\n{logs}"))?;
    expect(seen == of_caller, || format!("the server saw {seen:?}\n{logs}"))
}

const PATH: &str = "/workload";

impl Client {
    fn program(self) -> Option<Program> {
        match self {
            Verify => Some(Program::ours()),
            GoSpiffe => Program::go(),
            Spiffe => Some(Program::spiffe()),
        }
    }
}

/// The Workload API of one trust domain.
struct WorkloadApi {
    folder: TempDir,
    _listening: Listening,
}

impl WorkloadApi {
    fn serve(own: &Authority, federated: Option<&Authority>) -> anyhow::Result<Self> {
        let mock = Mock::new();
        let svid = own.issue(&own.id(PATH));
        mock.push_x509(X509Update { svids: &[&svid], bundle: &[own], federated: federated.as_slice() });
        let folder = TempDir::new()?;
        let _listening = mock.listen_unix(&folder.path().join("workload.sock"))?;
        Ok(Self { folder, _listening })
    }

    async fn start(&self, program: &Program) -> Verdict<Harness> {
        let socket = self.folder.path().join("workload.sock");
        let mut harness = program.start(&format!("unix://{}", socket.display()))?;
        match harness.ready(READY).await? {
            Start::Ready => Ok(harness),
            start => fail(format!("{program:?}: {start:?}: {}", harness.log())),
        }
    }
}
