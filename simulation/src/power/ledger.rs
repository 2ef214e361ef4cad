//! Writes, syncs and names of the watched directories.

use std::{
    collections::BTreeMap,
    ffi::c_int,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::Verdict;
use crate::{
    hooks::disk::{Stat, read, stat, writes_through},
    rng::Rng,
};

/// Names a watched directory.
pub(crate) type DiskId = u64;
/// A file or directory of a disk, by the order of discovery: numbers of inodes
/// differ between runs.
pub(super) type NodeId = u64;
/// Device and number.
pub(super) type Inode = (u64, u64);

/// The directory a disk begins with.
pub(super) const ROOT: NodeId = 0;
/// LMDB's table of readers: made anew by who opens a store alone.
const NOT_DURABLE: &str = "lock.mdb";

/// All disks of a thread.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    disks: BTreeMap<DiskId, Disk>,
    owners: BTreeMap<Inode, (DiskId, NodeId)>,
    next: DiskId,
}

/// What goes wrong on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskFaults {
    /// Syncs until one fails once; 1 is the next.
    pub sync_fails_in: Option<u64>,
    /// Writes until one fails once.
    pub write_fails_in: Option<u64>,
    /// Whether no file may be made or grow.
    pub full: bool,
    /// Whether syncs are answered and not made: a disk that lies.
    pub lies: bool,
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) root: PathBuf,
    /// Keeps files whose removal is not durable.
    pub(super) attic: PathBuf,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Durable names.
    pub(super) names: BTreeMap<(NodeId, String), NodeId>,
    /// Changes that no sync of their directory has covered, in order.
    pub(super) changes: Vec<Change>,
    next: NodeId,
    faults: DiskFaults,
    unmodelled: Option<&'static str>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) inode: Inode,
    pub(super) kind: Kind,
    /// Whether a name leads to it.
    pub(super) live: bool,
    /// Whether it came to be while there was no room for it.
    refused: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Directory,
    File(Vec<Unsynced>),
    /// Not worth keeping.
    Passing,
}

/// A write since the last sync, or one that a failed sync lost.
#[derive(Debug)]
pub(super) struct Unsynced {
    pub(super) at: u64,
    pub(super) before: Vec<u8>,
    /// Size of the file before.
    pub(super) size: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A cut decides.
    Open,
    /// A failed sync dropped its pages.
    Lost,
    /// Synced, but over one that is lost.
    Durable,
}

/// Names that change together.
pub(super) type Change = Vec<(NodeId, String, Option<NodeId>)>;

/// A write about to be made.
pub(crate) struct Note {
    disk: DiskId,
    node: NodeId,
    at: u64,
    before: Vec<u8>,
    size: u64,
}

/// A change of names about to be made.
pub(crate) struct Pending {
    disk: DiskId,
    change: Change,
    dead: Option<NodeId>,
}

impl Ledger {
    /// Watches what is below `root`; what is there already is durable.
    pub(crate) fn watch(&mut self, root: &Path, attic: &Path) -> io::Result<DiskId> {
        fs::create_dir_all(attic)?;
        let disk = self.next;
        self.next += 1;
        self.disks.insert(disk, Disk::new(root.to_owned(), attic.to_owned()));
        self.adopt(disk)?;
        Ok(disk)
    }

    /// Forgets a disk.
    pub(crate) fn unwatch(&mut self, disk: DiskId) {
        self.disks.remove(&disk);
        self.owners.retain(|_, owner| owner.0 != disk);
    }

    pub(crate) fn is_watching(&self) -> bool {
        !self.disks.is_empty()
    }

    /// Changes what goes wrong on a disk.
    pub(crate) fn set_faults(&mut self, disk: DiskId, change: impl FnOnce(&mut DiskFaults)) {
        if let Some(disk) = self.disks.get_mut(&disk) {
            change(&mut disk.faults);
            if !disk.faults.full {
                disk.nodes.values_mut().for_each(|node| node.refused = false);
            }
        }
    }

