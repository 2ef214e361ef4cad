//! The log as raft-rs reads it: synchronous, and therefore memory.
//!
//! Held are all entries that are not applied yet, plus applied ones that live
//! followers still need, within a byte budget. Older entries lie in the log
//! file; who needs one is told "temporarily unavailable" and a fetch is noted.
//! Terms are kept for every position after the base, as runs: a log has few
//! terms, and raft-rs must be able to ask for any of them at once.
//!
//! Invariants: `base < first <= applied + 1`, `last + 1 = first + entries`,
//! runs begin at the base and rise in index and term.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use raft::{
    Error, GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};

/// Positions and the term that begins there.
#[derive(Debug)]
struct Terms(Vec<(u64, u64)>);

impl Terms {
    fn of(&self, index: u64) -> u64 {
        let after = self.0.partition_point(|(start, _)| *start <= index);
        after.checked_sub(1).and_then(|at| self.0.get(at)).map_or(0, |(_, term)| *term)
    }

    fn push(&mut self, index: u64, term: u64) {
        if self.0.last().is_none_or(|(_, last)| *last != term) {
            self.0.push((index, term));
        }
    }

    fn truncate(&mut self, from: u64) {
        self.0.truncate(self.0.partition_point(|(start, _)| *start < from));
    }

    fn begin_at(&mut self, base: u64) {
        let term = self.of(base);
        let keep = self.0.partition_point(|(start, _)| *start <= base);
        self.0.splice(..keep, [(base, term)]);
    }
}

/// What raft-rs asked for and must be fetched by others.
#[derive(Debug, Default)]
struct Wants {
    entries: Vec<(u64, u64, GetEntriesContext)>,
    snapshots: BTreeSet<u64>,
}

/// Entries in memory.
#[derive(Debug)]
pub(super) struct Log {
    initial: RaftState,
    base: u64,
    terms: Terms,
    /// Position of the first entry in memory.
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Applied entries read back for a follower; they never change.
    fetched: Vec<Entry>,
    /// Pinned states by the replica they are for.
    snapshots: BTreeMap<u64, Snapshot>,
    // raft-rs asks through `&self`.
    wants: RefCell<Wants>,
}

fn entry_bytes(entry: &Entry) -> usize {
    // Envelope of an entry in memory, so that empty ones count too.
    const ENVELOPE: usize = 128;
    entry.data.len() + entry.context.len() + ENVELOPE
}

/// The longest beginning within `bytes_max`, at least one.
fn within<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut left = bytes_max;
    let mut taken = Vec::new();
    for entry in entries {
        let bytes = u64::try_from(entry_bytes(entry)).unwrap_or(u64::MAX);
        if !taken.is_empty() && bytes > left {
            break;
        }
        left = left.saturating_sub(bytes);
        taken.push(entry.clone());
    }
    taken
}

impl Log {
    pub(super) fn new(base: u64, base_term: u64, hard_state: HardState, conf: ConfState) -> Self {
        Self {
            initial: RaftState::new(hard_state, conf),
            base,
            terms: Terms(vec![(base, base_term)]),
            first: base + 1,
            entries: VecDeque::new(),
            bytes: 0,
            fetched: Vec::new(),
            snapshots: BTreeMap::new(),
            wants: RefCell::default(),
        }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn last(&self) -> u64 {
        self.first + u64::try_from(self.entries.len()).unwrap_or(u64::MAX) - 1
    }

    /// Appends, replacing everything at or after the first entry given.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(from) = entries.first().map(|entry| entry.index) else { return };
        assert!(from > self.base && from <= self.last() + 1, "append leaves a hole");
        while self.last() >= from {
            let Some(gone) = self.entries.pop_back() else { break };
            self.bytes -= entry_bytes(&gone);
        }
        if self.entries.is_empty() {
            self.first = from;
        }
        self.terms.truncate(from);
        for entry in entries {
            self.terms.push(entry.index, entry.term);
            self.bytes += entry_bytes(&entry);
            self.entries.push_back(entry);
        }
    }

    /// Drops from memory what is applied, but for the newest `bytes_max` bytes
    /// of what followers still need from `needed` on.
    pub(super) fn forget(&mut self, applied: u64, needed: u64, bytes_max: usize) {
        let applied = applied.min(self.last());
        while self.first <= applied && (self.first < needed || self.bytes > bytes_max) {
            let Some(gone) = self.entries.pop_front() else { break };
            self.bytes -= entry_bytes(&gone);
            self.first += 1;
        }
    }

    /// The log file dropped everything up to `index`.
    pub(super) fn trim(&mut self, index: u64) {
        if index <= self.base || index > self.last() {
            return;
        }
        self.forget(index, index + 1, usize::MAX);
        self.terms.begin_at(index);
        self.base = index;
        self.fetched.clear();
    }

    /// A snapshot took the place of everything.
    pub(super) fn install(&mut self, index: u64, term: u64) {
        self.base = index;
        self.terms = Terms(vec![(index, term)]);
        self.first = index + 1;
        self.entries.clear();
        self.bytes = 0;
        self.fetched.clear();
    }

    pub(super) fn set_fetched(&mut self, entries: Vec<Entry>) {
        self.fetched = entries;
    }

    pub(super) fn set_snapshot(&mut self, to: u64, snapshot: Option<Snapshot>) {
        match snapshot {
            Some(snapshot) => self.snapshots.insert(to, snapshot),
            None => self.snapshots.remove(&to),
        };
    }

    pub(super) fn take_wanted_entries(&mut self) -> Vec<(u64, u64, GetEntriesContext)> {
        std::mem::take(&mut self.wants.get_mut().entries)
    }

    pub(super) fn take_wanted_snapshots(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.wants.get_mut().snapshots)
    }

    fn fetched_from(&self, low: u64) -> Option<&[Entry]> {
        let start = self.fetched.first()?.index;
        let at = usize::try_from(low.checked_sub(start)?).ok()?;
        self.fetched.get(at..).filter(|entries| !entries.is_empty())
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if low <= self.base {
            return Err(Error::Store(StorageError::Compacted));
        }
        let count = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        if let Some(skip) = low.checked_sub(self.first) {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            let from = skip.min(self.entries.len());
            return Ok(within(self.entries.range(from..).take(count), bytes_max));
        }
        if let Some(entries) = self.fetched_from(low) {
            return Ok(within(entries.iter().take(count), bytes_max));
        }
        if !context.can_async() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        self.wants.borrow_mut().entries.push((low, high.min(self.first), context));
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.base {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        Ok(self.terms.of(index))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        match self.snapshots.get(&to) {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => {
                Ok(snapshot.clone())
            }
            _ => {
                self.wants.borrow_mut().snapshots.insert(to);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
