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

mod content;
mod disk;
mod inode;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    disk::{Disk, Faults, NameChange},
    inode::Inode,
};
use crate::ports::files::{File, Files};

/// One directory in memory; clones share it.
///
/// A lock guards it because the port is shared between threads; it is held for
/// the length of one call and no call enters another.
#[derive(Clone, Default)]
pub struct MemoryFiles {
    disk: Arc<Mutex<Disk>>,
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
        disk.inode_mut(name).is_some_and(|inode| inode.truncate(bytes))
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
        let number = disk.create(name, Inode::of(place(bytes)?));
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
        disk.sync_names();
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
