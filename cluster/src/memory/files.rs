//! A directory in memory that forgets exactly what a power cut may forget.
//!
//! Each file has two faces: what a reader sees now, and what the disk would
//! show after a cut. A write changes the first; `sync` makes it the second.
//! Names behave likewise through `sync_directory`. At a crash each 512-byte
//! sector of each unsynced write is kept or lost by a draw of the caller, so
//! writes are lost, torn and reordered; unsynced creations, renames and
//! removals are kept or lost one by one. Handles opened before a crash are
//! dead after it.
//!
//! Faults are planned by name: a sync that fails once and drops the pages, a
//! write that fails, a device that reads or writes nothing for a while, a read
//! that lies, a quota, a flipped bit, a file cut short. Nothing is drawn here, so the
//! same draws give the same disk.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::ports::files::{File, Files};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// One directory in memory; clones share it.
///
/// A lock guards it because the port is shared between threads; it is held for
/// the length of one call and no call enters another.
#[derive(Clone, Default)]
pub struct MemoryFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Clone, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    crashes: u64,
    syncs: u64,
    writes: u64,
    faults: Faults,
    device: Device,
}

/// What is wrong with the device itself; a crash does not mend it.
#[derive(Clone, Default)]
struct Device {
    reads_fail: bool,
    writes_fail: bool,
    struck: u64,
}

#[derive(Clone, Default)]
struct Inode {
    now: Content,
    durable: Content,
    unsynced: Vec<Unsynced>,
}

/// What a file holds. Its end, as far as nobody wrote there, takes no memory:
/// segments are made large and filled slowly.
#[derive(Clone, Default)]
struct Content {
    written: Vec<u8>,
    /// Bytes of the file; those behind `written` are zeros.
    len: usize,
}

impl Content {
    fn resize(&mut self, len: usize) {
        self.written.truncate(len);
        self.len = len;
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.written.len() < end {
            self.written.resize(end, 0);
        }
        self.written[offset..end].copy_from_slice(bytes);
        self.len = self.len.max(end);
    }

    /// Reads into `buffer` and says how much there was.
    fn read(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(buffer.len());
        let there = &mut buffer[..count];
        let written = self.written.get(offset..).unwrap_or_default();
        let (copied, zeros) = there.split_at_mut(written.len().min(count));
        copied.copy_from_slice(&written[..copied.len()]);
        zeros.fill(0);
        count
    }

    fn flip(&mut self, byte: usize, mask: u8) -> bool {
        if byte >= self.len {
            return false;
        }
        if self.written.len() <= byte {
            self.written.resize(byte + 1, 0);
        }
        self.written[byte] ^= mask;
        true
    }

    fn all(&self) -> Vec<u8> {
        let mut all = self.written.clone();
        all.resize(self.len, 0);
        all
    }
}

