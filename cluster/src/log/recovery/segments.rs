//! The files of a log as recovery finds them: read and scanned, not judged.

use std::{collections::BTreeMap, io};

use super::error::{OpenError, io_error};
use crate::{
    log::{
        LogStamp,
        format::{
            BatchPrefix, FORMAT_VERSION, Fault, SEGMENT_HEADER_BYTES, SegmentHeader, free_number,
            segment_number, stamp_hash,
        },
        scan::{Stretch, scan},
    },
    ports::files::{File, Files},
};

/// One segment as the scan found it.
pub(super) struct Scanned {
    pub(super) file: Box<dyn File>,
    /// Bytes that are there.
    pub(super) bytes: usize,
    /// Bytes it was made with, all of them synced before it had its name.
    pub(super) size: usize,
    pub(super) header: Result<(), &'static str>,
    /// All up to its size: what is missing at the end is a hole too.
    pub(super) stretches: Vec<Stretch>,
}

impl Scanned {
    /// Whether it ends too early: it was cut, and no write was.
    pub(super) fn is_short(&self) -> bool {
        self.bytes < self.size
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &BatchPrefix> {
        self.stretches.iter().filter_map(|stretch| match stretch {
            Stretch::Batch { prefix, .. } => Some(prefix),
            Stretch::Hole { .. } => None,
        })
    }

    /// Where its log ended at most, by what it holds itself.
    pub(super) fn end_max(&self) -> usize {
        if self.is_short() {
            return self.size;
        }
        let ends = self.stretches.iter().filter_map(|stretch| match stretch {
            Stretch::Batch { end, .. } => Some(*end),
            Stretch::Hole { .. } => None,
        });
        ends.max().unwrap_or(SEGMENT_HEADER_BYTES)
    }
}

/// Reads and scans all segments; nothing is changed. One whose header cannot be
/// read has the size new ones get.
pub(super) fn scan_all(
    files: &dyn Files,
    names: &[String],
    stamp: &LogStamp,
    segment_bytes: usize,
) -> Result<BTreeMap<u64, Scanned>, OpenError> {
    let mut all = BTreeMap::new();
    let mut bytes = Vec::new();
    for (number, name) in names.iter().filter_map(|name| Some((segment_number(name)?, name))) {
        let file = files.open(name).map_err(io_error("open", name))?;
        let there = file.size().map_err(io_error("measure", name))?;
        read_up_to(&*file, there, &mut bytes).map_err(io_error("read", name))?;
        let version =
            |found| OpenError::Format { name: name.clone(), found, supported: FORMAT_VERSION };
        let mut size = segment_bytes.max(bytes.len());
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) if header.stamp != *stamp => {
                let (found, expected) = (Box::new(header.stamp), Box::new(*stamp));
                return Err(OpenError::Foreign { name: name.clone(), found, expected });
            }
            Ok(header) if header.number != number => Err("the header names another segment"),
            Ok(header) => {
                size = usize::try_from(header.bytes).unwrap_or(usize::MAX);
                Ok(())
            }
            Err(Fault::Bad(cause)) => Err(cause),
            Err(Fault::Version(found)) => return Err(version(found)),
        };
        let mut stretches = match scan(&bytes, number, stamp_hash(stamp)) {
            Ok(stretches) => stretches,
            Err(Fault::Version(found)) => return Err(version(found)),
            Err(Fault::Bad(_)) => Vec::new(),
        };
        if bytes.len() < size {
            stretches.push(Stretch::Hole { start: bytes.len(), end: size });
        }
        all.insert(number, Scanned { file, bytes: bytes.len(), size, header, stretches });
    }
    Ok(all)
}

/// Reads the first `size` bytes of a file; sectors the disk cannot read become
/// zeros, which are no batch and so are judged like any other hole.
pub(super) fn read_up_to(file: &dyn File, size: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
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
pub(super) fn free_files(
    files: &dyn Files,
    names: &[String],
    size: usize,
) -> Result<Vec<String>, OpenError> {
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
