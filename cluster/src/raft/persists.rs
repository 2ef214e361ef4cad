//! What lies with the disk, and what waits for it.
//!
//! A leader's messages go out at once, in parallel with its own write; all
//! others wait until everything before them is durable: a vote or an
//! acknowledgement must not outlive the memory of it. Records become durable in
//! order; one number stands for all lower ones.
//!
//! A `Ready` of raft-rs that has nothing to write still needs its turn: it
//! joins the newest outstanding record, or passes at once when there is none.

use std::collections::VecDeque;

use raft::eraftpb::Message;

use crate::units::Instant;

/// A record under way to the disk.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// Its number.
    number: u64,
    /// Last `Ready` of raft-rs that is done with it.
    covers: u64,
    /// What may be said when it is durable.
    messages: Vec<Message>,
    /// Set when the record installs a snapshot at this position.
    pub(super) install: Option<u64>,
    since: Instant,
    since_tick: u64,
}

/// What became durable.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// The `Ready` to report to raft-rs.
    pub(super) covers: u64,
    /// What may be said now.
    pub(super) messages: Vec<Message>,
    /// Position of a snapshot that was installed.
    pub(super) installed: Option<u64>,
}

/// Records in the order they were handed out.
#[derive(Debug, Default)]
pub(super) struct Persists {
    queue: VecDeque<Outstanding>,
    newest: u64,
}

impl Persists {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a snapshot is being installed.
    pub(super) fn installing(&self) -> bool {
        self.queue.iter().any(|outstanding| outstanding.install.is_some())
    }

    /// Notes a record handed out for a `Ready`.
    pub(super) fn push(
        &mut self,
        number: u64,
        messages: Vec<Message>,
        install: Option<u64>,
        now: (Instant, u64),
    ) {
        self.newest = number;
        let (since, since_tick) = now;
        let covers = number;
        self.queue.push_back(Outstanding { number, covers, messages, install, since, since_tick });
    }

    /// Lets a `Ready` without a record wait its turn; gives the messages back
    /// when nothing is in front of it.
    pub(super) fn join(&mut self, ready: u64, messages: Vec<Message>) -> Option<Vec<Message>> {
        let Some(last) = self.queue.back_mut() else { return Some(messages) };
        last.covers = ready;
        last.messages.extend(messages);
        None
    }

    /// Takes everything up to `number`; an error for a number never given.
    pub(super) fn done(&mut self, number: u64) -> Result<Durable, String> {
        if number > self.newest {
            return Err(format!("record {number} is durable but was never handed out"));
        }
        let mut durable = Durable::default();
        while self.queue.front().is_some_and(|front| front.number <= number) {
            let Some(done) = self.queue.pop_front() else { break };
            durable.covers = done.covers;
            durable.messages.extend(done.messages);
            durable.installed = done.install.or(durable.installed);
        }
        Ok(durable)
    }

    /// Since when the oldest record waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|oldest| oldest.since)
    }

    /// Ticks the oldest record has waited.
    pub(super) fn waited_ticks(&self, tick: u64) -> u64 {
        self.queue.front().map_or(0, |oldest| tick.saturating_sub(oldest.since_tick))
    }
}
