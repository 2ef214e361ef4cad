//! What the log knows by heart: per replica its state and where its entries lie.
//!
//! Entries are indexed by the record that holds them: one run per record, so
//! an entry costs memory only as a part of a run. The index also counts, per
//! segment, the runs somebody still needs; a segment without any may go.
//!
//! The same rules serve appending and replay, so what is recovered is what
//! was known. A record at index i drops everything at or after i.

use std::collections::BTreeMap;

use super::format::{Stored, Summary};
use crate::{
    ids::{LogIndex, ReplicaId, ShardId, StoreId, Term, VolumeId},
    ports::log::{LogError, LogRecord},
    raft::types::{Entry, HardState},
};

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordAt {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Bytes of its body.
    pub(super) body_bytes: u32,
}

/// Entries `first..=last` of one replica, held by one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) at: RecordAt,
}

/// Which replica copies what, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) shard: ShardId,
    pub(super) volume: VolumeId,
    pub(super) store: StoreId,
}

/// One replica.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// `None` only during replay, when its first record lies in a damaged extent.
    pub(super) home: Option<Home>,
    pub(super) hard_state: HardState,
    pub(super) base_index: LogIndex,
    pub(super) base_term: Term,
    pub(super) damaged: bool,
    /// Last damaged segment that may have held a record of it.
    pub(super) suspect: Option<u64>,
    runs: BTreeMap<u64, Run>,
}

/// Needed runs per segment.
#[derive(Debug, Default)]
struct Needs(BTreeMap<u64, Need>);

#[derive(Clone, Copy, Debug, Default)]
struct Need {
    runs: u64,
    bytes: u64,
}

impl Needs {
    fn add(&mut self, at: &RecordAt) {
        let need = self.0.entry(at.segment).or_default();
        need.runs += 1;
        need.bytes += u64::from(at.body_bytes);
    }

    fn remove(&mut self, at: &RecordAt) {
        if let Some(need) = self.0.get_mut(&at.segment) {
            need.runs -= 1;
            need.bytes -= u64::from(at.body_bytes);
            if need.runs == 0 {
                self.0.remove(&at.segment);
            }
        }
    }
}

/// All replicas of a log.
#[derive(Debug, Default)]
pub(super) struct Index {
    replicas: BTreeMap<ReplicaId, Replica>,
    needs: Needs,
    /// Highest replica id ever held.
    pub(super) replica_max: u64,
    /// Ids up to here that are not held may have been forgotten.
    pub(super) floor: u64,
}

impl Replica {
    /// Position of its last entry, or the base when there is none.
    pub(super) fn last_index(&self) -> u64 {
        self.runs.last_key_value().map_or(self.base_index.0, |(_, run)| run.last)
    }

    /// Its runs in entry order.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// Runs that hold entries of `from..to`.
    pub(super) fn runs_between(&self, from: u64, to: u64) -> impl Iterator<Item = &Run> {
        let start = self.runs.range(..=from).next_back().map_or(from, |(first, _)| *first);
        self.runs
            .range(start..to.max(start))
            .map(|(_, run)| run)
            .filter(move |run| run.last >= from)
    }

    fn oldest_segment(&self) -> Option<u64> {
        self.runs.values().map(|run| run.at.segment).min()
    }

    /// What a checkpoint in `segment` says of it.
    pub(super) fn summary(&self, segment: u64) -> Option<Summary> {
        let home = self.home?;
        Some(Summary {
            shard: home.shard,
            volume: home.volume,
            store: home.store,
            hard_state: self.hard_state,
            base_index: self.base_index,
            base_term: self.base_term,
            last_index: LogIndex(self.last_index()),
            oldest_segment: self.oldest_segment().unwrap_or(segment),
            damaged: self.damaged,
        })
    }

    /// Drops entries at or after `from`.
    fn cut(&mut self, from: u64, needs: &mut Needs) {
        for run in self.runs.split_off(&from).values() {
            needs.remove(&run.at);
        }
        if let Some(mut last) = self.runs.last_entry()
            && last.get().last >= from
        {
            last.get_mut().last = from - 1;
        }
    }

