//! Which addresses may be called. Whoever controls a peer's DNS or its redirects could otherwise make the operator call the
//! cluster's own services, the cloud's metadata service or the machine itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Special-purpose IPv4 networks (IANA registry, RFC 6890): none of them is a host on the public internet.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),       // this network, unspecified
    v4([10, 0, 0, 0], 8),      // private (RFC 1918)
    v4([100, 64, 0, 0], 10),   // shared by carriers (RFC 6598)
    v4([127, 0, 0, 0], 8),     // loopback
    v4([169, 254, 0, 0], 16),  // link-local, metadata services of clouds
    v4([172, 16, 0, 0], 12),   // private (RFC 1918)
    v4([192, 0, 0, 0], 24),    // protocol assignments
    v4([192, 0, 2, 0], 24),    // documentation
    v4([192, 88, 99, 0], 24),  // relays of 6to4
    v4([192, 168, 0, 0], 16),  // private (RFC 1918)
    v4([198, 18, 0, 0], 15),   // benchmarking
    v4([198, 51, 100, 0], 24), // documentation
    v4([203, 0, 113, 0], 24),  // documentation
    v4([224, 0, 0, 0], 4),     // multicast
    v4([240, 0, 0, 0], 4),     // reserved, broadcast
];

/// All of IPv6 that is assigned to hosts on the public internet (RFC 4291, section 2.4).
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Special-purpose networks within [`GLOBAL_V6`].
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // protocol assignments: Teredo, benchmarking, ORCHID
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4, which leads to any IPv4 address
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation
];

/// Translated to the IPv4 address in its last four bytes (RFC 6052, section 2.1).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// IPv4-mapped addresses (RFC 4291, section 2.5.5.2).
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);

/// Which addresses may be called: public unicast addresses, and those of networks that are allowed explicitly. The default
/// allows no such network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<Network>,
}

/// A network whose addresses may be called though they are not public, such as `10.0.0.0/8` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an address, a slash and the length of the prefix.
    #[error("not a network; write it as 10.0.0.0/8 or fd00::/8")]
    Syntax,
    /// Bits beyond the prefix are set, so that one of the two is wrong.
    #[error("the address has bits set beyond its prefix; write the first address of the network")]
    HostBits,
    /// IPv4 written as IPv6.
    #[error("an IPv4-mapped network; write it as IPv4")]
    Mapped,
}

impl AddressPolicy {
    /// Public unicast addresses, and those in `allowed`.
    pub fn allowing(allowed: impl IntoIterator<Item = Network>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// Whether this address may be called. An IPv4-mapped address is judged as the IPv4 address that it leads to.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.iter().any(|network| network.0.contains(&address))
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network: IpNet = text.parse().map_err(|_| NetworkError::Syntax)?;
        if network != network.trunc() {
            return Err(NetworkError::HostBits);
        }
        match network {
            IpNet::V6(v6) if MAPPED.contains(&v6) => Err(NetworkError::Mapped),
            network => Ok(Self(network)),
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|network| network.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if NAT64.contains(&address) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address))
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowing(networks: &[&str]) -> AddressPolicy {
        AddressPolicy::allowing(networks.iter().map(|network| network.parse().unwrap()))
    }

    fn allows(policy: &AddressPolicy, address: &str) -> bool {
        policy.allows(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_may_be_called() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700:4700::1111",
            "3fff:1000::1",
        ] {
            assert!(allows(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn addresses_with_a_special_purpose_are_refused() {
        for address in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::1.1.1.1",
            "::ffff:0:1.1.1.1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1.1.1.1",
            "100::1",
            "1fff::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:101:101::1",
            "2002:a00:1::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!allows(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_may_be_called_and_nothing_beside_it() {
        let policy = allowing(&["10.1.0.0/16", "fd12::/16", "127.0.0.1/32"]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "127.0.0.1", "1.1.1.1"] {
            assert!(allows(&policy, address), "{address}");
        }
        for address in ["10.2.0.0", "fd13::1", "127.0.0.2", "::1", "64:ff9b::10.1.2.3", "::10.1.2.3"] {
            assert!(!allows(&policy, address), "{address}");
        }
    }

    #[test]
    fn a_network_is_the_first_address_and_the_length_of_the_prefix() {
        for network in ["10.0.0.0/8", "0.0.0.0/0", "192.168.1.1/32", "fd00::/8", "::/0", "64:ff9b::/96"] {
            assert!(network.parse::<Network>().is_ok(), "{network}");
        }
        for (network, error) in [
            ("10.0.0.0", NetworkError::Syntax),
            ("10.0.0.0/33", NetworkError::Syntax),
            ("10.0.0/8", NetworkError::Syntax),
            (" 10.0.0.0/8", NetworkError::Syntax),
            ("", NetworkError::Syntax),
            ("10.0.0.1/8", NetworkError::HostBits),
            ("fd00::1/8", NetworkError::HostBits),
            ("::ffff:10.0.0.0/104", NetworkError::Mapped),
        ] {
            assert_eq!(network.parse::<Network>(), Err(error), "{network}");
        }
    }
}
