//! Reads judged segments into the index, and finds who lost what.

use std::collections::BTreeMap;

use super::{
    Damage, Recovery,
    error::{OpenError, io_error},
    judge::Judged,
    segments::read_up_to,
};
use crate::{
    ids::ReplicaId,
    log::{
        SegmentedLog,
        format::{Batch, BatchPrefix, segment_name},
        index::RecordAt,
        scan::Stretch,
    },
};

/// Reading the judged segments into the index.
pub(super) struct Replay<'a> {
    pub(super) log: &'a mut SegmentedLog,
    pub(super) recovery: &'a mut Recovery,
    /// Last damaged segment so far.
    pub(super) damaged: Option<u64>,
    /// Whether damage was met and no whole checkpoint since.
    pub(super) uncovered: bool,
    /// The segment at hand; one buffer for all.
    pub(super) bytes: Vec<u8>,
}

impl Replay<'_> {
    pub(super) fn run(
        &mut self,
        needed_from: u64,
        judged: &BTreeMap<u64, Judged>,
    ) -> Result<(), OpenError> {
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
