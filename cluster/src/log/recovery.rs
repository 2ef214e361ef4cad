//! Opening a log: what is whole, what was torn, what is damaged.
//!
//! 1. Scan every segment for batches and holes between them.
//! 2. Judge the holes by what batches state. In a segment with a successor,
//!    anything below the end the successor states should be there; in the last
//!    one, anything below the highest position stated durable, and always the
//!    checkpoint, which was synced before the segment had its name. A hole
//!    there is damage. The first other hole of the last segment is the end of
//!    the log: whatever lies behind it was never acknowledged and is cut. A
//!    segment has its whole size before it has its name, so one that is shorter
//!    has no torn tail: what is missing of it is damage.
//! 3. Replay in order. At damage every replica then alive becomes a suspect;
//!    it is cleared by a later checkpoint when its entries lie behind the
//!    damage too, since then all it needs was read. Suspects left are damaged.
//! 4. Make the verdict durable before anything is served: rewrite and sync the
//!    tail (a process may die after a failed sync whose pages were dropped, so
//!    what was read may not be on the disk), and put new verdicts in the
//!    checkpoint of a new segment.
//!
//! Each step may be cut short by a crash and done again with the same result.
//! Nothing is deleted because it cannot be read.

mod error;
mod judge;
mod replay;
mod segments;

use std::{collections::BTreeMap, io, sync::Arc};

pub use self::error::OpenError;
use self::{
    error::io_error,
    judge::{Judged, judge},
    replay::Replay,
    segments::{Scanned, free_files, scan_all},
};
use super::{
    LogOptions, LogStamp, SegmentedLog,
    format::{
        BATCH_ALIGN, BatchBuffer, BatchPrefix, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name,
        stamp_hash,
    },
    index::Index,
    scan::Stretch,
    segmented::Segment,
};
use crate::{
    ids::{LogIndex, ReplicaId},
    ports::{
        files::Files,
        log::{LogError, RecoveredReplica},
    },
};

/// Bytes of a log that should be there and are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment; its file is named so in hexadecimal.
    pub segment: u64,
    /// First byte of the extent.
    pub from: u64,
    /// First byte after it.
    pub to: u64,
    /// What was found.
    pub cause: &'static str,
}

/// Bytes behind the end of a log that are no batch of it: what a stop left
/// half written and nobody was told of, or what a reused file held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Number of the last segment.
    pub segment: u64,
    /// Where it was cut.
    pub at: u64,
}

/// What a log held at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Replicas by id, each with all entries after its base. What this takes
    /// in memory is what the log holds on disk and not yet in the stores: the
    /// pace of flushing bounds both.
    pub replicas: Vec<RecoveredReplica>,
    /// Damage found, oldest first; found again at each start until its segment
    /// is let go. Not empty is an alarm.
    pub damage: Vec<Damage>,
    /// Where a torn tail was cut, if there was one.
    pub torn: Option<TornTail>,
    /// Replicas of which records were found but not who they are. They are lost.
    pub unnamed: Vec<ReplicaId>,
    /// Ids up to here that are not in `replicas` may have lived here and been
    /// forgotten; the log refuses to create them.
    pub forgotten_up_to: Option<ReplicaId>,
    /// Whether there was no log and an empty one was begun.
    pub fresh: bool,
}

impl SegmentedLog {
    /// Opens the log in `files`, or begins one where there is none.
    ///
    /// # Errors
    /// Says what is wrong and what to do; see [`OpenError`].
    ///
    /// # Panics
    /// If the size of a segment is no multiple of 64, below 1 KiB or above 2 GiB.
    pub fn open(
        files: Arc<dyn Files>,
        stamp: LogStamp,
        options: LogOptions,
    ) -> Result<(Self, Recovery), OpenError> {
        let size = options.segment_bytes;
        assert!(
            size.is_multiple_of(BATCH_ALIGN) && (1 << 10..=2 << 30).contains(&size),
            "segment of {size} bytes"
        );
        files.sync_directory().map_err(io_error("sync", "the directory"))?;
        let names = files.list().map_err(io_error("list", "the directory"))?;
        let scanned = scan_all(&*files, &names, &stamp, size)?;
        let free = free_files(&*files, &names, size)?;
        let mut log = Self::empty(files, stamp, options, free);
        if scanned.is_empty() {
            log.begin_fresh(&names)?;
            let mut recovery = Recovery { fresh: true, ..Recovery::default() };
            log.report(&mut recovery);
            return Ok((log, recovery));
        }
        let mut recovery = Recovery::default();
        let news = log.replay(scanned, &mut recovery)?;
        let news = log.load_entries(&mut recovery) || news;
        if news {
            log.record_verdict()?;
        }
        log.keep_reserve();
        log.report(&mut recovery);
        Ok((log, recovery))
    }