    /// Moves a disk, as killed processes' successors find it elsewhere.
    pub(crate) fn relocate(&mut self, disk: DiskId, root: &Path) -> io::Result<()> {
        let Some(disk) = self.disks.get_mut(&disk) else { return Ok(()) };
        disk.check()?;
        fs::rename(&disk.root, root)?;
        root.clone_into(&mut disk.root);
        Ok(())
    }

    /// Cuts the power: builds at `root` what the disk would show, and goes on
    /// there.
    pub(crate) fn cut(&mut self, disk: DiskId, root: &Path, rng: &mut Rng) -> io::Result<()> {
        self.discover(disk, ROOT, &PathBuf::new())?;
        let Some(old) = self.disks.remove(&disk) else { return Ok(()) };
        old.check()?;
        self.owners.retain(|_, owner| owner.0 != disk);
        old.build(root, rng)?;
        fs::remove_dir_all(&old.root)?;
        fs::remove_dir_all(&old.attic)?;
        fs::create_dir_all(&old.attic)?;
        self.disks.insert(disk, Disk::new(root.to_owned(), old.attic));
        self.adopt(disk)
    }

    /// Takes what lies in the directory for durable.
    fn adopt(&mut self, disk: DiskId) -> io::Result<()> {
        self.discover(disk, ROOT, &PathBuf::new())?;
        if let Some(disk) = self.disks.get_mut(&disk) {
            for (directory, name, node) in std::mem::take(&mut disk.changes).into_iter().flatten() {
                disk.names.extend(node.map(|node| ((directory, name), node)));
            }
        }
        Ok(())
    }

    /// Finds everything below a directory.
    fn discover(&mut self, disk: DiskId, node: NodeId, at: &Path) -> io::Result<()> {
        for (name, child) in self.list(disk, node, at)? {
            let kind = self.disks.get(&disk).and_then(|disk| disk.nodes.get(&child));
            if kind.is_some_and(|node| matches!(node.kind, Kind::Directory)) {
                self.discover(disk, child, &at.join(name))?;
            }
        }
        Ok(())
    }

    /// The names in a directory, by name.
    fn list(
        &mut self,
        disk: DiskId,
        directory: NodeId,
        at: &Path,
    ) -> io::Result<Vec<(String, NodeId)>> {
        let Some(known) = self.disks.get(&disk) else { return Ok(Vec::new()) };
        let path = known.root.join(at);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        let mut found = Vec::new();
        for name in names {
            let child = self.child(disk, directory, &path.join(&name), &name);
            found.extend(child.map(|child| (name, child)));
        }
        Ok(found)
    }

    /// The node behind a name; one not seen before was created.
    fn child(
        &mut self,
        disk_id: DiskId,
        directory: NodeId,
        path: &Path,
        name: &str,
    ) -> Option<NodeId> {
        let metadata = fs::symlink_metadata(path).ok()?;
        let inode = (metadata.dev(), metadata.ino());
        if let Some((owner, node)) = self.owners.get(&inode)
            && *owner == disk_id
        {
            return Some(*node);
        }
        let disk = self.disks.get_mut(&disk_id)?;
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if name == NOT_DURABLE {
            Kind::Passing
        } else {
            Kind::File(Vec::new())
        };
        disk.next += 1;
        let node = disk.next;
        let refused = disk.faults.full;
        disk.nodes.insert(node, Node { inode, kind, live: true, refused });
        disk.changes.push(vec![(directory, name.to_owned(), Some(node))]);
        self.owners.insert(inode, (disk_id, node));
        Some(node)
    }

    /// The disk below whose root a path lies, and its node.
    fn resolve(&mut self, path: &Path) -> Option<(DiskId, NodeId)> {
        let (disk, root) = self
            .disks
            .iter()
            .find(|(_, disk)| path.starts_with(&disk.root))
            .map(|(id, disk)| (*id, disk.root.clone()))?;
        let below = path.strip_prefix(&root).ok()?;
        let (mut node, mut at) = (ROOT, root.clone());
        for part in below.components() {
            at.push(part);
            node = self.child(disk, node, &at, part.as_os_str().to_str()?)?;
        }
        Some((disk, node))
    }

