//! One file with its two faces, and what a power cut makes of it.

use super::content::Content;

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) now: Content,
    pub(super) durable: Content,
    unsynced: Vec<Unsynced>,
}

#[derive(Clone)]
struct Unsynced {
    offset: usize,
    bytes: Vec<u8>,
}

impl Inode {
    /// A file of so many zeros.
    pub(super) fn of(bytes: usize) -> Self {
        Self { now: Content::zeros(bytes), ..Self::default() }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.now.put(offset, bytes);
        self.unsynced.push(Unsynced { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            self.durable.put(write.offset, &write.bytes);
        }
        self.durable.resize(self.now.len);
    }

    /// Pages of a failed sync are marked clean and never written: once evicted
    /// the old bytes are back.
    pub(super) fn drop_unsynced(&mut self) {
        self.unsynced.clear();
        self.durable.resize(self.now.len);
        self.now.clone_from(&self.durable);
    }

    /// Cuts both faces; whether it was longer.
    pub(super) fn truncate(&mut self, bytes: usize) -> bool {
        let longer = self.now.len > bytes;
        for content in [&mut self.now, &mut self.durable] {
            content.resize(content.len.min(bytes));
        }
        self.unsynced.clear();
        longer
    }

    /// Each write fares on its own: whole, lost, or torn between sectors. The
    /// size follows what is kept, or is already the new one.
    pub(super) fn crash(&mut self, draw: &mut dyn FnMut() -> u64) {
        for write in std::mem::take(&mut self.unsynced) {
            match draw() % 4 {
                0 => self.durable.put(write.offset, &write.bytes),
                1 => {}
                _ => write.tear(&mut self.durable, draw),
            }
        }
        if self.durable.len < self.now.len && draw() & 1 == 0 {
            self.durable.resize(self.now.len);
        }
        self.now.clone_from(&self.durable);
    }
}

impl Unsynced {
    fn tear(&self, durable: &mut Content, draw: &mut dyn FnMut() -> u64) {
        let mut at = 0;
        while at < self.bytes.len() {
            let next_sector = (self.offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
            let end = (next_sector - self.offset).min(self.bytes.len());
            if draw() & 1 == 0 {
                durable.put(self.offset + at, &self.bytes[at..end]);
            }
            at = end;
        }
    }
}