#[derive(Clone)]
struct Unsynced {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct Faults {
    sync_fails_at: Option<u64>,
    write_fails_at: Option<u64>,
    flip_next_read: Option<u64>,
    quota_bytes: Option<u64>,
}

impl MemoryFiles {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A separate directory with the same contents, unsynced ones included.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk().clone())) }
    }

    /// Cuts the power: `draw` decides what of the unsynced survives. Planned
    /// faults are forgotten and open handles die.
    pub fn crash(&self, draw: &mut dyn FnMut() -> u64) {
        let mut disk = self.disk();
        disk.crashes += 1;
        disk.faults = Faults::default();
        for inode in disk.inodes.values_mut() {
            inode.crash(draw);
        }
        disk.crash_names(draw);
    }

    /// Stops the process but not the machine: the page cache survives, open
    /// handles die.
    pub fn kill(&self) {
        self.disk().crashes += 1;
    }

    /// Lets the `n`th sync from now (1 is the next) fail once and drop what it
    /// should have written; later ones succeed, as Linux does it.
    pub fn fail_sync(&self, n: u64) {
        let mut disk = self.disk();
        disk.faults.sync_fails_at = Some(disk.syncs + n);
    }

    /// Lets the `n`th write from now fail and write nothing.
    pub fn fail_write(&self, n: u64) {
        let mut disk = self.disk();
        disk.faults.write_fails_at = Some(disk.writes + n);
    }

    /// Lets every read fail from now on, or none.
    pub fn fail_reads(&self, on: bool) {
        self.disk().device.reads_fail = on;
    }

    /// Lets every write fail from now on, or none.
    pub fn fail_writes(&self, on: bool) {
        self.disk().device.writes_fail = on;
    }

    /// Flips one bit of what the next read returns; the disk keeps the right
    /// one. `draw` chooses it.
    pub fn flip_next_read(&self, draw: u64) {
        self.disk().faults.flip_next_read = Some(draw);
    }

    /// Cuts a file to `bytes`, now and durably. Answers whether it was longer.
    pub fn truncate(&self, name: &str, bytes: usize) -> bool {
        let mut disk = self.disk();
        let Some(inode) = disk.inode_mut(name) else { return false };
        let longer = inode.now.len > bytes;
        for content in [&mut inode.now, &mut inode.durable] {
            content.resize(content.len.min(bytes));
        }
        inode.unsynced.clear();
        longer
    }

    /// Operations so far that failed or lied by a fault of the device.
    pub fn struck(&self) -> u64 {
        self.disk().device.struck
    }

    /// Refuses to create what would bring the sum of sizes over `bytes`.
    pub fn limit(&self, bytes: Option<u64>) {
        self.disk().faults.quota_bytes = bytes;
    }

    /// Flips one bit of a file, now and durably: bit rot. Answers whether the
    /// file has that bit.
    pub fn flip_bit(&self, name: &str, bit: usize) -> bool {
        let mut disk = self.disk();
        let Some(inode) = disk.inode_mut(name) else { return false };
        let mask = 1 << (bit % 8);
        inode.durable.flip(bit / 8, mask);
        inode.now.flip(bit / 8, mask)
    }

    /// Overwrites part of a file, now and durably: a misdirected write.
    /// Answers whether the part lies inside the file.
    pub fn scribble(&self, name: &str, offset: usize, bytes: &[u8]) -> bool {
        let mut disk = self.disk();
        let Some(inode) = disk.inode_mut(name) else { return false };
        if offset + bytes.len() > inode.now.len {
            return false;
        }
        inode.now.put(offset, bytes);
        inode.durable.put(offset, bytes);
        true
    }

    /// What a reader of `name` sees now.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        let inode = disk.names.get(name)?;
        disk.inodes.get(inode).map(|inode| inode.now.all())
    }

    /// Syncs of files and of the directory so far.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.disk().writes
    }
}

impl fmt::Debug for MemoryFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk();
        f.debug_struct("MemoryFiles")
            .field("names", &disk.names.keys())
            .field("syncs", &disk.syncs)
            .finish_non_exhaustive()
    }
}