    fn empty(
        files: Arc<dyn Files>,
        stamp: LogStamp,
        options: LogOptions,
        free: Vec<String>,
    ) -> Self {
        Self {
            files,
            options,
            stamp,
            stamp_hash: stamp_hash(&stamp),
            index: Index::default(),
            segments: BTreeMap::new(),
            active: 0,
            end: 0,
            durable: 0,
            previous_end: 0,
            sequence: 0,
            needless_below: 0,
            released_below: 0,
            free,
            batch: BatchBuffer::new(),
            fenced: None,
        }
    }

    /// A directory that held segments once is never taken for a new one.
    fn begin_fresh(&mut self, names: &[String]) -> Result<(), OpenError> {
        let quarantined = names.iter().filter(|name| name.ends_with(".quarantined")).count();
        if quarantined > 0 {
            return Err(OpenError::Unreadable { segments: quarantined });
        }
        if self.options.begun {
            // In its first checkpoint already: a crash may follow, and then the
            // log is no longer missing.
            self.index.floor = u64::MAX;
        }
        self.prepare()?;
        if let Some(name) = self.free.pop() {
            self.begin_segment(&name)?;
        }
        self.keep_reserve();
        Ok(())
    }

    /// A full disk must not keep a node from starting and deleting, so a
    /// reserve that cannot be made now is made later.
    fn keep_reserve(&mut self) {
        if self.free.is_empty() {
            let later = self.prepare().is_err();
            tracing::debug!(later, "reserve of the log");
        }
    }

    /// Judges, repairs and replays; answers whether there are verdicts that
    /// are not in the log yet.
    fn replay(
        &mut self,
        scanned: BTreeMap<u64, Scanned>,
        recovery: &mut Recovery,
    ) -> Result<bool, OpenError> {
        let segments = scanned.len();
        let judged = judge(&scanned);
        let kept = |number: &u64, judged: &Judged| {
            let of = |stretch: &Stretch| match stretch {
                Stretch::Batch { prefix, .. } => Some(*prefix),
                Stretch::Hole { .. } => None,
            };
            (*number, judged.stretches.iter().filter_map(of).collect::<Vec<_>>())
        };
        let batches: Vec<(u64, Vec<BatchPrefix>)> =
            judged.iter().map(|(number, judged)| kept(number, judged)).collect();
        let all = || batches.iter().flat_map(|(_, prefixes)| prefixes);
        let needed_from = all().map(|prefix| prefix.needed_from).max();
        let Some(needed_from) = needed_from else { return Err(OpenError::Unreadable { segments }) };
        // The newest batch knows best: a floor may have been found too high.
        let newest = all().max_by_key(|prefix| prefix.sequence);
        self.index.floor = newest.map_or(0, |prefix| prefix.floor);
        let highest_stated = all().map(|prefix| prefix.replica_max).max().unwrap_or(0);
        self.released_below = needed_from;
        self.needless_below = needed_from;
        self.take_segments(scanned, &judged, recovery)?;

        let mut replay =
            Replay { log: self, recovery, damaged: None, uncovered: false, bytes: Vec::new() };
        replay.run(needed_from, &judged)?;
        let uncovered = replay.uncovered;
        self.index.replica_max = self.index.replica_max.max(highest_stated);
        if uncovered {
            // Nothing behind the damage says who was born in it.
            let ends = judged.last_key_value().and_then(|(_, last)| last.stretches.last());
            let end_is_lost = !matches!(ends, Some(Stretch::Batch { .. }));
            let born = if end_is_lost { u64::MAX } else { self.index.replica_max };
            // What was known to be forgotten already stays so.
            self.index.floor = self.index.floor.max(born);
        }
        let (unnamed, news) = self.index.settle();
        recovery.unnamed = unnamed;
        Ok(news || uncovered)
    }

    /// Takes over the files, repairs headers, makes the tail durable.
    fn take_segments(
        &mut self,
        scanned: BTreeMap<u64, Scanned>,
        judged: &BTreeMap<u64, Judged>,
        recovery: &mut Recovery,
    ) -> Result<(), OpenError> {
        let last = scanned.last_key_value().map_or(0, |(number, _)| *number);
        self.active = last;
        for (number, scanned) in scanned {
            let name = segment_name(number);
            self.sequence =
                scanned.batches().map(|prefix| prefix.sequence).fold(self.sequence, u64::max);
            if let Err(cause) = scanned.header {
                let to = SEGMENT_HEADER_BYTES as u64;
                recovery.damage.push(Damage { segment: number, from: 0, to, cause });
                if scanned.batches().next().is_some() {
                    self.repair_header(number, &scanned)?;
                }
            }
            if number == last
                && let Some(judged) = judged.get(&number)
            {
                self.end = judged.end as u64;
                self.previous_end =
                    scanned.batches().next().map_or(0, |prefix| prefix.previous_end);
                recovery.torn = secure_tail(&scanned, judged, number)
                    .map_err(io_error("secure the tail of", &name))?;
                self.durable = self.end;
            }
            let holed = |judged: &Judged| {
                judged.stretches.iter().any(|stretch| matches!(stretch, Stretch::Hole { .. }))
            };
            let damaged = judged.get(&number).is_some_and(holed);
            let segment = Segment { file: scanned.file, bytes: scanned.bytes as u64, damaged };
            self.segments.insert(number, segment);
        }
        Ok(())
    }

