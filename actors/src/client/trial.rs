//! The tries of one request: whom next, how long yet, and what came of the last.
//!
//! Every node that may serve is asked once without a pause; then the trial
//! pauses and all may be asked again. So a dead leader costs one refused
//! connection, an election costs pauses, and no two nodes that point at each
//! other make a busy loop.

use std::time::Duration;

use cluster::{ids::NodeId, request::Fault, routing::Backoff, shard::descriptor::ShardDescriptor};
use tokio::time::Instant;

use super::{door::DoorError, error::ClientError};

/// Wait for the first answer. A live leader answers in milliseconds, even with
/// a slow disk; a dead one is left before its followers have elected another,
/// so that the pause is the election and not this wait. Nothing is lost by it:
/// a retry keeps its number.
const TRY_MS_FIRST: u64 = 500;
/// Longest wait for one answer. Each try waits twice as long as the one before
/// it, so that a cluster that is merely slow is not asked ever more often.
const TRY_MS_MAX: u64 = 3_000;

/// Whom to ask: a node, or whichever is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aim(pub(super) Option<NodeId>);

/// The tries of one request.
#[derive(Debug)]
pub(super) struct Trial {
    subject: String,
    began: Instant,
    limit: Duration,
    /// How long a node may keep the question beyond what an answer takes.
    patience: Duration,
    backoff: Backoff,
    tries: u32,
    reached: bool,
    in_doubt: bool,
    last: String,
    asked: Vec<Option<NodeId>>,
    hint: Option<NodeId>,
}

impl Trial {
    pub(super) fn new(subject: String, limit: Duration) -> Self {
        Self {
            subject,
            began: Instant::now(),
            limit,
            patience: Duration::ZERO,
            backoff: Backoff::default(),
            tries: 0,
            reached: false,
            in_doubt: false,
            last: "nothing was tried".into(),
            asked: Vec::new(),
            hint: None,
        }
    }

    /// For a question that a node may keep so long before it answers.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { limit: self.limit + patience, patience, ..self }
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    pub(super) fn ends(&self) -> Instant {
        self.began + self.limit
    }

    /// Time for the next try; none when the deadline has passed.
    pub(super) fn try_for(&self) -> Option<Duration> {
        let left = self.ends().checked_duration_since(Instant::now())?;
        let wait_ms = (TRY_MS_FIRST << self.tries.min(8)).min(TRY_MS_MAX);
        let wait = Duration::from_millis(wait_ms) + self.patience;
        (!left.is_zero()).then(|| left.min(wait))
    }

    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether an earlier try may have been executed.
    pub(super) fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// A try under a new number begins: nothing of the old one is open.
    pub(super) fn clear_doubt(&mut self) {
        self.in_doubt = false;
    }

    /// The map is another one, or somebody has answered: everybody may be asked at once.
    pub(super) fn all_anew(&mut self) {
        self.asked.clear();
    }

    pub(super) fn follow(&mut self, hint: NodeId) {
        self.hint = Some(hint);
    }

    /// Whom to ask next, none if all were asked since the last pause.
    /// `any_replica` starts at a random replica instead of the leader.
    pub(super) fn next_node(
        &mut self,
        shard: &ShardDescriptor,
        leader: Option<NodeId>,
        chance: Option<u64>,
    ) -> Option<Aim> {
        let count = shard.replicas.len().max(1);
        let start = chance.map_or(0, |chance| usize::try_from(chance % count as u64).unwrap_or(0));
        let leader = if chance.is_none() { leader } else { None };
        let replicas = shard.replicas.iter().map(|replica| replica.node);
        let order = self.hint.take().into_iter().chain(leader).map(Some);
        let rest = replicas.cycle().skip(start).take(shard.replicas.len()).map(Some);
        let next = order.chain(rest).chain([None]).find(|node| !self.asked.contains(node))?;
        self.asked.push(next);
        Some(Aim(next))
    }

    /// Notes a fault as the last outcome.
    pub(super) fn note_fault(&mut self, fault: &Fault, in_doubt: bool) {
        self.tries += 1;
        self.reached = true;
        self.in_doubt |= in_doubt;
        self.last = fault.to_string();
    }

    /// Notes that there was no answer.
    pub(super) fn note_silence(&mut self, error: &DoorError) {
        self.tries += 1;
        self.in_doubt |= !error.not_sent();
        self.reached |= !error.not_sent();
        self.last = error.to_string();
    }

    /// Notes why another round is needed.
    pub(super) fn note(&mut self, why: String) {
        self.last = why;
    }

    /// Waits, then everybody may be asked again.
    ///
    /// # Errors
    /// When the deadline passes first.
    pub(super) async fn pause(&mut self, chance: u64) -> Result<(), ClientError> {
        let pause = self.backoff.pause(chance);
        self.pause_for(pause).await
    }

    /// As [`Self::pause`], for a given time.
    pub(super) async fn pause_for(&mut self, pause: Duration) -> Result<(), ClientError> {
        self.asked.clear();
        let until = Instant::now() + pause;
        if until >= self.ends() {
            tokio::time::sleep_until(self.ends()).await;
            return Err(self.ended());
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }

    /// The error when the deadline has passed.
    pub(super) fn ended(&self) -> ClientError {
        let subject = self.subject.clone();
        let last = self.last.clone();
        if self.reached {
            ClientError::NoQuorum {
                subject,
                after: self.limit,
                tries: self.tries,
                last,
                in_doubt: self.in_doubt,
            }
        } else {
            ClientError::Unreachable { subject, last }
        }
    }
}
