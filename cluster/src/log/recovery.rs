//! Opening a log: what is whole, what was torn, what is damaged.
//!
//! 1. Scan every segment for batches and holes between them.
//! 2. Judge the holes by what batches state. In a segment with a successor,
//!    anything below the end the successor states should be there; in the last
//!    one, anything below the highest position stated durable, and always the
//!    checkpoint, which was synced before the segment had its name. A hole
//!    there is damage. The first other hole of the last segment is the end of
//!    the log: whatever lies behind it was never acknowledged and is cut.
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

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    LogOptions, LogStamp, SegmentedLog,
    format::{
        BATCH_ALIGN, Batch, BatchBuffer, BatchPrefix, FORMAT_VERSION, Fault, SEGMENT_HEADER_BYTES,
        SegmentHeader, free_number, segment_name, segment_number, stamp_hash,
    },
    index::{Index, RecordAt},
    scan::{Stretch, scan},
    segmented::Segment,
};
use crate::{
    ids::{LogIndex, ReplicaId},
    ports::{
        files::{File, Files},
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
    /// Whether there was no log and an empty one was begun. A disk that has
    /// stores or an older identity and no log has lost it.
    pub fresh: bool,
}

/// Why a log did not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system's.
    #[error("cannot {operation} {name} of the log")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        name: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// Written by another release.
    #[error(
        "{name} has log format {found}, this release reads format {supported}: start the release that wrote it"
    )]
    Format {
        /// The file.
        name: String,
        /// Its version.
        found: u16,
        /// Ours.
        supported: u16,
    },
    /// Of another cluster, node or disk.
    #[error(
        "{name} belongs to {} {} disk {}, this is {} {} disk {}: put the disk back where it was",
        found.cluster, found.node, found.disk, expected.cluster, expected.node, expected.disk
    )]
    Foreign {
        /// The file.
        name: String,
        /// Its stamp.
        found: Box<LogStamp>,
        /// Ours.
        expected: Box<LogStamp>,
    },
    /// Nothing in it can be read, so nothing is known of what was promised.
    #[error(
        "no batch of the log can be read ({segments} segments): keep the directory and let the node join anew under a new identity"
    )]
    Unreadable {
        /// Segments found.
        segments: usize,
    },
    /// No room for a segment that recovery needs.
    #[error("no room for a segment of the log, free some space and start again: {0}")]
    Full(String),
    /// A write or sync of recovery failed.
    #[error("recovery of the log could not write: {0}")]
    Fenced(String),
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full(cause) => Self::Full(cause),
            LogError::Fenced(_)
            | LogError::Busy
            | LogError::Refused { .. }
            | LogError::Missing { .. }
            | LogError::Damaged { .. } => Self::Fenced(error.to_string()),
        }
    }
}

fn io_error<'a>(
    operation: &'static str,
    name: &'a str,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { operation, name: name.to_owned(), source }
}

/// One segment as the scan found it.
struct Scanned {
    file: Box<dyn File>,
    bytes: usize,
    header: Result<(), &'static str>,
    stretches: Vec<Stretch>,
}

impl Scanned {
    fn batches(&self) -> impl Iterator<Item = &BatchPrefix> {
        self.stretches.iter().filter_map(|stretch| match stretch {
            Stretch::Batch { prefix, .. } => Some(prefix),
            Stretch::Hole { .. } => None,
        })
    }

    fn last_end(&self) -> usize {
        let ends = self.stretches.iter().filter_map(|stretch| match stretch {
            Stretch::Batch { end, .. } => Some(*end),
            Stretch::Hole { .. } => None,
        });
        ends.max().unwrap_or(SEGMENT_HEADER_BYTES)
    }
}