    fn of_descriptor(&mut self, fd: c_int) -> Option<(DiskId, NodeId, Stat)> {
        let stat = stat(fd)?;
        if let Some((disk, node)) = self.owners.get(&stat.inode) {
            return Some((*disk, *node, stat));
        }
        let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        let (disk, node) = self.resolve(&path)?;
        Some((disk, node, stat))
    }

    pub(super) fn before_write(&mut self, fd: c_int, at: u64, len: usize) -> Option<Verdict> {
        let (disk_id, node_id, stat) = self.of_descriptor(fd)?;
        let disk = self.disks.get_mut(&disk_id)?;
        let node = disk.nodes.get(&node_id)?;
        if !matches!(node.kind, Kind::File(_)) {
            return None;
        }
        let grows = at + len as u64 > stat.size;
        if disk.faults.full && (grows || node.refused) {
            return Some(Verdict::Refuse(libc::ENOSPC));
        }
        if strikes(&mut disk.faults.write_fails_in) {
            return Some(Verdict::Refuse(libc::EIO));
        }
        let before = read(fd, at, len.min(place(stat.size.saturating_sub(at))));
        Some(Verdict::Note(Note { disk: disk_id, node: node_id, at, before, size: stat.size }))
            .filter(|_| !writes_through(fd))
    }

    pub(super) fn after_write(&mut self, note: Note, bytes: &[u8]) {
        let written =
            self.disks.get_mut(&note.disk).and_then(|disk| disk.nodes.get_mut(&note.node));
        if let Some(Node { kind: Kind::File(unsynced), .. }) = written {
            let Note { at, before, size, .. } = note;
            let bytes = bytes.to_vec();
            unsynced.push(Unsynced { at, before, size, bytes, fate: Fate::Open });
        }
    }

    pub(super) fn sync(&mut self, fd: c_int) -> Option<Result<(), c_int>> {
        let (disk_id, node_id, _) = self.of_descriptor(fd)?;
        let disk = self.disks.get_mut(&disk_id)?;
        if disk.faults.lies {
            return Some(Ok(()));
        }
        let fails = strikes(&mut disk.faults.sync_fails_in);
        match disk.nodes.get_mut(&node_id).map(|node| &mut node.kind) {
            Some(Kind::File(unsynced)) => settle(unsynced, fails),
            // The root has no node.
            Some(Kind::Directory) | None if !fails => {
                let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
                self.sync_directory(disk_id, node_id, &path);
            }
            Some(Kind::Directory | Kind::Passing) | None => {}
        }
        Some(if fails { Err(libc::EIO) } else { Ok(()) })
    }

    /// Makes the present names of a directory the durable ones.
    fn sync_directory(&mut self, disk_id: DiskId, directory: NodeId, path: &Path) {
        let Some(disk) = self.disks.get(&disk_id) else { return };
        let Ok(below) = path.strip_prefix(&disk.root).map(Path::to_owned) else { return };
        let Ok(listed) = self.list(disk_id, directory, &below) else { return };
        let Some(disk) = self.disks.get_mut(&disk_id) else { return };
        let (covered, open) = std::mem::take(&mut disk.changes)
            .into_iter()
            .partition::<Vec<Change>, _>(|change| change.iter().any(|part| part.0 == directory));
        disk.changes = open;
        for part in covered.into_iter().flatten() {
            apply(&mut disk.names, part);
        }
        disk.names.retain(|(parent, _), _| *parent != directory);
        disk.names.extend(listed.into_iter().map(|(name, node)| ((directory, name), node)));
        for inode in disk.forget_dead() {
            self.owners.remove(&inode);
        }
    }

    pub(super) fn unmodelled(&mut self, fd: c_int, call: &'static str) {
        if let Some((disk, node, _)) = self.of_descriptor(fd)
            && let Some(disk) = self.disks.get_mut(&disk)
            && disk.nodes.get(&node).is_some_and(|node| !matches!(node.kind, Kind::Passing))
        {
            disk.unmodelled = Some(call);
        }
    }

