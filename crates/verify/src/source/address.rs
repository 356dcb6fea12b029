//! The address of a Workload API (SPIFFE Workload Endpoint, section 4).

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// The environment variable of the address.
pub const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Where a Workload API is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// `unix:///path`: a Unix socket.
    Unix(PathBuf),
    /// `tcp://address:port`.
    Tcp(SocketAddr),
}

/// Why a text is not the address of a Workload API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The environment variable is not set.
    #[error("{ENDPOINT_SOCKET} is not set: it names the Workload API, such as unix:///run/countersign/workload.sock")]
    Missing,
    /// Another scheme, or none.
    #[error("the address of a Workload API begins with unix:// or tcp://")]
    Scheme,
    /// `unix://` with a host, without an absolute path, or with a query or fragment.
    #[error("a unix address is unix:// and an absolute path, without host, query or fragment")]
    Unix,
    /// `tcp://` with a name, a path or anything else.
    #[error("a tcp address is tcp://, an IP address, a colon and a port, and nothing else")]
    Tcp,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            // Both `unix:///path` and `unix:/path` have an empty host (RFC 3986, section 3).
            let path = path.strip_prefix("//").unwrap_or(path);
            let is_absolute = path.starts_with('/') && !path.starts_with("//") && path.len() > 1;
            return if is_absolute && !path.contains(['?', '#', '\0']) {
                Ok(Self::Unix(path.into()))
            } else {
                Err(AddressError::Unix)
            };
        }
        let address = text.strip_prefix("tcp://").ok_or(AddressError::Scheme)?;
        let address: SocketAddr = address.parse().map_err(|_| AddressError::Tcp)?;
        let is_unspecified = match address.ip() {
            IpAddr::V4(ip) => ip.is_unspecified(),
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        if is_unspecified || address.port() == 0 { Err(AddressError::Tcp) } else { Ok(Self::Tcp(address)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError};

    #[test]
    fn sockets_and_ip_addresses_with_ports_are_addresses() {
        for text in ["unix:///run/w.sock", "unix:/run/w.sock"] {
            assert_eq!(text.parse(), Ok(Address::Unix("/run/w.sock".into())));
        }
        for text in ["tcp://127.0.0.1:8000", "tcp://[::1]:8000"] {
            assert!(matches!(text.parse(), Ok(Address::Tcp(_))), "{text}");
        }
    }

    #[test]
    fn what_the_specification_leaves_out_is_refused() {
        use AddressError::{Scheme, Tcp, Unix};
        for (text, error) in [
            ("", Scheme),
            ("/run/w.sock", Scheme),
            ("http://127.0.0.1:8000", Scheme),
            ("unix://host/run/w.sock", Unix),
            ("unix://run/w.sock", Unix),
            ("unix:run/w.sock", Unix),
            ("unix:///", Unix),
            ("unix:////run/w.sock", Unix),
            ("unix:///run/w.sock?x=1", Unix),
            ("unix:///run/w.sock#x", Unix),
            ("tcp://localhost:8000", Tcp),
            ("tcp://127.0.0.1", Tcp),
            ("tcp://127.0.0.1:8000/", Tcp),
            ("tcp://127.0.0.1:8000?x=1", Tcp),
            ("tcp://u@127.0.0.1:8000", Tcp),
            ("tcp://127.0.0.1:0", Tcp),
            ("tcp://0.0.0.0:8000", Tcp),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
