//! Watchers at a replica: who waits here for something to happen.
//!
//! What happened is read on reading threads, as all reads are. Only a watcher
//! that found nothing, or has seen all that there is, waits in the hub, which is
//! told what each batch changed. Apply notes that only while somebody waits: what
//! it applied before it knew wakes everybody once.
//!
//! Any replica serves, whether it leads or not. Nothing here must outlive it: a
//! watcher that is refused or unheard asks another one from the same place.

use std::time::Duration;

use cluster::{
    limits::{WATCH_BYTES_MAX, WATCH_WAIT_MS_MAX},
    request::{Fault, ShardResult},
    shard::watch::{Hub, Place, Watch},
    units::Instant,
};

use super::{
    apply::ReadHalf,
    calls::Asked,
    halt::read_halt,
    messages::{AppliedBatch, ReplicaMessage, ReplicaTimer},
    reads::read_fault,
    state::{Phase, ReplicaState},
};

/// Longest until somebody whose asker left is forgotten, and how late a watcher
/// may be told that nothing happened.
const ROUND: Duration = Duration::from_secs(1);

/// Somebody who wants to know what happens next.
#[derive(Debug)]
pub struct Watcher {
    asked: Asked,
    watch: Watch,
    after: Place,
    /// When to say that nothing happened.
    ends: Instant,
}

/// All that wait at one replica.
#[derive(Debug, Default)]
pub(super) struct Watches {
    hub: Hub<Watcher>,
    armed: bool,
}

impl ReplicaState {
    /// Takes somebody who watches.
    pub(super) fn watch(&mut self, asked: Asked, watch: Watch, after: Place, wait_ms: u32) {
        let wait = Duration::from_millis(u64::from(wait_ms.min(WATCH_WAIT_MS_MAX)));
        let now = self.world.clock.now();
        let ends = (now + wait).min(asked.deadline);
        let watcher = Watcher { asked, watch, after, ends };
        if ends > now && self.is_newest(after) {
            // Who keeps up need not read to learn that there is nothing.
            return self.looked(watcher, false);
        }
        self.look(watcher);
    }

    /// Whether nothing that is here happened after a place. What is applied from now on
    /// is told to the hub.
    fn is_newest(&self, place: Place) -> bool {
        self.half.read_half().is_some_and(|half| {
            let newest = half.reader.version().max(half.reader.kept_from());
            place.is_whole() && place.version >= newest
        })
    }

    /// Reads what happened, on a reading thread.
    fn look(&self, watcher: Watcher) {
        let Some(half) = self.half.read_half() else { return self.turn_away(watcher) };
        let (clock, leader) = (self.world.hybrid.last(), self.leader_node());
        let (myself, now) = (self.myself.clone(), self.world.clock.now());
        self.world.workers.beside(Box::new(move || {
            let Watcher { asked, watch, after, ends } = watcher;
            let read = |half: &ReadHalf| {
                let view = half.reader.view(half.store.as_ref())?;
                // With every look: a watch ends when the right to it does.
                asked.guard.check(half, view.as_ref())?;
                half.reader.events(view.as_ref(), &watch, after, WATCH_BYTES_MAX)
            };
            let result = match read(&half) {
                Ok(found) if found.events.is_empty() && ends > now => {
                    let watcher = Watcher { asked, watch, after: found.upto, ends };
                    let more = found.more;
                    let _ = myself.cast(ReplicaMessage::Looked { watcher, more });
                    return;
                }
                Ok(found) => Ok(ShardResult::Events(found)),
                Err(error) => {
                    if let Some(halt) = read_halt(&error) {
                        let _ = myself.cast(ReplicaMessage::Halted(halt));
                    }
                    Err(read_fault(&error, &half))
                }
            };
            asked.answer(clock, leader, result);
        }));
    }

    /// Somebody found nothing up to a place: wait, unless there is more.
    pub(super) fn looked(&mut self, watcher: Watcher, more: bool) {
        if !matches!(self.phase, Phase::Running(_)) {
            return self.turn_away(watcher);
        }
        if more {
            return self.look(watcher);
        }
        let (keys, upto, ends) = (watcher.watch.keys.clone(), watcher.after.version, watcher.ends);
        self.half.note_changes(true);
        match self.watches.hub.wait(&keys, upto, ends, watcher) {
            Ok(()) => self.arm_watches(),
            Err(watcher) => self.look(watcher),
        }
    }

    /// Entries took effect: wake who waits for their keys.
    pub(super) fn tell_watchers(&mut self, batch: &AppliedBatch) {
        for watcher in self.watches.hub.applied(batch.version, batch.changes.as_deref()) {
            self.look(watcher);
        }
    }

    /// The state is another one as a whole: everybody looks again.
    pub(super) fn wake_watchers(&mut self) {
        for watcher in self.watches.hub.drain() {
            self.look(watcher);
        }
    }

    /// Tells those who waited long enough how far nothing happened.
    pub(super) fn watch_round(&mut self) {
        self.watches.armed = false;
        self.watches.hub.retain(|watcher| watcher.asked.is_waited_for());
        for watcher in self.watches.hub.expire(self.world.clock.now()) {
            self.look(watcher);
        }
        if self.watches.hub.is_empty() {
            self.half.note_changes(false);
        } else {
            self.arm_watches();
        }
    }

    fn arm_watches(&mut self) {
        let Some(first) = self.watches.hub.first_end().filter(|_| !self.watches.armed) else {
            return;
        };
        self.watches.armed = true;
        let wait = first.since(self.world.clock.now()).min(ROUND);
        self.myself.send_after(wait, || ReplicaMessage::Timer(ReplicaTimer::Watches));
    }

    /// This replica serves nobody any more.
    pub(super) fn end_watches(&mut self) {
        for watcher in self.watches.hub.drain() {
            self.turn_away(watcher);
        }
    }

    /// Sends a watcher to another replica: its place is good there too.
    fn turn_away(&self, watcher: Watcher) {
        let fault = Fault::NotLeader { leader: None };
        watcher.asked.answer(self.world.hybrid.last(), None, Err(fault));
    }
}

#[cfg(test)]
mod tests;
