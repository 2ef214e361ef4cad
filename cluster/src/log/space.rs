//! Room: new segments, old segments let go, entries moved out of the way.
//!
//! A file becomes a segment only after its header and checkpoint are synced,
//! by a rename that is synced too. A segment goes only after a durable batch
//! has stated that nothing in it is needed, oldest first, each removal synced
//! before the next. One free file is held in reserve: a full disk can always
//! record what was trimmed and destroyed, which is what makes room.

use super::{
    SegmentedLog,
    format::{
        BATCH_HEAD_BYTES, BatchBuffer, RECORD_HEAD_BYTES, RecordKind, SEGMENT_HEADER_BYTES,
        SegmentHeader, aligned, free_name, free_number, quarantine_name, segment_name,
    },
    segmented::Segment,
};
use crate::{
    formats::to_bytes,
    ids::ReplicaId,
    ports::{files::File, log::LogError},
};

/// Free files kept: the reserve, and one so that the next segment needs no
/// zero-filling.
const FREE_FILES_MAX: usize = 2;
/// Bytes one replica takes in a checkpoint, rounded up: a record head and a
/// summary of 90 bytes.
const SUMMARY_BYTES: usize = 128;

impl SegmentedLog {
    /// Lets go of segments nobody needs; answers how many. Call it after
    /// completions were given: it syncs the directory once per segment.
    ///
    /// # Errors
    /// Full when the directory refuses the change for now, fenced otherwise.
    pub fn reclaim(&mut self) -> Result<usize, LogError> {
        self.check_fence()?;
        let mut count = 0;
        while let Some((number, damaged, bytes)) = self.oldest_released() {
            self.let_go(number, damaged, bytes)?;
            count += 1;
        }
        Ok(count)
    }

    fn oldest_released(&self) -> Option<(u64, bool, u64)> {
        let (number, segment) = self.segments.first_key_value()?;
        let released = *number < self.released_below && *number < self.active;
        released.then_some((*number, segment.damaged, segment.bytes))
    }

    fn let_go(&mut self, number: u64, damaged: bool, bytes: u64) -> Result<(), LogError> {
        let name = segment_name(number);
        let reusable = !damaged && bytes == self.options.segment_bytes as u64;
        let mut freed = None;
        let outcome = if damaged {
            self.files.rename(&name, &quarantine_name(number))
        } else if reusable && self.free.len() < FREE_FILES_MAX {
            let free = self.next_free_name();
            let renamed = self.files.rename(&name, &free);
            freed = Some(free);
            renamed
        } else {
            self.files.remove(&name)
        };
        outcome.map_err(|error| LogError::Full(format!("cannot let go of {name}: {error}")))?;
        self.segments.remove(&number);
        let synced = self.files.sync_directory();
        self.fence_on(synced, "sync of the directory after letting go of a segment before")?;
        self.free.extend(freed);
        Ok(())
    }

    fn next_free_name(&self) -> String {
        let highest = self.free.iter().filter_map(|name| free_number(name)).max();
        free_name(highest.unwrap_or(0) + 1)
    }

    /// Creates a free file while fewer than wanted are there; answers whether
    /// it did. For idle moments: a new file is filled with zeros.
    ///
    /// # Errors
    /// Full when there is no room, which leaves the log as it was; fenced.
    pub fn prepare(&mut self) -> Result<bool, LogError> {
        self.check_fence()?;
        if self.free.len() >= FREE_FILES_MAX {
            return Ok(false);
        }
        let name = self.create_free()?;
        self.free.insert(0, name);
        Ok(true)
    }

    fn create_free(&mut self) -> Result<String, LogError> {
        let name = self.next_free_name();
        match self.files.create(&name, self.options.segment_bytes as u64) {
            Ok(_) => Ok(name),
            Err(error) => Err(LogError::Full(format!("cannot create {name}: {error}"))),
        }
    }

    /// A file for the next segment. The reserve goes only to what `frees` room.
    fn take_free(&mut self, frees: bool) -> Result<String, LogError> {
        if self.free.len() >= FREE_FILES_MAX {
            return Ok(self.free.remove(0));
        }
        match self.create_free() {
            Ok(name) => Ok(name),
            Err(full) if frees => self.free.pop().ok_or(full),
            Err(full) => Err(full),
        }
    }

    /// Makes sure a record of `body_bytes` fits the batch being built.
    pub(super) fn make_room(
        &mut self,
        replica: ReplicaId,
        body_bytes: usize,
        frees: bool,
    ) -> Result<(), LogError> {
        let capacity = self.segments.get(&self.active).map_or(0, |segment| segment.bytes);
        if self.end + self.batch.len_with(body_bytes) as u64 <= capacity {
            return Ok(());
        }
        let fresh = SEGMENT_HEADER_BYTES
            + self.checkpoint_bytes(self.index.len())
            + aligned(BATCH_HEAD_BYTES + RECORD_HEAD_BYTES + body_bytes);
        if fresh > self.options.segment_bytes {
            return Err(LogError::Refused {
                replica,
                cause: format!("a record of {body_bytes} bytes does not fit a segment"),
            });
        }
        let name = self.take_free(frees)?;
        self.write()?;
        self.sync()?;
        self.begin_segment(&name)
    }

