//! Sleep by agreement: an idle shard costs nothing.
//!
//! A leader whose shard was idle for a while, with every member at the same
//! position, asks all to sleep. A follower agrees only when its own last,
//! committed, applied and durable positions are the asked one; it then sleeps
//! at once. The leader sleeps when all have agreed. It asks right after a
//! heartbeat and keeps the next one back for half an election timeout; if some
//! have not agreed by then, its heartbeats wake the others.
//!
//! Anything but the words of this protocol wakes a replica. A follower that
//! wakes on its own (a link went down, a request came) says so to its leader,
//! who answers with heartbeats and thereby wakes the rest; if the leader is
//! dead, the woken replicas elect another after a fresh random timeout. A word
//! of agreement that comes late can at worst put a leader to sleep beside one
//! waking follower, whose election asks, and wakes, everybody.

use std::collections::BTreeSet;

use crate::ids::{LogIndex, ReplicaId};

/// How awake a replica is.
#[derive(Debug)]
pub(super) enum Sleep {
    /// Awake; idle for so many ticks.
    Awake { idle: u32 },
    /// Leader: asks everybody, and keeps its heartbeats to itself meanwhile,
    /// for they would wake who agreed.
    Agreeing { index: LogIndex, asked: bool, agreed: BTreeSet<ReplicaId>, waited: u32 },
    /// No ticks needed.
    Asleep,
}

impl Default for Sleep {
    fn default() -> Self {
        Self::Awake { idle: 0 }
    }
}

impl Sleep {
    pub(super) fn asleep(&self) -> bool {
        matches!(self, Self::Asleep)
    }

    pub(super) fn agreeing(&self) -> bool {
        matches!(self, Self::Agreeing { .. })
    }

    /// Back to being awake. True if it ends a sleep.
    pub(super) fn disturb(&mut self) -> bool {
        let slept = self.asleep();
        *self = Self::default();
        slept
    }

    /// One more tick of a leader, idle or not. Begins to ask after `after` idle
    /// ticks, when `begin` allows it, and gives up after `patience`.
    pub(super) fn tick(
        &mut self,
        idle_at: Option<LogIndex>,
        begin: bool,
        after: u32,
        patience: u32,
    ) {
        match (&mut *self, idle_at) {
            (Self::Asleep, _) => {}
            (Self::Awake { idle }, Some(index)) => {
                *idle = idle.saturating_add(1);
                if *idle >= after && begin {
                    let agreed = BTreeSet::new();
                    *self = Self::Agreeing { index, asked: false, agreed, waited: 0 };
                }
            }
            (Self::Agreeing { index, waited, .. }, Some(at))
                if *index == at && *waited < patience =>
            {
                *waited += 1;
            }
            (Self::Awake { .. } | Self::Agreeing { .. }, _) => *self = Self::default(),
        }
    }

    /// The position to ask everybody about, once.
    pub(super) fn ask(&mut self) -> Option<LogIndex> {
        let Self::Agreeing { index, asked, .. } = self else { return None };
        let first = !std::mem::replace(asked, true);
        first.then_some(*index)
    }

    /// A member agrees to sleep at `index`.
    pub(super) fn agree(&mut self, from: ReplicaId, at: LogIndex) {
        if let Self::Agreeing { index, agreed, .. } = self
            && *index == at
        {
            agreed.insert(from);
        }
    }

    /// Sleeps if all `members` have agreed to `at`. True if it does.
    pub(super) fn settle(&mut self, at: LogIndex, members: &[ReplicaId]) -> bool {
        let Self::Agreeing { index, agreed, .. } = self else { return false };
        let all = *index == at && members.iter().all(|member| agreed.contains(member));
        if all {
            *self = Self::Asleep;
        }
        all
    }

    /// A follower falls asleep.
    pub(super) fn follow(&mut self) {
        *self = Self::Asleep;
    }
}