    /// Drops entries up to and including `to`.
    fn trim(&mut self, to: u64, needs: &mut Needs) {
        while let Some(first) = self.runs.first_entry()
            && *first.key() <= to
        {
            let mut run = first.remove();
            if run.last > to {
                run.first = to + 1;
                self.runs.insert(run.first, run);
                return;
            }
            needs.remove(&run.at);
        }
    }

    fn insert(&mut self, run: Run, needs: &mut Needs) {
        needs.add(&run.at);
        if let Some(old) = self.runs.insert(run.first, run) {
            needs.remove(&old.at);
        }
    }

    /// Puts `run` in place of what its range held; entries around it stay.
    fn replace(&mut self, run: Run, needs: &mut Needs) {
        let overlapping: Vec<Run> = self.runs_between(run.first, run.last + 1).copied().collect();
        for old in overlapping {
            self.runs.remove(&old.first);
            needs.remove(&old.at);
            if old.first < run.first {
                self.insert(Run { last: run.first - 1, ..old }, needs);
            }
            if old.last > run.last {
                self.insert(Run { first: run.last + 1, ..old }, needs);
            }
        }
        self.insert(run, needs);
    }

    fn merge_hard_state(&mut self, new: &HardState) {
        let old = &mut self.hard_state;
        old.commit = old.commit.max(new.commit);
        if new.term > old.term || (new.term == old.term && old.vote == ReplicaId(0)) {
            old.term = new.term;
            old.vote = new.vote;
        }
    }

    fn set_base(&mut self, index: LogIndex, term: Term, needs: &mut Needs) {
        if index >= self.base_index {
            self.base_index = index;
            self.base_term = term;
        }
        self.trim(self.base_index.0, needs);
    }
}

fn refused(replica: ReplicaId, cause: impl Into<String>) -> LogError {
    LogError::Refused { replica, cause: cause.into() }
}

impl Index {
    /// One replica.
    pub(super) fn replica(&self, replica: ReplicaId) -> Option<&Replica> {
        self.replicas.get(&replica)
    }

    /// All replicas, by id.
    pub(super) fn replicas(&self) -> impl Iterator<Item = (ReplicaId, &Replica)> {
        self.replicas.iter().map(|(id, replica)| (*id, replica))
    }

    /// How many replicas it holds.
    pub(super) fn len(&self) -> usize {
        self.replicas.len()
    }

    /// The oldest segment somebody needs, if any.
    pub(super) fn oldest_needed(&self) -> Option<u64> {
        self.needs.0.first_key_value().map(|(segment, _)| *segment)
    }

    /// Bytes of records somebody needs: in all, and in one segment.
    pub(super) fn needed_bytes(&self, segment: Option<u64>) -> u64 {
        let of = |(number, need): (&u64, &Need)| {
            if segment.is_none_or(|only| only == *number) { need.bytes } else { 0 }
        };
        self.needs.0.iter().map(of).sum()
    }

    /// Replicas with entries in `segment`.
    pub(super) fn replicas_in(&self, segment: u64) -> Vec<ReplicaId> {
        let holds = |replica: &Replica| replica.runs.values().any(|run| run.at.segment == segment);
        self.replicas.iter().filter(|(_, replica)| holds(replica)).map(|(id, _)| *id).collect()
    }

    /// Judges a record before it is written.
    ///
    /// # Errors
    /// [`LogError::Refused`] with the rule it breaks.
    pub(super) fn check(&self, id: ReplicaId, record: &LogRecord) -> Result<(), LogError> {
        let known = self.replicas.get(&id);
        if let LogRecord::Created { .. } = record {
            return self.check_created(id, known.is_some());
        }
        let replica = known.ok_or_else(|| refused(id, "it is not in this log"))?;
        match record {
            LogRecord::Ready { hard_state, entries } => {
                check_vote(id, replica, hard_state.as_ref())?;
                check_entries(id, replica, entries)
            }
            LogRecord::Installed { index, hard_state, .. } => {
                check_vote(id, replica, Some(hard_state))?;
                if *index < replica.base_index {
                    return Err(refused(id, "the snapshot is older than the log's base"));
                }
                Ok(())
            }
            LogRecord::Trimmed { index, .. } if index.0 > replica.last_index() => {
                Err(refused(id, format!("trim to {index} passes the last entry")))
            }
            LogRecord::Trimmed { .. } | LogRecord::Created { .. } | LogRecord::Destroyed => Ok(()),
        }
    }

