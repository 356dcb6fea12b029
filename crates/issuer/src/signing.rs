//! What a stream may have signed. Namespaces share what the issuer signs; a stream takes of its namespace's share for several
//! signatures together, so that it shares nothing with others on most of its issues.

use std::time::Duration;

use tokio::time::Instant;

use super::registry::Registry;

/// How many signatures are taken together.
const LEASE: u32 = 8;

/// The signatures that a stream may ask for before it takes more of its namespace's share.
#[derive(Debug)]
pub struct SigningCredit {
    registry: Registry,
    left: u32,
}

impl SigningCredit {
    /// Of a stream that begins: its first certificate and token come with it.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, left: 2 }
    }

    /// Takes one; namespaces get equal shares.
    ///
    /// # Errors
    /// The time after which to come back, when its namespace asks for too many.
    pub fn take(&mut self, namespace: &str, now: Instant) -> Result<(), Duration> {
        if self.left == 0 {
            self.registry.lease_signatures(namespace, LEASE, now)?;
            self.left = LEASE;
        }
        self.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LEASE, Registry, SigningCredit};
    use crate::registry::StreamLimits;
    use countersign_runtime::rate::Rate;
    use std::time::Duration;
    use tokio::time::Instant;

    fn registry(burst: u32) -> Registry {
        let signatures = Rate { each: Duration::from_millis(1), burst };
        Registry::new(StreamLimits { signatures, ..StreamLimits::default() })
    }

    #[test]
    fn a_namespace_that_asks_for_signatures_without_end_leaves_the_others_their_share() {
        let (now, registry) = (Instant::now(), registry(800));
        let credit = || SigningCredit::new(registry.clone());
        let mut herd: Vec<_> = (0..100).map(|_| credit()).collect();
        let signed =
            herd.iter_mut().map(|one| (0..2 + 12 * LEASE).filter(|_| one.take("hostile", now).is_ok()).count());
        assert_eq!(signed.sum::<usize>(), 800 + 100 * 2);
        let wait = credit_of(&mut herd).take("hostile", now).expect_err("its share is used up");
        assert!(wait >= Duration::from_millis(u64::from(LEASE)), "{wait:?}");
        let mut other = credit();
        assert_eq!((0..100).filter(|_| other.take("shop", now).is_ok()).count(), 100);
    }

    fn credit_of(herd: &mut [SigningCredit]) -> &mut SigningCredit {
        herd.first_mut().expect("a herd")
    }

    #[test]
    fn a_stream_asks_for_its_share_once_for_many_signatures() {
        let (now, registry) = (Instant::now(), registry(LEASE));
        let [mut one, mut other] = [(); 2].map(|()| SigningCredit::new(registry.clone()));
        assert_eq!((0..3).filter(|_| one.take("shop", now).is_ok()).count(), 3, "two come with the stream");
        assert_eq!((0..3).filter(|_| other.take("shop", now).is_ok()).count(), 2, "the first has taken all");
        assert_eq!((0..100).filter(|_| one.take("shop", now).is_ok()).count(), 7, "and asks nobody for the rest of it");
    }
}
