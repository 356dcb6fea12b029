//! From where the streams of a pod came that ended lately. A pod has one address for as long as it lives, so two within a
//! minute mean that its token is used elsewhere, or that the network translates addresses.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

/// How long the address of a stream that has ended is remembered: longer than the time between two rounds of the leader.
pub(super) const MEMORY: Duration = Duration::from_secs(60);

/// A pod that reconnects again and again takes one place for each such time.
const GRAIN: Duration = Duration::from_secs(10);

/// How many are remembered in all; beyond it the oldest are forgotten.
const REMEMBERED: usize = 65_536;

/// Addresses by pod, and the order in which they are forgotten.
#[derive(Debug, Default)]
pub(super) struct EndedStreams {
    by_pod: HashMap<Arc<str>, Vec<(IpAddr, Instant)>>,
    order: VecDeque<(Instant, Arc<str>)>,
}

impl EndedStreams {
    /// A stream of this pod, from this address, has ended.
    pub(super) fn remember(&mut self, pod_uid: &str, address: IpAddr, now: Instant) {
        self.forget(now);
        let uid = self.by_pod.get_key_value(pod_uid).map_or_else(|| Arc::from(pod_uid), |(uid, _)| uid.clone());
        let ended = self.by_pod.entry(uid.clone()).or_default();
        match ended.iter_mut().find(|(known, _)| *known == address) {
            Some((_, at)) if now.saturating_duration_since(*at) < GRAIN => return,
            Some((_, at)) => *at = now,
            None => ended.push((address, now)),
        }
        self.order.push_back((now, uid));
        if self.order.len() > REMEMBERED {
            self.forget_oldest();
        }
    }

    /// The addresses from which streams of a pod came that ended lately.
    pub(super) fn of(&mut self, pod_uid: &str, now: Instant) -> Vec<IpAddr> {
        self.forget(now);
        self.by_pod.get(pod_uid).into_iter().flatten().map(|(address, _)| *address).collect()
    }

    /// Those of every pod.
    pub(super) fn all(&mut self, now: Instant) -> Vec<(Arc<str>, IpAddr)> {
        self.forget(now);
        let pods = self.by_pod.iter();
        pods.flat_map(|(uid, ended)| ended.iter().map(|(address, _)| (uid.clone(), *address))).collect()
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= MEMORY) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, uid)) = self.order.pop_front() else { return };
        let Some(ended) = self.by_pod.get_mut(&uid) else { return };
        // One that was remembered anew has a later place in the order.
        ended.retain(|(_, ended_at)| *ended_at > at);
        if ended.is_empty() {
            self.by_pod.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EndedStreams, GRAIN, MEMORY, REMEMBERED};
    use std::{
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };
    use tokio::time::Instant;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn the_address_of_a_stream_that_ended_is_known_for_a_minute() {
        let (mut ended, begin) = (EndedStreams::default(), Instant::now());
        ended.remember("a", address(1), begin);
        ended.remember("a", address(2), begin + GRAIN);
        ended.remember("b", address(3), begin + GRAIN);
        assert_eq!(ended.of("a", begin + GRAIN), [address(1), address(2)]);
        assert_eq!(ended.of("a", begin + MEMORY), [address(2)]);
        assert_eq!(ended.all(begin + MEMORY).len(), 2);
        assert!(ended.of("a", begin + GRAIN + MEMORY).is_empty());
        assert!(ended.by_pod.is_empty() && ended.order.is_empty());
    }

    #[test]
    fn one_that_reconnects_is_known_for_as_long_as_it_does_and_takes_few_places() {
        let (mut ended, begin) = (EndedStreams::default(), Instant::now());
        for second in 0..600 {
            ended.remember("a", address(1), begin + Duration::from_secs(second));
            assert!(ended.order.len() <= 7, "{}", ended.order.len());
        }
        let last = begin + Duration::from_secs(599);
        assert_eq!(ended.of("a", last + MEMORY - GRAIN), [address(1)]);
        assert!(ended.of("a", last + MEMORY).is_empty());
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let (mut ended, now) = (EndedStreams::default(), Instant::now());
        (0..=REMEMBERED).for_each(|pod| ended.remember(&pod.to_string(), address(1), now));
        assert_eq!((ended.order.len(), ended.by_pod.len()), (REMEMBERED, REMEMBERED));
        assert!(ended.of("0", now).is_empty() && ended.of(&REMEMBERED.to_string(), now) == [address(1)]);
    }
}