    fn check_created(&self, id: ReplicaId, known: bool) -> Result<(), LogError> {
        if known {
            return Err(refused(id, "it exists already"));
        }
        if id.0 <= self.floor {
            return Err(refused(
                id,
                "it may have lived here before the log was damaged; place the shard under a new replica id",
            ));
        }
        Ok(())
    }

    /// Takes in a record that lies at `at`.
    pub(super) fn apply(&mut self, id: ReplicaId, record: &LogRecord, at: RecordAt) {
        self.replica_max = self.replica_max.max(id.0);
        if let LogRecord::Destroyed = record {
            self.remove(id);
            return;
        }
        let needs = &mut self.needs;
        let replica = self.replicas.entry(id).or_default();
        match record {
            LogRecord::Created { shard, volume, store, index, term } => {
                replica.home = Some(Home { shard: *shard, volume: *volume, store: *store });
                replica.set_base(*index, *term, needs);
            }
            LogRecord::Ready { hard_state, entries } => {
                if let Some(new) = hard_state {
                    replica.merge_hard_state(new);
                }
                if let Some(run) = run_of(entries, at) {
                    replica.cut(run.first, needs);
                    replica.insert(run, needs);
                }
            }
            LogRecord::Installed { store, index, term, hard_state } => {
                if let Some(home) = &mut replica.home {
                    home.store = *store;
                }
                replica.merge_hard_state(hard_state);
                replica.cut(0, needs);
                replica.set_base(*index, *term, needs);
            }
            LogRecord::Trimmed { index, term } => replica.set_base(*index, *term, needs),
            LogRecord::Destroyed => {}
        }
    }

    /// Takes in entries copied forward.
    pub(super) fn apply_moved(&mut self, id: ReplicaId, entries: &[Entry], at: RecordAt) {
        let replica = self.replicas.entry(id).or_default();
        if let Some(run) = run_of(entries, at) {
            replica.replace(run, &mut self.needs);
            replica.trim(replica.base_index.0, &mut self.needs);
        }
    }

    fn apply_summary(&mut self, id: ReplicaId, summary: &Summary, damaged_segment: Option<u64>) {
        let Self { replicas, needs, .. } = self;
        let suspect = replicas.get(&id).map_or(damaged_segment, |known| known.suspect);
        let replica = replicas.entry(id).or_default();
        let Summary { shard, volume, store, .. } = *summary;
        replica.home = Some(Home { shard, volume, store });
        replica.hard_state = summary.hard_state;
        replica.damaged |= summary.damaged;
        replica.set_base(summary.base_index, summary.base_term, needs);
        replica.cut(summary.last_index.0 + 1, needs);
        let dead = |run: &&Run| run.at.segment < summary.oldest_segment;
        for run in replica.runs.values().filter(dead).copied().collect::<Vec<_>>() {
            replica.runs.remove(&run.first);
            needs.remove(&run.at);
        }
        replica.suspect = suspect.filter(|segment| *segment >= summary.oldest_segment);
    }

    /// Takes in a record during replay. `damaged_segment` is the last one
    /// found damaged so far.
    pub(super) fn replay(
        &mut self,
        id: ReplicaId,
        stored: &Stored,
        at: RecordAt,
        damaged_segment: Option<u64>,
    ) {
        let known = self.replicas.contains_key(&id);
        let created = matches!(stored, Stored::Record(LogRecord::Created { .. }));
        match stored {
            Stored::Record(record) => self.apply(id, record, at),
            Stored::Moved(entries) => self.apply_moved(id, entries, at),
            Stored::Summary(summary) => self.apply_summary(id, summary, damaged_segment),
        }
        self.replica_max = self.replica_max.max(id.0);
        if let Some(replica) = self.replicas.get_mut(&id)
            && !known
            && !created
            && replica.home.is_none()
        {
            replica.suspect = damaged_segment;
        }
    }

