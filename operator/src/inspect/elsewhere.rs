//! Pods whose streams come from several addresses, of which no replica alone may know: whoever uses a stolen token at another
//! replica than the agent meets nobody there.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use countersign_proto::inspect::v1::{PodAddresses, ReportResponse};

/// The pods of which the reports of one round, taken together, name more addresses than any of them alone; by uid. What one
/// replica sees by itself it says itself.
#[must_use]
pub fn seen_apart<'a>(reports: impl Iterator<Item = &'a ReportResponse>) -> Vec<(String, BTreeSet<IpAddr>)> {
    let mut pods: HashMap<&str, Seen> = HashMap::new();
    for PodAddresses { uid, addresses, .. } in reports.flat_map(|report| &report.pods) {
        let addresses: BTreeSet<_> = addresses.iter().filter_map(|bytes| address(bytes)).collect();
        let seen = pods.entry(uid).or_default();
        seen.most = seen.most.max(addresses.len());
        if seen.all.is_empty() {
            seen.all = addresses;
        } else {
            seen.all.extend(addresses);
        }
    }
    let apart = pods.into_iter().filter(|(_, seen)| seen.all.len() > seen.most);
    apart.map(|(uid, seen)| (uid.to_owned(), seen.all)).collect()
}

#[derive(Default)]
struct Seen {
    all: BTreeSet<IpAddr>,
    most: usize,
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::{PodAddresses, ReportResponse, seen_apart};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn report(pods: &[(&str, &[&[u8]])]) -> ReportResponse {
        let pods = pods.iter().map(|(uid, addresses)| PodAddresses {
            uid: (*uid).to_owned(),
            addresses: addresses.iter().map(|bytes| bytes.to_vec()).collect(),
            open: true,
        });
        ReportResponse { pods: pods.collect(), ..ReportResponse::default() }
    }

    const ONE: &[u8] = &[10, 0, 0, 1];
    const TWO: &[u8] = &[10, 0, 0, 2];
    const SIX: &[u8] = &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    #[test]
    fn a_pod_that_replicas_see_at_different_addresses_is_named_with_all_of_them() {
        let reports = [
            report(&[("a", &[ONE]), ("b", &[ONE])]),
            report(&[("a", &[TWO]), ("b", &[ONE])]),
            report(&[("a", &[SIX])]),
        ];
        let apart = seen_apart(reports.iter());
        let addresses: [IpAddr; 3] = [
            Ipv4Addr::new(10, 0, 0, 1).into(),
            Ipv4Addr::new(10, 0, 0, 2).into(),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        ];
        assert_eq!(apart, [("a".to_owned(), addresses.into())]);
    }

    #[test]
    fn what_one_replica_sees_alone_is_not_said_again() {
        let reports = [report(&[("a", &[ONE, TWO])]), report(&[("a", &[ONE])]), report(&[])];
        assert_eq!(seen_apart(reports.iter()), []);
    }

    #[test]
    fn what_is_no_address_is_passed_over() {
        let reports = [report(&[("a", &[ONE])]), report(&[("a", &[&[1, 2, 3], &[]])])];
        assert_eq!(seen_apart(reports.iter()), []);
    }
}
