//! The disk below one directory: its files and names, and the faults that are planned.

use std::collections::BTreeMap;

use super::inode::Inode;

#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    pub(super) names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    pub(super) crashes: u64,
    pub(super) syncs: u64,
    pub(super) writes: u64,
    pub(super) faults: Faults,
    pub(super) device: Device,
}

/// What is wrong with the device itself; a crash does not mend it.
#[derive(Clone, Default)]
pub(super) struct Device {
    pub(super) reads_fail: bool,
    pub(super) writes_fail: bool,
    pub(super) struck: u64,
}

#[derive(Clone, Default)]
pub(super) struct Faults {
    pub(super) sync_fails_at: Option<u64>,
    pub(super) write_fails_at: Option<u64>,
    pub(super) flip_next_read: Option<u64>,
    pub(super) quota_bytes: Option<u64>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

impl Disk {
    pub(super) fn inode_mut(&mut self, name: &str) -> Option<&mut Inode> {
        let inode = self.names.get(name)?;
        self.inodes.get_mut(inode)
    }

    pub(super) fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|inode| self.inodes.get(inode));
        named.map(|inode| inode.now.len as u64).sum()
    }

    /// Names that reached the disk, plus those unsynced changes that `draw`
    /// keeps, in the order they were made; a change whose subject is not there
    /// has nothing to do.
    pub(super) fn crash_names(&mut self, draw: &mut dyn FnMut() -> u64) {
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

    pub(super) fn sync_names(&mut self) {
        self.unsynced_names.clear();
        self.durable_names = self.names.clone();
    }

    /// Adds a file and returns its number.
    pub(super) fn create(&mut self, name: &str, inode: Inode) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, inode);
        self.change(NameChange::Create(name.to_owned(), number));
        number
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.make(&mut self.names);
        self.unsynced_names.push(change);
    }

    /// Counts a sync and says whether it is the one planned to fail.
    pub(super) fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        let fails = self.faults.sync_fails_at == Some(self.syncs);
        if fails {
            self.faults.sync_fails_at = None;
            self.device.struck += 1;
        }
        fails
    }

    /// Says whether a read fails, and counts that it does.
    pub(super) fn read_fails(&mut self) -> bool {
        self.device.struck += u64::from(self.device.reads_fail);
        self.device.reads_fail
    }

    /// Counts a write and says whether it fails.
    pub(super) fn write_fails(&mut self) -> bool {
        self.writes += 1;
        let fails = self.device.writes_fail || self.faults.write_fails_at == Some(self.writes);
        self.device.struck += u64::from(fails);
        fails
    }

    /// Lets a read lie, if that is planned.
    pub(super) fn lie(&mut self, buffer: &mut [u8]) {
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