    fn repair_header(&self, number: u64, scanned: &Scanned) -> Result<(), OpenError> {
        let header = SegmentHeader { stamp: self.stamp, number, bytes: scanned.size as u64 };
        let name = segment_name(number);
        scanned.file.write_at(0, &header.encode()).map_err(io_error("repair", &name))?;
        scanned.file.sync().map_err(io_error("sync", &name))
    }

    /// Reads the entries of all replicas; answers whether some could not be.
    fn load_entries(&mut self, recovery: &mut Recovery) -> bool {
        let mut news = false;
        let ids: Vec<ReplicaId> = self.index.replicas().map(|(id, _)| id).collect();
        for id in ids {
            let Some((found, broken)) = self.load_replica(id) else { continue };
            if let Some(first) = broken {
                self.index.spoil(id, first);
                news = true;
            }
            recovery.replicas.push(found);
        }
        news
    }

    /// One replica as the log holds it, and the first entry that could not be
    /// read; with one it counts as damaged.
    fn load_replica(&self, id: ReplicaId) -> Option<(RecoveredReplica, Option<u64>)> {
        let replica = self.index.replica(id)?;
        let home = replica.home?;
        let mut found = RecoveredReplica {
            replica: id,
            shard: home.shard,
            volume: home.volume,
            store: home.store,
            hard_state: replica.hard_state,
            base_index: replica.base_index,
            base_term: replica.base_term,
            entries: Vec::new(),
            damaged: replica.damaged,
        };
        for run in replica.runs() {
            let Ok(entries) = self.read_run(id, run) else {
                found.damaged = true;
                return Some((found, Some(run.first)));
            };
            found.entries.extend(entries);
        }
        Some((found, None))
    }

    /// One replica as the log holds it, for an actor that begins again. All
    /// that was staged is written and synced first, so that the actor believes
    /// nothing a power cut could still take.
    ///
    /// # Errors
    /// Missing if the log does not know it, fenced.
    pub fn recover(&mut self, replica: ReplicaId) -> Result<RecoveredReplica, LogError> {
        self.write()?;
        self.sync()?;
        let missing = LogError::Missing { replica, from: LogIndex(0), to: LogIndex(0) };
        self.load_replica(replica).map(|(found, _)| found).ok_or(missing)
    }

    /// Declares all that the log holds of old times, for its disk is a restored
    /// image or has forgotten who was born on it: every replica counts as
    /// damaged, and none with an id up to `born_up_to` is born here any more.
    /// The verdict is durable when this returns. `recovery` learns it too.
    ///
    /// # Errors
    /// If the verdict cannot be written.
    pub fn condemn(
        &mut self,
        born_up_to: ReplicaId,
        recovery: &mut Recovery,
    ) -> Result<(), OpenError> {
        let known = if self.index.floor == u64::MAX { 0 } else { self.index.floor };
        self.index.condemn(known.max(born_up_to.0));
        self.record_verdict()?;
        self.report(recovery);
        for found in &mut recovery.replicas {
            found.damaged = true;
        }
        Ok(())
    }

    /// Puts what recovery decided into a checkpoint.
    fn record_verdict(&mut self) -> Result<(), OpenError> {
        if self.free.is_empty() {
            self.prepare()?;
        }
        if let Some(name) = self.free.pop() {
            self.begin_segment(&name)?;
        }
        Ok(())
    }

    fn report(&self, recovery: &mut Recovery) {
        let floor = self.index.floor;
        recovery.forgotten_up_to = (floor > 0).then_some(ReplicaId(floor));
        recovery.damage.sort_by_key(|damage| (damage.segment, damage.from));
    }
}

/// Makes the tail what was read of it: written again and synced. Answers
/// whether something lies behind it. A whole batch there needs no wiping: what
/// is appended now has a higher sequence, so a scan no longer believes it.
fn secure_tail(scanned: &Scanned, judged: &Judged, number: u64) -> io::Result<Option<TornTail>> {
    let file = &scanned.file;
    let durable = scanned.batches().map(|prefix| prefix.durable).max().unwrap_or(0);
    if scanned.batches().next().is_none() {
        return Ok(None);
    }
    // What is missing of a file that was cut is damage, and not made up.
    let end = judged.end.min(scanned.bytes);
    let start = usize::try_from(durable).map_err(io::Error::other)?.min(end);
    let mut tail = vec![0; end - start];
    file.read_at(start as u64, &mut tail)?;
    if !tail.is_empty() {
        file.write_at(start as u64, &tail)?;
    }
    let behind = |prefix: &BatchPrefix| prefix.offset >= judged.end as u64;
    let stray = scanned.batches().any(behind);
    file.sync()?;
    let mut next = [0; BATCH_ALIGN];
    let count = file.read_at(judged.end as u64, &mut next)?;
    let torn = stray || next[..count].iter().any(|byte| *byte != 0);
    Ok(torn.then_some(TornTail { segment: number, at: judged.end as u64 }))
}
