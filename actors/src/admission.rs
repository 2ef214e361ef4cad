//! Admission: permits in front of an unbounded mailbox.
//!
//! ractor's mailboxes have no bound, so whoever sends to a hot actor takes a
//! permit first, counted in messages and in bytes. A refused sender keeps its
//! payload. The permit travels with the message and is given back when the
//! work is done and the permit dropped.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bounds of one actor's inbox.
#[derive(Debug)]
pub struct Admission {
    count_max: usize,
    bytes_max: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
    /// The wider bounds these lie in: those of the node.
    outer: Option<Arc<Admission>>,
}

/// The right to have one message under way; given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// At most `count_max` messages of together `bytes_max` bytes. One message
    /// larger than `bytes_max` is still let in when nothing else is there.
    pub fn new(count_max: usize, bytes_max: usize) -> Arc<Self> {
        Self::bounded(count_max, bytes_max, None)
    }

    /// Bounds of its own within those of `self`: what enters counts in both.
    pub fn within(self: &Arc<Self>, count_max: usize, bytes_max: usize) -> Arc<Self> {
        Self::bounded(count_max, bytes_max, Some(Arc::clone(self)))
    }

    fn bounded(count_max: usize, bytes_max: usize, outer: Option<Arc<Self>>) -> Arc<Self> {
        let (count, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { count_max, bytes_max, count, bytes, outer })
    }

    /// Takes a permit for a message of `bytes`, or refuses at once.
    pub fn try_enter(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        // Taken back on drop, also when one of the bounds refuses.
        let permit = Permit { admission: Arc::clone(self), bytes };
        let mut fits = true;
        let mut bounds = Some(self);
        while let Some(at) = bounds {
            fits &= at.add(bytes);
            bounds = at.outer.as_ref();
        }
        fits.then_some(permit)
    }

    /// Adds one message; whether it fits.
    fn add(&self, bytes: usize) -> bool {
        let count = self.count.fetch_add(1, Ordering::AcqRel);
        let held = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        count < self.count_max && (count == 0 || held + bytes <= self.bytes_max)
    }

    /// Messages under way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Bytes under way.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

impl Permit {
    /// Bytes it stands for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut bounds = Some(&self.admission);
        while let Some(at) = bounds {
            at.count.fetch_sub(1, Ordering::AcqRel);
            at.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
            bounds = at.outer.as_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_by_count_and_bytes_and_come_back() {
        let admission = Admission::new(2, 100);
        let first = admission.try_enter(60).expect("room");
        assert!(admission.try_enter(60).is_none(), "bytes are bounded");
        let second = admission.try_enter(40).expect("room");
        assert!(admission.try_enter(0).is_none(), "count is bounded");
        drop((first, second));
        assert_eq!((admission.count(), admission.bytes()), (0, 0));
    }

    #[test]
    fn what_enters_counts_against_the_node_too() {
        let node = Admission::new(10, 100);
        let (one, other) = (node.within(10, 80), node.within(10, 80));
        let held = one.try_enter(70).expect("room");
        assert!(other.try_enter(70).is_none(), "the node's bytes are bounded");
        assert_eq!((other.count(), other.bytes()), (0, 0), "a refusal leaves nothing behind");
        assert_eq!((node.count(), node.bytes()), (1, 70));
        drop(held);
        assert!(other.try_enter(70).is_some());
    }

    #[test]
    fn one_oversize_message_may_pass_alone() {
        let admission = Admission::new(2, 100);
        let alone = admission.try_enter(500).expect("nothing else is there");
        assert!(admission.try_enter(1).is_none());
        drop(alone);
        assert!(admission.try_enter(1).is_some());
    }
}