    pub(super) fn before_rename(&mut self, from: &Path, to: &Path) -> Option<Pending> {
        let (disk, moved) = self.resolve(from)?;
        let source = self.place(from)?;
        let target = self.place(to)?;
        let replaced = self.resolve(to).map(|(_, node)| node);
        if let Some(replaced) = replaced {
            self.stash(disk, replaced, to);
        }
        let change = vec![(source.0, source.1, None), (target.0, target.1, Some(moved))];
        Some(Pending { disk, change, dead: replaced })
    }

    pub(super) fn before_remove(&mut self, at: c_int, name: &Path) -> Option<Pending> {
        let path = if at == libc::AT_FDCWD {
            name.to_owned()
        } else {
            fs::read_link(format!("/proc/self/fd/{at}")).ok()?.join(name)
        };
        let (disk, node) = self.resolve(&path)?;
        let place = self.place(&path)?;
        self.stash(disk, node, &path);
        Some(Pending { disk, change: vec![(place.0, place.1, None)], dead: Some(node) })
    }

    pub(super) fn changed(&mut self, pending: Pending) {
        let Some(disk) = self.disks.get_mut(&pending.disk) else { return };
        if let Some(node) = pending.dead.and_then(|dead| disk.nodes.get_mut(&dead)) {
            node.live = false;
        }
        disk.changes.push(pending.change);
    }

    /// Directory and name of a path.
    fn place(&mut self, path: &Path) -> Option<(NodeId, String)> {
        let (_, directory) = self.resolve(path.parent()?)?;
        Some((directory, path.file_name()?.to_str()?.to_owned()))
    }

    /// Keeps a file that loses its name until that is durable.
    fn stash(&mut self, disk: DiskId, node: NodeId, path: &Path) {
        let Some(disk) = self.disks.get(&disk) else { return };
        if disk.nodes.get(&node).is_some_and(|node| matches!(node.kind, Kind::File(_))) {
            // A cut that misses it would fail to read it, and say so.
            drop(fs::hard_link(path, disk.attic.join(node.to_string())));
        }
    }
}

impl Disk {
    fn new(root: PathBuf, attic: PathBuf) -> Self {
        Self {
            root,
            attic,
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            changes: Vec::new(),
            next: ROOT,
            faults: DiskFaults::default(),
            unmodelled: None,
        }
    }

    fn check(&self) -> io::Result<()> {
        self.unmodelled.map_or(Ok(()), |call| {
            Err(io::Error::other(format!("{call} changed a file behind the ledger's back")))
        })
    }

    /// Lets go of nodes that nothing can bring back; returns their inodes.
    fn forget_dead(&mut self) -> Vec<Inode> {
        let (names, changes) = (&self.names, &self.changes);
        let dead: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| !node.live)
            .map(|(id, _)| *id)
            .filter(|id| !names.values().any(|named| named == id))
            .filter(|id| !changes.iter().flatten().any(|part| part.2 == Some(*id)))
            .collect();
        dead.iter()
            .filter_map(|id| {
                // Only files were stashed.
                drop(fs::remove_file(self.attic.join(id.to_string())));
                self.nodes.remove(id).map(|node| node.inode)
            })
            .collect()
    }
}

pub(super) fn apply(
    names: &mut BTreeMap<(NodeId, String), NodeId>,
    (directory, name, node): (NodeId, String, Option<NodeId>),
) {
    match node {
        Some(node) => drop(names.insert((directory, name), node)),
        None => drop(names.remove(&(directory, name))),
    }
}

/// Counts down to a planned fault.
fn strikes(left: &mut Option<u64>) -> bool {
    match left {
        Some(1) => {
            *left = None;
            true
        }
        Some(more) => {
            *more -= 1;
            false
        }
        None => false,
    }
}

/// What a sync makes of the writes before it.
fn settle(unsynced: &mut Vec<Unsynced>, fails: bool) {
    let fate = if fails { Fate::Lost } else { Fate::Durable };
    let open = unsynced.iter_mut().filter(|write| write.fate == Fate::Open);
    open.for_each(|write| write.fate = fate);
    if unsynced.iter().all(|write| write.fate == Fate::Durable) {
        unsynced.clear();
    }
}

/// A place or length in a file.
pub(super) fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
