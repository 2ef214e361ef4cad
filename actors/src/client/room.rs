//! Room for what is gathered: part of a bound of bytes that many share.
//!
//! Whoever gathers takes its bytes first and gives them back when the answer has
//! gone its way, so what many gather at a time is bounded, however slow they are
//! who read it. Nobody waits for long: two that each hold part of the bound and
//! want the rest would wait for each other.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, TryAcquireError},
    time::{Instant, timeout_at},
};

/// How long one may wait for room after it first took some, in all: less than a
/// request of a door takes. A client that is refused tries again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes taken of a bound; they are given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    bound: Arc<Semaphore>,
    taken: AtomicUsize,
    /// When it waits no more.
    until: OnceLock<Instant>,
    /// Whether it waits for more while it holds some.
    holds_on: bool,
    /// What the whole bound is: more is never free.
    most: usize,
}

impl Room {
    /// Nothing yet, of a bound of bytes.
    pub fn of(bound: Arc<Semaphore>) -> Self {
        Self {
            bound,
            taken: AtomicUsize::new(0),
            until: OnceLock::new(),
            holds_on: true,
            most: usize::MAX,
        }
    }

    /// The same, of a bound of so many bytes in all.
    #[must_use]
    pub fn at_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Whether the bound would hold so much more, were nothing else in it.
    pub fn could_grow(&self, bytes: usize) -> bool {
        self.taken().saturating_add(bytes) <= self.most
    }

    /// All that it could hold.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The same, waiting for its first bytes only: whoever can begin anew gives back
    /// what it holds instead of waiting for those who do the same.
    #[must_use]
    pub fn modest(mut self) -> Self {
        self.holds_on = false;
        self
    }

    /// The same, waiting until then.
    #[must_use]
    pub fn until(mut self, until: Instant) -> Self {
        self.until = until.into();
        self
    }

    /// Takes more bytes, if they become free soon.
    pub async fn grow(&self, bytes: usize) -> bool {
        let Ok(permits) = u32::try_from(bytes) else { return false };
        let until = if self.holds_on || self.taken() == 0 {
            *self.until.get_or_init(|| Instant::now() + PATIENCE)
        } else {
            Instant::now()
        };
        match timeout_at(until, self.bound.acquire_many(permits)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                self.taken.fetch_add(bytes, Ordering::AcqRel);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Takes as many bytes as to hold `bytes`, or gives back what is more; whether
    /// there are as many. One task at a time sets it.
    pub fn set(&self, bytes: usize) -> bool {
        let taken = self.taken.load(Ordering::Acquire);
        if let Some(more) = bytes.checked_sub(taken).filter(|more| *more > 0) {
            let Ok(permits) = u32::try_from(more) else { return false };
            match self.bound.try_acquire_many(permits) {
                Ok(permit) => permit.forget(),
                Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => return false,
            }
        } else {
            self.bound.add_permits(taken.saturating_sub(bytes));
        }
        self.taken.store(bytes, Ordering::Release);
        true
    }

    /// Gives back so many of them.
    pub fn give_back(&self, bytes: usize) {
        let taken = self.taken.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(taken >= bytes, "more is given back than was taken");
        self.bound.add_permits(bytes);
    }

    /// Bytes taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bound.add_permits(*self.taken.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_comes_back_and_nobody_waits_for_long() {
        let bound = Arc::new(Semaphore::new(100));
        let (first, second) = (Room::of(bound.clone()), Room::of(bound.clone()));
        assert!(first.grow(60).await && second.set(40));
        assert!(!second.set(41) && !second.grow(1).await, "all is taken");
        assert_eq!((first.taken(), second.taken()), (60, 40));
        first.give_back(50);
        assert!(second.grow(50).await);
        drop(second);
        assert_eq!(bound.available_permits(), 90);
        drop(first);
        assert_eq!(bound.available_permits(), 100);
        let room = Room::of(bound).at_most(100);
        assert!(room.grow(60).await && room.could_grow(40) && !room.could_grow(41));
    }

    #[tokio::test(start_paused = true)]
    async fn the_modest_wait_for_their_first_bytes_only() {
        let bound = Arc::new(Semaphore::new(100));
        let modest = || Room::of(bound.clone()).modest();
        let (first, second, begun) = (modest(), modest(), Instant::now());
        assert!(first.grow(60).await && second.grow(40).await);
        assert!(!first.grow(1).await && !second.grow(1).await);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let third = modest();
        let waits = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(second);
        };
        assert!(tokio::join!(third.grow(20), waits).0);
        assert!(third.grow(20).await, "what is free is taken");
        let patient = Room::of(bound.clone()).until(Instant::now() + PATIENCE * 3);
        assert!(!patient.grow(1).await);
        assert_eq!(begun.elapsed(), PATIENCE * 7 / 2);
    }
}
