//! TCP connections, to addresses that were checked and to nothing else.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use countersign_core::federation::FetchError;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Host;

use crate::address::AddressPolicy;
use crate::location::Location;
use crate::resolve::Resolve;

/// Connects to the first of the allowed addresses of `location` that answers within `limit`. Names are looked up once: the
/// address that is called is the one that was checked, whatever DNS says a moment later.
///
/// # Errors
/// When there is no address, none that may be called, or none that answers.
pub(crate) async fn connect(
    location: &Location,
    policy: &AddressPolicy,
    resolver: &dyn Resolve,
    limit: Duration,
) -> Result<TcpStream, FetchError> {
    let found = addresses(location.host(), resolver).await?;
    let allowed: Vec<IpAddr> = found.into_iter().filter(|address| policy.allows(*address)).collect();
    if allowed.is_empty() {
        return Err(FetchError::AddressRefused);
    }
    for address in allowed {
        let connecting = TcpStream::connect(SocketAddr::new(address, location.port()));
        if let Ok(Ok(stream)) = timeout(limit, connecting).await {
            return Ok(stream);
        }
    }
    Err(FetchError::Connect)
}

/// The addresses of a host, at least one.
async fn addresses(host: &Host, resolver: &dyn Resolve) -> Result<Vec<IpAddr>, FetchError> {
    let found = match host {
        Host::Ipv4(address) => vec![(*address).into()],
        Host::Ipv6(address) => vec![(*address).into()],
        Host::Domain(name) => resolver.resolve(name).await.unwrap_or_default(),
    };
    if found.is_empty() { Err(FetchError::Resolve) } else { Ok(found) }
}
