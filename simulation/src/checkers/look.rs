//! A look at all running nodes at one instant: what reports do not tell.
//!
//! The world looks now and then while it runs, and at its end waits until the
//! replicas of every shard stand at one position and are equal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use actors::{probe::Report, replica::apply::ReadHalf};
use cluster::{
    catalog::view::CatalogView,
    ids::{ReplicaId, ShardId},
    mvcc::version::Version,
};

use super::{
    bounded_queues, equal_state::EqualState, one_owner::OneOwner, poison::Poisoned,
    removed_nodes::RemovedNodes, window::Window, zones::Zones,
};
use crate::trace::Trace;

/// Between two comparisons of states there are so many looks: a hash reads all
/// that a replica holds.
const LOOKS_PER_COMPARISON: u64 = 16;

/// What looks are judged by.
#[derive(Debug, Default)]
pub(super) struct Look {
    windows: BTreeMap<u32, Window>,
    looks: u64,
    /// Copies that were compared with what was pinned for them since the last look.
    copies: u64,
    /// The newest catalog seen.
    catalog: Version,
    pub(super) owner: OneOwner,
    pub(super) removed: RemovedNodes,
    pub(super) poisoned: Poisoned,
    equal: EqualState,
    zones: Zones,
    /// How far each shard was compacted.
    compacted: BTreeMap<ShardId, Version>,
}

type Halves = BTreeMap<ShardId, BTreeMap<ReplicaId, Arc<ReadHalf>>>;

/// Leaves out replicas that the newest of them no longer counts in: those of a
/// removed node may run on for a while.
fn keep_members(halves: &mut BTreeMap<ReplicaId, Arc<ReadHalf>>) {
    let newest = halves.values().max_by_key(|half| half.reader.applied());
    let Some(newest) = newest.map(|half| half.reader.descriptor().replicas.clone()) else { return };
    halves.retain(|replica, _| newest.iter().any(|held| held.replica == *replica));
}

impl Look {
    /// A node runs.
    pub(super) fn open(&mut self, node: u32, window: Window) {
        self.windows.insert(node, window);
    }

    /// Judges what is to be seen now.
    pub(super) fn look(&mut self, trace: &Trace) -> Result<(), String> {
        self.windows.retain(|_, window| !window.life.is_over());
        self.looks += 1;
        (0..std::mem::take(&mut self.copies)).for_each(|_| trace.count("copy compared"));
        self.see_catalogs(trace)?;
        for (node, window) in &self.windows {
            let held = window.budget.memory();
            bounded_queues::keep_most(trace, held);
            bounded_queues::judge(*node, &window.limits, held)?;
            for sight in window.replicas() {
                bounded_queues::keep_crowd(trace, sight.crowd);
                bounded_queues::judge_crowd(*node, sight.crowd)?;
            }
        }
        self.see_compactions(trace);
        if self.looks.is_multiple_of(LOOKS_PER_COMPARISON) {
            self.compare(trace)?;
        }
        Ok(())
    }

    /// Looks at a state that is pinned for a copy, and at the copy as soon as it is open:
    /// once it has applied what came after, it may be right again.
    pub(super) fn see_copy(&mut self, report: &Report) -> Result<(), String> {
        let (Report::SnapshotPinned { shard, replica, index }
        | Report::SnapshotOpened { shard, replica, index }) = report
        else {
            return Ok(());
        };
        let half = self.halves().remove(shard).and_then(|mut halves| halves.remove(replica));
        let Some(half) = half.filter(|half| half.reader.applied().0 == *index) else {
            return Ok(());
        };
        let is_copy = matches!(report, Report::SnapshotOpened { .. });
        let known = self.equal.knows(*shard, *index);
        let seen = self.equal.see(*shard, *replica, &half)?;
        self.copies += u64::from(is_copy && known && seen);
        Ok(())
    }

    fn see_catalogs(&mut self, trace: &Trace) -> Result<(), String> {
        let mut up = None;
        for window in self.windows.values() {
            let seen = window.up();
            up = Some(up.map_or_else(|| seen.clone(), |all| &all & &seen));
        }
        let up = up.unwrap_or_default();
        let views: Vec<Arc<CatalogView>> = self.windows.values().map(Window::catalog).collect();
        let newest = views.iter().max_by_key(|view| view.version());
        if let Some(view) = newest.filter(|view| view.version() > self.catalog) {
            self.catalog = view.version();
            self.removed.catalog(view)?;
            self.owner.catalog(view)?;
            let judged = self.zones.catalog(view, &up)?;
            (0..judged).for_each(|_| trace.count("placement judged"));
        }
        self.zones.seen(up);
        Ok(())
    }

    fn see_compactions(&mut self, trace: &Trace) {
        for (shard, halves) in self.halves() {
            let most = halves.values().map(|half| half.reader.compacted()).max();
            let known = self.compacted.entry(shard).or_default();
            if let Some(most) = most.filter(|most| most > known) {
                *known = most;
                trace.count("compaction");
            }
        }
    }

    fn halves(&self) -> Halves {
        let mut halves = Halves::new();
        for sight in self.windows.values().flat_map(Window::replicas) {
            if let Some(half) = sight.half {
                halves.entry(sight.shard).or_default().insert(sight.replica, half);
            }
        }
        halves
    }

    /// Compares the replicas that stand at one position.
    fn compare(&mut self, trace: &Trace) -> Result<(), String> {
        for (shard, halves) in self.halves() {
            for half in halves.values() {
                self.owner.descriptor(half.reader.descriptor())?;
            }
            let shown: Vec<_> =
                halves.iter().map(|(replica, half)| (*replica, half.as_ref())).collect();
            let compared = self.equal.compare(shard, &shown)?;
            (0..compared).for_each(|_| trace.count("state compared"));
        }
        Ok(())
    }

    /// Compares everything, if the replicas of every shard stand at one
    /// position; else says which do not.
    pub(super) fn converged(&mut self, trace: &Trace) -> Result<Result<(), String>, String> {
        if let Err(apart) = self.poisoned.contained(self.windows.iter()) {
            return Ok(Err(apart));
        }
        let mut apart = String::new();
        let poisoned = self.poisoned.poison.map(|poison| poison.shard);
        for (shard, mut halves) in self.halves() {
            // Too few are left of it to tell each other where they stand.
            if poisoned == Some(shard) {
                continue;
            }
            keep_members(&mut halves);
            let at = |half: &Arc<ReadHalf>| half.reader.applied().0;
            let positions: BTreeSet<_> = halves.values().map(at).collect();
            if positions.len() > 1 {
                let at: Vec<_> = halves.iter().map(|(who, half)| (who.0, at(half).0)).collect();
                // Writing into a String cannot fail.
                let _ = write!(apart, "; {shard} at {at:?}");
            }
        }
        if !apart.is_empty() {
            return Ok(Err(format!("replicas do not meet{apart}")));
        }
        self.compare(trace).map(Ok)
    }
}