    /// A damaged extent was met: whoever lives now may have had a record there.
    pub(super) fn suspect_all(&mut self, segment: u64) {
        for replica in self.replicas.values_mut() {
            replica.suspect = Some(segment);
        }
    }

    /// Keeps only replicas a checkpoint names: the others were destroyed.
    pub(super) fn retain(&mut self, named: &[ReplicaId]) {
        let gone: Vec<ReplicaId> =
            self.replicas.keys().filter(|id| !named.contains(id)).copied().collect();
        for id in gone {
            self.remove(id);
        }
    }

    /// Ends replay: suspects become damaged, and entries after a gap go.
    /// Answers replicas that cannot be named, and whether a verdict is new.
    pub(super) fn settle(&mut self) -> (Vec<ReplicaId>, bool) {
        let mut news = false;
        for replica in self.replicas.values_mut() {
            let gap = first_gap(replica);
            if let Some(gap) = gap {
                replica.cut(gap, &mut self.needs);
            }
            if (gap.is_some() || replica.suspect.take().is_some()) && !replica.damaged {
                replica.damaged = true;
                news = true;
            }
        }
        let nameless =
            |(id, replica): (&ReplicaId, &Replica)| replica.home.is_none().then_some(*id);
        let lost: Vec<ReplicaId> = self.replicas.iter().filter_map(nameless).collect();
        for id in &lost {
            self.remove(*id);
        }
        (lost, news)
    }

    /// Marks all replicas damaged, and forgets nobody up to `floor`.
    pub(super) fn condemn(&mut self, floor: u64) {
        for replica in self.replicas.values_mut() {
            replica.damaged = true;
        }
        self.floor = floor;
    }

    /// Marks a replica damaged whose entries from `first` on cannot be read.
    pub(super) fn spoil(&mut self, id: ReplicaId, first: u64) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.cut(first, &mut self.needs);
            replica.damaged = true;
        }
    }

    fn remove(&mut self, id: ReplicaId) {
        if let Some(mut replica) = self.replicas.remove(&id) {
            replica.cut(0, &mut self.needs);
        }
    }
}

fn first_gap(replica: &Replica) -> Option<u64> {
    let mut next = replica.base_index.0 + 1;
    for run in replica.runs.values() {
        if run.first != next {
            return Some(next);
        }
        next = run.last + 1;
    }
    None
}

fn run_of(entries: &[Entry], at: RecordAt) -> Option<Run> {
    let (first, last) = (entries.first()?, entries.last()?);
    Some(Run { first: first.index.0, last: last.index.0, at })
}

fn check_vote(id: ReplicaId, replica: &Replica, new: Option<&HardState>) -> Result<(), LogError> {
    let old = &replica.hard_state;
    match new {
        Some(new)
            if new.term == old.term
                && old.vote != ReplicaId(0)
                && new.vote != ReplicaId(0)
                && new.vote != old.vote =>
        {
            Err(refused(id, format!("second vote in {}", old.term)))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_entries(id: ReplicaId, replica: &Replica, entries: &[Entry]) -> Result<(), LogError> {
    let Some(first) = entries.first() else { return Ok(()) };
    let in_a_row = entries.windows(2).all(|pair| pair[0].index.0 + 1 == pair[1].index.0);
    let reachable = first.index > replica.base_index && first.index.0 <= replica.last_index() + 1;
    if in_a_row && reachable {
        return Ok(());
    }
    Err(refused(
        id,
        format!(
            "entries from {} leave a gap: the log holds {} to {}",
            first.index,
            LogIndex(replica.base_index.0 + 1),
            LogIndex(replica.last_index())
        ),
    ))
}