impl Disk {
    fn inode_mut(&mut self, name: &str) -> Option<&mut Inode> {
        let inode = self.names.get(name)?;
        self.inodes.get_mut(inode)
    }

    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|inode| self.inodes.get(inode));
        named.map(|inode| inode.now.len as u64).sum()
    }

    /// Names that reached the disk, plus those unsynced changes that `draw`
    /// keeps, in the order they were made; a change whose subject is not there
    /// has nothing to do.
    fn crash_names(&mut self, draw: &mut dyn FnMut() -> u64) {
        let mut names = std::mem::take(&mut self.durable_names);
        for change in std::mem::take(&mut self.unsynced_names) {
            if draw() & 1 == 0 {
                change.make(&mut names);
            }
        }
        self.names.clone_from(&names);
        self.durable_names = names;
        let (inodes, names) = (&mut self.inodes, &self.names);
        inodes.retain(|number, _| names.values().any(|named| named == number));
    }

    fn change(&mut self, change: NameChange) {
        change.make(&mut self.names);
        self.unsynced_names.push(change);
    }

    /// Counts a sync and says whether it is the one planned to fail.
    fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        let fails = self.faults.sync_fails_at == Some(self.syncs);
        if fails {
            self.faults.sync_fails_at = None;
            self.device.struck += 1;
        }
        fails
    }

    /// Says whether a read fails, and counts that it does.
    fn read_fails(&mut self) -> bool {
        self.device.struck += u64::from(self.device.reads_fail);
        self.device.reads_fail
    }

    /// Counts a write and says whether it fails.
    fn write_fails(&mut self) -> bool {
        self.writes += 1;
        let fails = self.device.writes_fail || self.faults.write_fails_at == Some(self.writes);
        self.device.struck += u64::from(fails);
        fails
    }

    /// Lets a read lie, if that is planned.
    fn lie(&mut self, buffer: &mut [u8]) {
        let bits = buffer.len() * 8;
        if bits == 0 {
            return;
        }
        let Some(draw) = self.faults.flip_next_read.take() else { return };
        let bit = usize::try_from(draw).unwrap_or(0) % bits;
        buffer[bit / 8] ^= 1 << (bit % 8);
        self.device.struck += 1;
    }
}

impl NameChange {
    fn make(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.now.put(offset, bytes);
        self.unsynced.push(Unsynced { offset, bytes: bytes.to_vec() });
    }

    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            self.durable.put(write.offset, &write.bytes);
        }
        self.durable.resize(self.now.len);
    }

    /// Pages of a failed sync are marked clean and never written: once evicted
    /// the old bytes are back.
    fn drop_unsynced(&mut self) {
        self.unsynced.clear();
        self.durable.resize(self.now.len);
        self.now.clone_from(&self.durable);
    }

    /// Each write fares on its own: whole, lost, or torn between sectors. The
    /// size follows what is kept, or is already the new one.
    fn crash(&mut self, draw: &mut dyn FnMut() -> u64) {
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

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

fn place(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

impl Files for MemoryFiles {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk();
        if disk.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} exists")));
        }
        if disk.faults.quota_bytes.is_some_and(|quota| disk.used() + bytes > quota) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let number = disk.next_inode;
        disk.next_inode += 1;
        let now = Content { len: place(bytes)?, ..Content::default() };
        let inode = Inode { now, ..Inode::default() };
        disk.inodes.insert(number, inode);
        disk.change(NameChange::Create(name.to_owned(), number));
        Ok(self.handle(number, &disk))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let disk = self.disk();
        let number = *disk.names.get(name).ok_or_else(|| missing(name))?;
        Ok(self.handle(number, &disk))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(from) {
            return Err(missing(from));
        }
        disk.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(name) {
            return Err(missing(name));
        }
        disk.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.sync_fails() {
            return Err(io::Error::other("sync of the directory failed as planned"));
        }
        disk.unsynced_names.clear();
        disk.durable_names = disk.names.clone();
        Ok(())
    }
}

impl MemoryFiles {
    fn handle(&self, inode: u64, disk: &Disk) -> Box<dyn File> {
        Box::new(MemoryFile { files: self.clone(), inode, crashes: disk.crashes })
    }
}

