//! One piece of work for all messages that wait: who is in a mailbox, counted.
//!
//! An actor that answers many messages with one step (a run of the Raft core, a
//! frame per peer) takes that step when those are handled that waited when the
//! first of them came. It could tell itself so by one more message behind them,
//! but that costs as much as any other; instead whoever sends counts, and the
//! actor counts down.
//!
//! Invariants: a step waits for nothing that came after it became due; one that
//! is due is taken even if a count comes late, for a message is counted only
//! once it is in the mailbox: at worst the step comes early.

use std::sync::{
    Arc,
    atomic::{AtomicIsize, Ordering},
};

use ractor::{ActorRef, Message};

/// How many counted messages wait in one mailbox.
///
/// Below zero for a moment when a message is handled before it is counted.
#[derive(Debug, Default)]
pub struct Queue(AtomicIsize);

impl Queue {
    /// Sends a message to the queue's actor and counts it; false if the actor
    /// is gone.
    pub(crate) fn cast<M: Message>(&self, actor: &ActorRef<M>, message: M) -> bool {
        let sent = actor.cast(message).is_ok();
        if sent {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
        sent
    }

    fn handled(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    fn waiting(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Acquire)).unwrap_or(0)
    }
}

/// The step an actor takes for all that waits.
#[derive(Debug)]
pub(crate) struct Round {
    queue: Arc<Queue>,
    /// How many messages it still waits for, while it is due.
    left: Option<usize>,
}

impl Round {
    /// A step for what comes through `queue`.
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, left: None }
    }

    /// A counted message is in the actor's hands.
    pub(crate) fn handled(&mut self) {
        self.queue.handled();
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
    }

    /// The step is due after all that waits now.
    pub(crate) fn begin(&mut self) {
        if self.left.is_none() {
            self.left = Some(self.queue.waiting());
        }
    }

    /// Whether the step is due, now or soon.
    pub(crate) fn has_begun(&self) -> bool {
        self.left.is_some()
    }

    /// Whether the step is to be taken now: then it is no longer due.
    pub(crate) fn end(&mut self) -> bool {
        let over = self.left == Some(0);
        if over {
            self.left = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(waiting: isize) -> Round {
        Round::new(Arc::new(Queue(AtomicIsize::new(waiting))))
    }

    #[test]
    fn a_step_is_taken_once_for_all_that_waited() {
        let mut round = round(3);
        assert!(!round.end(), "nothing is due");
        round.handled();
        round.begin();
        assert!(!round.end());
        round.handled();
        round.begin();
        assert!(!round.end(), "one more waits");
        round.handled();
        assert!(round.end());
        assert!(!round.end(), "once");
    }

    #[test]
    fn who_comes_later_is_not_waited_for() {
        let mut round = round(2);
        round.handled();
        round.begin();
        round.queue.0.fetch_add(5, Ordering::AcqRel);
        round.handled();
        round.begin();
        assert!(round.end());
        round.begin();
        assert!(!round.end(), "five more wait");
    }

    #[test]
    fn a_message_handled_before_it_is_counted_holds_nothing_up() {
        let mut round = round(0);
        round.handled();
        round.begin();
        assert!(round.end());
        round.queue.0.fetch_add(1, Ordering::AcqRel);
        round.begin();
        assert!(round.end(), "nothing waits");
    }
}
