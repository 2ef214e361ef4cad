//! The log itself: stage, write, sync, read.
//!
//! `stage` judges a record and puts it in the batch being built; `write` sends
//! the batch to the segment in one write; `sync` makes everything written
//! durable. After any failed write or sync the log is fenced for good: what
//! the disk holds is known only to the next recovery.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    LogStamp,
    format::{BatchBuffer, BatchPrefix, RECORD_HEAD_BYTES, RawRecord, RecordKind, Stored},
    index::{Index, RecordAt, Run},
};
use crate::{
    formats::to_bytes,
    ids::{LogIndex, ReplicaId},
    ports::{
        files::{File, Files},
        log::{LogError, LogRecord},
    },
    raft::types::Entry,
};

/// How a log is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a new segment; a multiple of 64. It bounds the largest record,
    /// and half of it holds the checkpoint of all replicas.
    pub segment_bytes: usize,
    /// Whether the disk once had a log: where none is, it was lost then, and
    /// with it who was born here.
    pub begun: bool,
}

impl Default for LogOptions {
    /// 64 MiB: a dozen of the largest entries, and one directory sync per
    /// second at 64 MB/s.
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, begun: false }
    }
}

/// What a log takes and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogUsage {
    /// Segments in use.
    pub segments: usize,
    /// Files waiting to become segments.
    pub free_files: usize,
    /// Bytes of segments and free files.
    pub bytes: u64,
    /// Bytes of records that hold entries somebody needs.
    pub needed_bytes: u64,
    /// The same, of the oldest segment.
    pub needed_bytes_oldest: u64,
    /// Replicas.
    pub replicas: usize,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Box<dyn File>,
    pub(super) bytes: u64,
    /// Kept aside instead of being used again.
    pub(super) damaged: bool,
}

/// The log of one disk, without threads or clock.
#[derive(Debug)]
pub struct SegmentedLog {
    pub(super) files: Arc<dyn Files>,
    pub(super) options: LogOptions,
    pub(super) stamp: LogStamp,
    /// Short form of the stamp.
    pub(super) stamp_hash: u64,
    pub(super) index: Index,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Number of the segment written to.
    pub(super) active: u64,
    /// Where its next batch goes.
    pub(super) end: u64,
    /// Up to where it is durable.
    pub(super) durable: u64,
    /// Where the segment before it ended.
    pub(super) previous_end: u64,
    pub(super) sequence: u64,
    /// Segments below were written to be no longer needed …
    pub(super) needless_below: u64,
    /// … and this is what is durable of that.
    pub(super) released_below: u64,
    /// Names of files that wait to become segments; the last is the reserve.
    pub(super) free: Vec<String>,
    pub(super) batch: BatchBuffer,
    pub(super) fenced: Option<String>,
}

impl SegmentedLog {
    /// Judges a record and puts it in the batch being built. A refusal changes
    /// nothing. May write, sync and begin a new segment when the batch is full.
    ///
    /// # Errors
    /// Refused, full or fenced. A full log still takes `Trimmed` and
    /// `Destroyed` out of its reserve.
    pub fn stage(&mut self, replica: ReplicaId, record: &LogRecord) -> Result<(), LogError> {
        self.check_fence()?;
        self.index.check(replica, record)?;
        let frees = match record {
            LogRecord::Trimmed { .. } | LogRecord::Destroyed => true,
            LogRecord::Created { .. } => {
                self.check_roster(replica)?;
                false
            }
            LogRecord::Ready { .. } | LogRecord::Installed { .. } => false,
        };
        let body = to_bytes(record);
        let at = self.place(replica, RecordKind::Record, &body, frees)?;
        self.index.apply(replica, record, at);
        Ok(())
    }

    /// Puts an encoded record in the batch, making room first.
    pub(super) fn place(
        &mut self,
        replica: ReplicaId,
        kind: RecordKind,
        body: &[u8],
        frees: bool,
    ) -> Result<RecordAt, LogError> {
        self.make_room(replica, body.len(), frees)?;
        let (begin, body_bytes) = self.batch.push(replica, kind, body);
        Ok(RecordAt { segment: self.active, offset: self.end + begin as u64, body_bytes })
    }

    /// Writes the batch built so far, in one write. Nothing is durable yet.
    ///
    /// # Errors
    /// Fenced; a failure here fences.
    pub fn write(&mut self) -> Result<(), LogError> {
        self.check_fence()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        let prefix = self.prefix(self.active, self.end);
        let bytes = self.batch.seal(prefix);
        let length = bytes.len() as u64;
        let written = match self.segments.get(&self.active) {
            Some(segment) => segment.file.write_at(self.end, bytes),
            None => Err(std::io::Error::other("the active segment is not open")),
        };
        self.batch.clear();
        self.sequence = prefix.sequence;
        self.end += length;
        self.needless_below = prefix.needed_from;
        self.fence_on(written, "write of a batch")
    }