#[derive(Debug)]
struct MemoryFile {
    files: MemoryFiles,
    inode: u64,
    /// Crashes the directory had seen when this handle was opened.
    crashes: u64,
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.files.disk();
        if disk.crashes != self.crashes {
            return Err(io::Error::other("the power was cut since this file was opened"));
        }
        act(&mut disk)
    }

    fn inode<'a>(&self, disk: &'a mut Disk) -> io::Result<&'a mut Inode> {
        disk.inodes.get_mut(&self.inode).ok_or_else(|| io::Error::other("the file is gone"))
    }
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|disk| Ok(self.inode(disk)?.now.len as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = place(offset)?;
        self.with(|disk| {
            if disk.read_fails() {
                return Err(io::Error::other("read failed as planned"));
            }
            let count = self.inode(disk)?.now.read(offset, buffer);
            disk.lie(&mut buffer[..count]);
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = place(offset)?;
        self.with(|disk| {
            if disk.write_fails() {
                return Err(io::Error::other("write failed as planned"));
            }
            self.inode(disk)?.write(offset, bytes);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk| {
            let fails = disk.sync_fails();
            let inode = self.inode(disk)?;
            if fails {
                inode.drop_unsynced();
                return Err(io::Error::other("sync failed as planned"));
            }
            inode.sync();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(files: &MemoryFiles) -> Box<dyn File> {
        let file = files.create("a", 4096).unwrap();
        file.sync().unwrap();
        files.sync_directory().unwrap();
        file
    }

    #[test]
    fn a_crash_takes_what_was_not_synced_when_the_draw_says_so() {
        let files = MemoryFiles::new();
        let file = synced(&files);
        file.write_at(0, b"kept").unwrap();
        file.sync().unwrap();
        file.write_at(4, b"lost").unwrap();
        files.crash(&mut || 1);
        assert_eq!(&files.contents("a").unwrap()[..8], b"kept\0\0\0\0");
        assert!(file.size().is_err(), "a handle outlived the crash");
    }

    #[test]
    fn a_torn_write_breaks_between_sectors() {
        let files = MemoryFiles::new();
        let file = synced(&files);
        file.write_at(100, &[7; 1000]).unwrap();
        let mut draws = [2, 0, 1, 0].into_iter();
        files.crash(&mut || draws.next().unwrap_or(1));
        let bytes = files.contents("a").unwrap();
        assert!(bytes[100..512].iter().all(|byte| *byte == 7));
        assert!(bytes[512..1024].iter().all(|byte| *byte == 0));
        assert!(bytes[1024..1100].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn an_unsynced_name_may_be_lost_with_its_file() {
        let files = MemoryFiles::new();
        synced(&files);
        files.create("b", 10).unwrap().sync().unwrap();
        files.rename("a", "c").unwrap();
        files.crash(&mut || 1);
        assert_eq!(files.list().unwrap(), ["a"]);
    }

    #[test]
    fn a_failed_sync_drops_the_pages_and_the_next_one_succeeds() {
        let files = MemoryFiles::new();
        let file = synced(&files);
        file.write_at(0, b"gone").unwrap();
        files.fail_sync(1);
        assert!(file.sync().is_err());
        assert!(file.sync().is_ok());
        assert_eq!(&files.contents("a").unwrap()[..4], &[0; 4]);
    }

    #[test]
    fn a_bad_device_stays_bad_over_a_crash_and_counts_what_it_spoilt() {
        let files = MemoryFiles::new();
        synced(&files).write_at(0, b"kept").unwrap();
        files.fail_reads(true);
        files.fail_writes(true);
        files.kill();
        let file = files.open("a").unwrap();
        let mut byte = [0];
        assert!(file.read_at(0, &mut byte).is_err() && file.write_at(0, b"x").is_err());
        files.fail_reads(false);
        files.fail_writes(false);
        assert_eq!(file.read_at(0, &mut byte).unwrap(), 1);
        assert_eq!((&byte, files.struck()), (b"k", 2));
    }

    #[test]
    fn a_read_lies_once_and_the_disk_keeps_the_truth() {
        let files = MemoryFiles::new();
        let file = synced(&files);
        files.flip_next_read(13);
        let mut bytes = [0; 2];
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 1 << 5]);
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 2]);
    }

    #[test]
    fn a_truncated_file_stays_short() {
        let files = MemoryFiles::new();
        let file = synced(&files);
        assert!(files.truncate("a", 100) && !files.truncate("a", 100));
        assert_eq!(file.size().unwrap(), 100);
        files.crash(&mut || 1);
        assert_eq!(files.contents("a").unwrap().len(), 100);
    }

    #[test]
    fn a_quota_refuses_with_the_error_of_a_full_disk() {
        let files = MemoryFiles::new();
        synced(&files);
        files.limit(Some(5000));
        let refused = files.create("b", 1000).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(files.list().unwrap(), ["a"]);
    }
}
