//! Replaces the issuer's Service: agents connect to one address, and the operator sees each connection come from its own
//! address of 127.0.0.0/8, as pods have, because connection limits apply per address. Bytes pass unchanged; TLS ends in the
//! agent and in the operator. It is a separate process, since each agent needs two more open files here.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Enough for one or two messages.
const BUFFER: usize = 2048;

/// A relay's process, killed on drop.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    child: Child,
    orders: ChildStdin,
}

impl Relay {
    /// Starts this program again as a relay; `number` separates the addresses of several relays.
    pub(crate) fn start(number: u8, target: SocketAddr) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--relay", &number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a relay")?;
        let orders = child.stdin.take().context("a relay has an input")?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().context("a relay has an output")?).read_line(&mut said)?;
        let address = said.trim().parse().context("a relay says where it listens")?;
        let mut relay = Self { address, child, orders };
        relay.lead_to(target)?;
        Ok(relay)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends new connections to another target; existing connections stay.
    pub(crate) fn lead_to(&mut self, target: SocketAddr) -> Result<()> {
        writeln!(self.orders, "{target}").context("ordering a relay")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The relay's process: prints its address, and reads targets from standard input until that ends.
pub(crate) async fn serve(number: u8) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(16 * 1024)?;
    println!("{}", listener.local_addr()?);
    let accepting = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut orders = std::io::stdin().lines();
        let first = orders.next().context("a relay is told where to lead")??;
        let target = Arc::new(RwLock::new(first.parse()?));
        accepting.spawn(accept(listener, number, target.clone()));
        for order in orders {
            *target.write().unwrap_or_else(PoisonError::into_inner) = order?.parse()?;
        }
        Ok(())
    })
    .await?
}

async fn accept(listener: TcpListener, number: u8, target: Arc<RwLock<SocketAddr>>) {
    let next = AtomicU32::new(0);
    while let Ok((agent, _)) = listener.accept().await {
        let target = *target.read().unwrap_or_else(PoisonError::into_inner);
        let source = source(number, next.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(async move {
            // If either end closes, the other is closed as well.
            let _ = pass(agent, source, target).await;
        });
    }
}

async fn pass(mut agent: TcpStream, source: Ipv4Addr, target: SocketAddr) -> std::io::Result<()> {
    agent.set_nodelay(true)?;
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((source, 0).into())?;
    let mut issuer = socket.connect(target).await?;
    issuer.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut agent, &mut issuer, BUFFER, BUFFER).await?;
    Ok(())
}

/// One of 64,000 loopback addresses of a relay.
fn source(relay: u8, number: u32) -> Ipv4Addr {
    let [.., high, low] = (number % 64_000).to_be_bytes();
    Ipv4Addr::new(127, 100_u8.saturating_add(relay), high, low)
}
