//! DNS, as a value that tests choose.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::future::BoxFuture;

/// The addresses of a name, once they are there.
pub type Resolving<'a> = BoxFuture<'a, io::Result<Vec<IpAddr>>>;

/// Looks up the addresses of a host name.
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, in the order in which they should be tried.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The resolver of the system (`getaddrinfo`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, 0)).await?;
            Ok(addresses.map(|address: SocketAddr| address.ip()).collect())
        })
    }
}
