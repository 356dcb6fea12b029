//! Limits how many handshakes compute at the same time. Addresses that wait take turns, however many connections each has, so a
//! crowd from one address delays only itself.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Handshakes that compute, and those that wait.
#[derive(Clone, Debug)]
pub(super) struct HandshakeLimiter(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: HashMap<IpAddr, VecDeque<oneshot::Sender<HandshakePermit>>>,
    /// Addresses that wait, the next one first.
    order: VecDeque<IpAddr>,
}

/// Permission to compute; passed on when dropped.
#[derive(Debug)]
pub(super) struct HandshakePermit(Option<HandshakeLimiter>);

impl HandshakeLimiter {
    /// Allows `at_once` at the same time, at least one.
    #[must_use]
    pub(super) fn new(at_once: usize) -> Self {
        let state = State { free: at_once.max(1), waiting: HashMap::new(), order: VecDeque::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a permit for this address.
    pub(super) async fn acquire(&self, address: IpAddr) -> HandshakePermit {
        let asked = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return HandshakePermit(Some(self.clone()));
            }
            state.join(address)
        };
        // The sender stays in the queue until it is called, so there always is an answer.
        asked.await.unwrap_or(HandshakePermit(None))
    }

    fn pass_on(self) {
        loop {
            let next = {
                let mut state = self.0.lock();
                let next = state.next();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(HandshakePermit(Some(self.clone()))) {
                Ok(()) => return,
                // The receiver is gone. Dropping this permit as it is would recurse.
                Err(mut permit) => drop(permit.0.take()),
            }
        }
    }
}

impl State {
    fn join(&mut self, address: IpAddr) -> oneshot::Receiver<HandshakePermit> {
        let (sender, receiver) = oneshot::channel();
        let queue = self.waiting.entry(address).or_default();
        if queue.is_empty() {
            self.order.push_back(address);
        }
        queue.push_back(sender);
        receiver
    }

    fn next(&mut self) -> Option<oneshot::Sender<HandshakePermit>> {
        let address = self.order.pop_front()?;
        let queue = self.waiting.get_mut(&address)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&address);
        } else {
            self.order.push_back(address);
        }
        next
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        if let Some(limiter) = self.0.take() {
            limiter.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HandshakeLimiter;
    use futures::FutureExt;
    use std::net::{IpAddr, Ipv4Addr};

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    // A thousand handshakes of one address delay another's by one.
    #[tokio::test]
    async fn addresses_take_turns_however_many_each_has() {
        let limiter = HandshakeLimiter::new(1);
        let running = limiter.acquire(address(1)).await;
        let mut crowd: Vec<_> = (0..1000).map(|_| Box::pin(limiter.acquire(address(1)))).collect();
        for one in &mut crowd {
            assert!(one.now_or_never().is_none());
        }
        let mut alone = Box::pin(limiter.acquire(address(2)));
        assert!((&mut alone).now_or_never().is_none());
        drop(running);
        let first = (&mut crowd[0]).now_or_never().expect("the first of the crowd, which waited longer");
        assert!((&mut alone).now_or_never().is_none());
        drop(first);
        assert!(alone.now_or_never().is_some(), "then the other address");
    }

    #[tokio::test]
    async fn who_went_away_is_passed_over_and_no_turn_is_lost() {
        let limiter = HandshakeLimiter::new(1);
        let running = limiter.acquire(address(1)).await;
        let mut gone: Vec<_> = (0..10_000).map(|_| Box::pin(limiter.acquire(address(1)))).collect();
        for one in &mut gone {
            assert!(one.now_or_never().is_none());
        }
        let mut waits = Box::pin(limiter.acquire(address(2)));
        assert!((&mut waits).now_or_never().is_none());
        drop(gone);
        drop(running);
        drop(waits.now_or_never().expect("the one that is still there"));
        // Called, and gone before it heard.
        let running = limiter.acquire(address(1)).await;
        let mut called = Box::pin(limiter.acquire(address(1)));
        assert!((&mut called).now_or_never().is_none());
        drop(running);
        drop(called);
        assert!(limiter.acquire(address(3)).now_or_never().is_some());
    }
}