/// A segment as judged: batches to replay and damage between them, in order.
struct Judged {
    stretches: Vec<Stretch>,
    /// Where its log ends.
    end: usize,
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
        let scanned = scan_all(&*files, &names, &stamp)?;
        let free = free_files(&*files, &names, size)?;
        let mut log = Self::empty(files, stamp, options, free);
        if scanned.is_empty() {
            log.begin_fresh(&names)?;
            return Ok((log, Recovery { fresh: true, ..Recovery::default() }));
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
            let last_is_lost = batches.last().is_some_and(|(_, prefixes)| prefixes.is_empty());
            self.index.floor = if last_is_lost { u64::MAX } else { self.index.replica_max };
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
        let header = SegmentHeader { stamp: self.stamp, number, bytes: scanned.bytes as u64 };
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

/// Reads and scans all segments; nothing is changed.
fn scan_all(
    files: &dyn Files,
    names: &[String],
    stamp: &LogStamp,
) -> Result<BTreeMap<u64, Scanned>, OpenError> {
    let mut all = BTreeMap::new();
    let mut bytes = Vec::new();
    for (number, name) in names.iter().filter_map(|name| Some((segment_number(name)?, name))) {
        let file = files.open(name).map_err(io_error("open", name))?;
        let size = file.size().map_err(io_error("measure", name))?;
        read_up_to(&*file, size, &mut bytes).map_err(io_error("read", name))?;
        let version =
            |found| OpenError::Format { name: name.clone(), found, supported: FORMAT_VERSION };
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) if header.stamp != *stamp => {
                let (found, expected) = (Box::new(header.stamp), Box::new(*stamp));
                return Err(OpenError::Foreign { name: name.clone(), found, expected });
            }
            Ok(header) if header.number != number => Err("the header names another segment"),
            Ok(_) => Ok(()),
            Err(Fault::Bad(cause)) => Err(cause),
            Err(Fault::Version(found)) => return Err(version(found)),
        };
        let stretches = match scan(&bytes, number, stamp_hash(stamp)) {
            Ok(stretches) => stretches,
            Err(Fault::Version(found)) => return Err(version(found)),
            Err(Fault::Bad(_)) => Vec::new(),
        };
        all.insert(number, Scanned { file, bytes: bytes.len(), header, stretches });
    }
    Ok(all)
}

/// Reads the first `size` bytes of a file; sectors the disk cannot read become
/// zeros, which are no batch and so are judged like any other hole.
fn read_up_to(file: &dyn File, size: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    const PIECE_BYTES: usize = 1 << 20;
    const SECTOR_BYTES: usize = 4 << 10;
    bytes.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
    for (number, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
        let offset = (number * PIECE_BYTES) as u64;
        if let Ok(count) = file.read_at(offset, piece) {
            piece.get_mut(count..).unwrap_or_default().fill(0);
            continue;
        }
        for (number, sector) in piece.chunks_mut(SECTOR_BYTES).enumerate() {
            let count = file.read_at(offset + (number * SECTOR_BYTES) as u64, sector);
            sector.get_mut(count.unwrap_or(0)..).unwrap_or_default().fill(0);
        }
    }
    Ok(())
}

/// Free files of the right size; the others hold nothing and go.
fn free_files(files: &dyn Files, names: &[String], size: usize) -> Result<Vec<String>, OpenError> {
    let mut free = Vec::new();
    for name in names.iter().filter(|name| free_number(name).is_some()) {
        let file = files.open(name).map_err(io_error("open", name))?;
        if file.size().map_err(io_error("measure", name))? == size as u64 {
            free.push(name.clone());
        } else {
            files.remove(name).map_err(io_error("remove", name))?;
        }
    }
    Ok(free)
}

/// Tells damage from unused space and torn tail.
fn judge(scanned: &BTreeMap<u64, Scanned>) -> BTreeMap<u64, Judged> {
    let last = scanned.last_key_value().map_or(0, |(number, _)| *number);
    let mut judged = BTreeMap::new();
    for (number, segment) in scanned {
        let verdict = if *number == last {
            judge_last(segment)
        } else {
            let next = scanned.get(&(number + 1)).and_then(|next| next.batches().next());
            let stated = next.and_then(|next| usize::try_from(next.previous_end).ok());
            judge_sealed(segment, stated.unwrap_or_else(|| segment.last_end()))
        };
        judged.insert(*number, verdict);
    }
    judged
}

/// A segment that ended at `end`: every hole before is damage.
fn judge_sealed(segment: &Scanned, end: usize) -> Judged {
    let mut stretches = Vec::new();
    for stretch in &segment.stretches {
        match stretch {
            Stretch::Batch { end: batch_end, .. } if *batch_end <= end => stretches.push(*stretch),
            Stretch::Hole { start, end: hole_end } if *start < end => {
                stretches.push(Stretch::Hole { start: *start, end: end.min(*hole_end) });
            }
            Stretch::Batch { .. } | Stretch::Hole { .. } => {}
        }
    }
    if segment.bytes < end {
        stretches.push(Stretch::Hole { start: segment.bytes, end });
    }
    Judged { stretches, end }
}

