//! Who may knock: caps on handshakes and connections, counted by guards.
//!
//! Spoofed addresses cannot lock a real one out: once many handshakes of an
//! address (or of all) are half open, new ones must answer a Retry first, and
//! only proven addresses count towards the cap of theirs. The lock is this
//! crate's own and is held for one look-up.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::limits::{HALF_OPEN_RETRY_PER_IP, Limits};

/// What to do with a knock.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on; the place is held until the guard is dropped.
    Accept(Place),
    /// Prove your address first.
    Retry,
    /// No room: say so.
    Refuse,
    /// No room even to say so.
    Ignore,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    half_open: usize,
    connections: usize,
}

/// All counts of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    half_open: AtomicUsize,
    addresses: Mutex<BTreeMap<IpAddr, Counts>>,
    pub(crate) clients: Arc<AtomicUsize>,
    pub(crate) strangers: Arc<AtomicUsize>,
}

impl Admission {
    /// Judges a connection attempt from `ip`.
    pub(crate) fn knock(self: &Arc<Self>, ip: IpAddr, proven: bool, limits: &Limits) -> Verdict {
        let half_open = self.half_open.load(Ordering::Acquire);
        if half_open >= limits.half_open_max {
            return Verdict::Ignore;
        }
        let mut addresses = self.lock();
        let counts = addresses.get(&ip).copied().unwrap_or_default();
        let crowded =
            half_open >= limits.half_open_retry || counts.half_open >= HALF_OPEN_RETRY_PER_IP;
        if crowded && !proven {
            return Verdict::Retry;
        }
        if counts.connections >= limits.connections_per_ip_max {
            return Verdict::Refuse;
        }
        let counts = addresses.entry(ip).or_default();
        counts.half_open += 1;
        counts.connections += 1;
        self.half_open.fetch_add(1, Ordering::AcqRel);
        Verdict::Accept(Place { admission: Arc::clone(self), ip, half_open: true })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Counts>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    ip: IpAddr,
    half_open: bool,
}

impl Place {
    /// The handshake is done.
    pub(crate) fn established(&mut self) {
        if self.half_open {
            self.half_open = false;
            self.admission.half_open.fetch_sub(1, Ordering::AcqRel);
            if let Some(counts) = self.admission.lock().get_mut(&self.ip) {
                counts.half_open -= 1;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.established();
        let mut addresses = self.admission.lock();
        if let Some(counts) = addresses.get_mut(&self.ip) {
            counts.connections -= 1;
            if counts.connections == 0 {
                addresses.remove(&self.ip);
            }
        }
    }
}

/// One of a bounded number; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// A seat, if fewer than `seats_max` are taken.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, seats_max: usize) -> Option<Self> {
        let seat = Self(Arc::clone(taken));
        (taken.fetch_add(1, Ordering::AcqRel) < seats_max).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn half_open_load_asks_for_proof_and_a_full_address_is_refused() {
        let limits = Limits {
            half_open_retry: 2,
            half_open_max: 3,
            connections_per_ip_max: 3,
            ..Limits::default()
        };
        let admission = Arc::new(Admission::default());
        let ip = |last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
        let take = |last| match admission.knock(ip(last), true, &limits) {
            Verdict::Accept(place) => place,
            other @ (Verdict::Retry | Verdict::Refuse | Verdict::Ignore) => panic!("{other:?}"),
        };
        let (mut one, mut two) = (take(1), take(1));
        assert!(matches!(admission.knock(ip(2), false, &limits), Verdict::Retry));
        let three = take(1);
        assert!(matches!(admission.knock(ip(2), true, &limits), Verdict::Ignore));
        one.established();
        two.established();
        assert!(matches!(admission.knock(ip(1), true, &limits), Verdict::Refuse));
        assert!(matches!(admission.knock(ip(2), false, &limits), Verdict::Accept(_)));
        drop((one, two, three));
        assert!(admission.lock().is_empty());
        assert_eq!(admission.half_open.load(Ordering::Acquire), 0);
    }

    #[test]
    fn seats_are_given_back() {
        let taken = Arc::new(AtomicUsize::new(0));
        let seat = Seat::take(&taken, 1);
        assert!(seat.is_some() && Seat::take(&taken, 1).is_none());
        drop(seat);
        assert!(Seat::take(&taken, 1).is_some());
    }
}