    /// Refuses a replica whose summary might outgrow half a segment.
    pub(super) fn check_roster(&self, replica: ReplicaId) -> Result<(), LogError> {
        if self.checkpoint_bytes(self.index.len() + 1) > self.options.segment_bytes / 2 {
            return Err(LogError::Refused {
                replica,
                cause: format!("{} replicas are all this log can name", self.index.len()),
            });
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "reads as a question to the log")]
    fn checkpoint_bytes(&self, replicas: usize) -> usize {
        BATCH_HEAD_BYTES + replicas * SUMMARY_BYTES
    }

    /// Makes the file `name` the next segment: header and checkpoint first,
    /// then its name. All before must be synced.
    pub(super) fn begin_segment(&mut self, name: &str) -> Result<(), LogError> {
        let number = self.active + 1;
        let previous_end = std::mem::replace(&mut self.previous_end, self.end);
        let (bytes, mut prefix) = self.opening(number);
        let made = self.make_segment(name, number, &bytes);
        match made {
            Ok(file) => {
                let segment_bytes = self.options.segment_bytes as u64;
                let segment = Segment { file, bytes: segment_bytes, damaged: false };
                self.segments.insert(number, segment);
                self.active = number;
                self.end = bytes.len() as u64;
                self.durable = self.end;
                self.sequence += 1;
                prefix.needed_from = prefix.needed_from.min(number);
                self.needless_below = prefix.needed_from;
                self.released_below = prefix.needed_from;
                Ok(())
            }
            Err(error) => {
                self.previous_end = previous_end;
                self.fence_on(Err(error), "beginning of the segment after")
            }
        }
    }

    /// Header and checkpoint of a new segment.
    fn opening(&self, number: u64) -> (Vec<u8>, super::format::BatchPrefix) {
        let header =
            SegmentHeader { stamp: self.stamp, number, bytes: self.options.segment_bytes as u64 };
        let mut checkpoint = BatchBuffer::new();
        for (id, replica) in self.index.replicas() {
            if let Some(summary) = replica.summary(number) {
                checkpoint.push(id, RecordKind::Summary, &to_bytes(&summary));
            }
        }
        let mut prefix = self.prefix(number, SEGMENT_HEADER_BYTES as u64);
        prefix.checkpoint = true;
        prefix.durable = 0;
        let mut bytes = header.encode();
        bytes.extend_from_slice(checkpoint.seal(prefix));
        (bytes, prefix)
    }

    fn make_segment(
        &self,
        name: &str,
        number: u64,
        bytes: &[u8],
    ) -> std::io::Result<Box<dyn File>> {
        let file = self.files.open(name)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        self.files.rename(name, &segment_name(number))?;
        self.files.sync_directory()?;
        Ok(file)
    }

    /// Writes a batch without records: it repeats how far the log is durable
    /// and which segments are needed. The checkpoint of a new segment does too.
    pub(super) fn write_statement(&mut self) -> Result<(), LogError> {
        self.write()?;
        let capacity = self.segments.get(&self.active).map_or(0, |segment| segment.bytes);
        if self.end + aligned(BATCH_HEAD_BYTES) as u64 > capacity {
            let name = self.take_free(true)?;
            self.sync()?;
            return self.begin_segment(&name);
        }
        let prefix = self.prefix(self.active, self.end);
        let mut batch = BatchBuffer::new();
        let bytes = batch.seal(prefix);
        let written = match self.segments.get(&self.active) {
            Some(segment) => segment.file.write_at(self.end, bytes),
            None => Err(std::io::Error::other("the active segment is not open")),
        };
        let length = bytes.len() as u64;
        self.sequence = prefix.sequence;
        self.end += length;
        self.needless_below = prefix.needed_from;
        self.fence_on(written, "write of a statement")
    }

    /// Copies entries out of the oldest segment into the newest, about
    /// `bytes_max` bytes per call, so that idle replicas do not keep it.
    /// Written, not synced; answers how many runs were moved. Call it again
    /// until it answers 0; the segment goes at the `reclaim` after the sync.
    ///
    /// # Errors
    /// As [`Self::stage`]; damaged when an entry cannot be read back, which
    /// leaves it where it is.
    pub fn rewrite_forward(&mut self, bytes_max: usize) -> Result<usize, LogError> {
        self.check_fence()?;
        let Some((oldest, _)) = self.segments.first_key_value() else { return Ok(0) };
        let oldest = *oldest;
        if oldest == self.active {
            return Ok(0);
        }
        let (mut moved, mut bytes) = (0, 0);
        for id in self.index.replicas_in(oldest) {
            let runs = self.index.replica(id).into_iter().flat_map(super::index::Replica::runs);
            let runs: Vec<_> = runs.filter(|run| run.at.segment == oldest).copied().collect();
            for run in runs {
                if bytes >= bytes_max && moved > 0 {
                    self.write()?;
                    return Ok(moved);
                }
                let entries = self.read_run(id, &run)?;
                let body = to_bytes(&entries);
                let at = self.place(id, RecordKind::Moved, &body, true)?;
                self.index.apply_moved(id, &entries, at);
                bytes += body.len();
                moved += 1;
            }
        }
        if moved == 0 && self.released_below <= oldest {
            self.write_statement()?;
        }
        self.write()?;
        Ok(moved)
    }
}