    /// Makes everything written durable, with one sync; nothing to do costs none.
    ///
    /// # Errors
    /// Fenced; a failure here fences.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check_fence()?;
        if self.durable == self.end {
            return Ok(());
        }
        let synced = match self.segments.get(&self.active) {
            Some(segment) => segment.file.sync(),
            None => Err(std::io::Error::other("the active segment is not open")),
        };
        self.fence_on(synced, "sync of a segment")?;
        self.durable = self.end;
        self.released_below = self.needless_below;
        Ok(())
    }

    /// Stages all of `writes` and writes them as one batch.
    ///
    /// # Errors
    /// Of the first record that is not taken; those before it are written.
    /// Callers that join records of several replicas use [`Self::stage`].
    pub fn append(&mut self, writes: &[(ReplicaId, LogRecord)]) -> Result<(), LogError> {
        let staged = writes.iter().try_for_each(|(replica, record)| self.stage(*replica, record));
        self.write()?;
        staged
    }

    /// States in the log itself that all before is durable, so that later
    /// damage to the last batch is not taken for a torn tail. For a graceful stop.
    ///
    /// # Errors
    /// As [`Self::append`] and [`Self::sync`].
    pub fn close(&mut self) -> Result<(), LogError> {
        self.write()?;
        self.sync()?;
        self.write_statement()?;
        self.sync()
    }

    /// Entries `from..to` of a replica: at least one, and no more than
    /// `bytes_max` bytes of payload beyond the first.
    ///
    /// # Errors
    /// Missing when the log does not hold all of them, damaged when the bytes
    /// read back are not those written.
    pub fn read(
        &self,
        replica: ReplicaId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let missing = || LogError::Missing { replica, from, to };
        let known = self.index.replica(replica).ok_or_else(missing)?;
        let held = known.base_index < from && to.0 <= known.last_index() + 1 && from < to;
        if !held {
            return Err(missing());
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for run in known.runs_between(from.0, to.0) {
            for entry in self.read_run(replica, run)? {
                if entry.index < from || entry.index >= to {
                    continue;
                }
                bytes += entry_bytes(&entry);
                if bytes > bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// The entries of one run, checked.
    pub(super) fn read_run(&self, replica: ReplicaId, run: &Run) -> Result<Vec<Entry>, LogError> {
        let damaged = |cause: &str| LogError::Damaged { replica, cause: cause.to_owned() };
        let segment =
            self.segments.get(&run.at.segment).ok_or_else(|| damaged("its segment is gone"))?;
        let mut bytes = vec![0; RECORD_HEAD_BYTES + run.at.body_bytes as usize];
        let count = segment
            .file
            .read_at(run.at.offset, &mut bytes)
            .map_err(|error| damaged(&format!("read failed: {error}")))?;
        bytes.truncate(count);
        let raw = RawRecord::read(&bytes, 0)
            .map_err(|fault| damaged(&format!("{fault:?} in segment {}", run.at.segment)))?;
        if raw.replica != replica {
            return Err(damaged("the record belongs to another replica"));
        }
        let entries = match raw.decode(&bytes) {
            Ok(Stored::Record(LogRecord::Ready { entries, .. }) | Stored::Moved(entries)) => {
                entries
            }
            Ok(Stored::Record(_) | Stored::Summary(_)) => {
                return Err(damaged("the record holds no entries"));
            }
            Err(error) => return Err(damaged(&error.to_string())),
        };
        let wanted = run.first..=run.last;
        Ok(entries.into_iter().filter(|entry| wanted.contains(&entry.index.0)).collect())
    }

    /// What the log takes and holds.
    pub fn usage(&self) -> LogUsage {
        let free = (self.free.len() * self.options.segment_bytes) as u64;
        let oldest = self.segments.keys().next().copied();
        LogUsage {
            segments: self.segments.len(),
            free_files: self.free.len(),
            bytes: self.segments.values().map(|segment| segment.bytes).sum::<u64>() + free,
            needed_bytes: self.index.needed_bytes(None),
            needed_bytes_oldest: self.index.needed_bytes(oldest),
            replicas: self.index.len(),
        }
    }

    /// Replicas whose entries keep the oldest segment, in order of id; flushing
    /// and trimming them lets it go. Empty while there is only one segment.
    pub fn oldest_segment_replicas(&self) -> Vec<ReplicaId> {
        match self.segments.keys().next() {
            Some(oldest) if *oldest < self.active => self.index.replicas_in(*oldest),
            Some(_) | None => Vec::new(),
        }
    }

    /// Why the log is fenced, if it is.
    pub fn fenced(&self) -> Option<&str> {
        self.fenced.as_deref()
    }

    /// What the batch at `offset` of `segment` states.
    pub(super) fn prefix(&self, segment: u64, offset: u64) -> BatchPrefix {
        BatchPrefix {
            stamp: self.stamp_hash,
            segment,
            offset,
            sequence: self.sequence + 1,
            durable: self.durable,
            previous_end: self.previous_end,
            needed_from: self.index.oldest_needed().unwrap_or(segment).min(segment),
            replica_max: self.index.replica_max,
            floor: self.index.floor,
            records: 0,
            checkpoint: false,
        }
    }

    pub(super) fn check_fence(&self) -> Result<(), LogError> {
        match &self.fenced {
            Some(cause) => Err(LogError::Fenced(cause.clone())),
            None => Ok(()),
        }
    }

    /// Fences the log for good when `outcome` is a failure.
    pub(super) fn fence_on(
        &mut self,
        outcome: std::io::Result<()>,
        operation: &str,
    ) -> Result<(), LogError> {
        outcome.map_err(|error| {
            let cause = format!("{operation} {:016x}: {error}", self.active);
            self.fenced = Some(cause.clone());
            LogError::Fenced(cause)
        })
    }
}

/// What an entry counts against a budget of bytes.
fn entry_bytes(entry: &Entry) -> usize {
    use crate::raft::types::Payload;
    const ENVELOPE_BYTES: usize = 32;
    const STEP_BYTES: usize = 32;
    ENVELOPE_BYTES
        + match &entry.payload {
            Payload::Empty => 0,
            Payload::Command(bytes) => bytes.len(),
            Payload::Configuration(change) => change.steps.len() * STEP_BYTES,
        }
}