/// The segment that was written to: holes below what is stated durable are
/// damage, and so is one in place of the checkpoint; the first other hole is
/// the end.
fn judge_last(segment: &Scanned) -> Judged {
    let durable = segment.batches().map(|prefix| prefix.durable).max().unwrap_or(0);
    let mut judged = Judged { stretches: Vec::new(), end: SEGMENT_HEADER_BYTES };
    for stretch in &segment.stretches {
        match stretch {
            Stretch::Hole { start, .. }
                if *start as u64 >= durable && *start != SEGMENT_HEADER_BYTES =>
            {
                break;
            }
            Stretch::Hole { end, .. } | Stretch::Batch { end, .. } => judged.end = *end,
        }
        judged.stretches.push(*stretch);
    }
    if judged.stretches.is_empty() {
        let hole = Stretch::Hole { start: 0, end: SEGMENT_HEADER_BYTES };
        judged.stretches.push(hole);
    }
    judged
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
    let start = usize::try_from(durable).map_err(io::Error::other)?.min(judged.end);
    let mut tail = vec![0; judged.end - start];
    file.read_at(start as u64, &mut tail)?;
    if !tail.is_empty() && judged.end <= scanned.bytes {
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

/// Reading the judged segments into the index.
struct Replay<'a> {
    log: &'a mut SegmentedLog,
    recovery: &'a mut Recovery,
    /// Last damaged segment so far.
    damaged: Option<u64>,
    /// Whether damage was met and no whole checkpoint since.
    uncovered: bool,
    /// The segment at hand; one buffer for all.
    bytes: Vec<u8>,
}

impl Replay<'_> {
    fn run(&mut self, needed_from: u64, judged: &BTreeMap<u64, Judged>) -> Result<(), OpenError> {
        let last = judged.last_key_value().map_or(needed_from, |(number, _)| *number);
        for number in needed_from..=last {
            match judged.get(&number) {
                Some(judged) => self.segment(number, judged)?,
                None => self.damage(number, 0, 0, "the segment is missing"),
            }
        }
        Ok(())
    }

    fn segment(&mut self, number: u64, judged: &Judged) -> Result<(), OpenError> {
        let name = segment_name(number);
        let Some(segment) = self.log.segments.get(&number) else { return Ok(()) };
        // What lies behind is none of the log's.
        let end = judged.stretches.iter().map(Stretch::end).max().unwrap_or(0) as u64;
        let mut bytes = std::mem::take(&mut self.bytes);
        read_up_to(&*segment.file, end, &mut bytes).map_err(io_error("read", &name))?;
        for stretch in &judged.stretches {
            match stretch {
                Stretch::Hole { start, end } => {
                    self.damage(number, *start as u64, *end as u64, "no whole batch");
                }
                Stretch::Batch { prefix, end } => {
                    if self.batch(&bytes, number, prefix).is_none() {
                        let cause = "the batch holds no valid records";
                        self.damage(number, prefix.offset, *end as u64, cause);
                    }
                }
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    fn batch(&mut self, bytes: &[u8], number: u64, prefix: &BatchPrefix) -> Option<()> {
        let offset = usize::try_from(prefix.offset).ok()?;
        let batch = Batch::read(bytes, offset, number, prefix.stamp).ok()?;
        let records = batch.records(bytes).ok()?;
        let mut decoded = Vec::with_capacity(records.len());
        for record in &records {
            let at = RecordAt {
                segment: number,
                offset: record.begin as u64,
                body_bytes: u32::try_from(record.body_bytes()).ok()?,
            };
            decoded.push((record.replica, at, record.decode(bytes).ok()?));
        }
        for (replica, at, stored) in &decoded {
            self.log.index.replay(*replica, stored, *at, self.damaged);
        }
        if prefix.checkpoint {
            let named: Vec<ReplicaId> = decoded.iter().map(|(replica, ..)| *replica).collect();
            self.log.index.retain(&named);
            self.uncovered = false;
        }
        Some(())
    }

    fn damage(&mut self, segment: u64, from: u64, to: u64, cause: &'static str) {
        self.log.index.suspect_all(segment);
        self.damaged = Some(segment);
        self.uncovered = true;
        self.recovery.damage.push(Damage { segment, from, to, cause });
    }
}
