//! How much room a node has: the gauge that decides when puts are refused.
//!
//! Idea: room is not only what the file system calls free. LMDB never gives
//! pages back, it uses them again. A gauge that looked at file sizes alone
//! would refuse writes for ever once full, whatever is deleted. So *used* is
//! what lives: the log, live pages, the rest of the directory; *room* is what
//! the file system still gives plus the free pages inside the stores. The
//! log's two waiting files are no room: a store cannot use them, and every
//! write ends in a store. Segments it no longer needs it deletes.
//!
//! Invariant: room never exceeds what the node offers less what it uses.
//! Limits: the whole directory is walked once in [`WALK_EVERY`] measures; in
//! between only the log's few files and the open stores are looked at.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use actors::world::{Space, SpaceGauge};
use cluster::units::ByteSize;

use crate::devices::lmdb::LmdbEngine;

/// Measures between two walks of the whole directory: about ten seconds.
const WALK_EVERY: u32 = 10;
/// Room kept for deletes, compaction and copying, where the disk is large
/// enough: design §5.
const RESERVE: ByteSize = ByteSize::gib(1);
/// On smaller disks the reserve is this part of what is offered.
const RESERVE_PART: u64 = 10;
/// Segments the log must be able to begin, whatever the size of the disk.
const RESERVE_SEGMENTS: u64 = 2;

/// Measures the data directory of a node on disk.
#[derive(Debug)]
pub(super) struct DiskGauge {
    pub(super) root: PathBuf,
    pub(super) log: PathBuf,
    pub(super) engine: Arc<LmdbEngine>,
    pub(super) capacity: Option<ByteSize>,
    pub(super) segment_bytes: u64,
    /// What else lies in the directory, as last walked. A lock, because the
    /// gauge is read from whichever worker is free; never two at once.
    pub(super) rest: Mutex<Rest>,
}

/// The rest of a directory: identity, quarantine, stores nobody has open.
#[derive(Debug, Default)]
pub(super) struct Rest {
    bytes: u64,
    measures: u32,
}

/// What of the stores lives, and what of their files can be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    live_bytes: u64,
    reusable_bytes: u64,
}

impl SpaceGauge for DiskGauge {
    fn measure(&self) -> Space {
        let Ok(stat) = rustix::fs::statvfs(&self.root) else { return Space::default() };
        let device_bytes = stat.f_blocks.saturating_mul(stat.f_frsize);
        let device_free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        let log_bytes = own_bytes(&self.log);
        let (stores, largest) = self.stores();
        let rest_bytes = self.rest_bytes(log_bytes, stores);
        let measured = Measured {
            offered_bytes: self.capacity.map_or(device_bytes, ByteSize::bytes).min(device_bytes),
            used_bytes: log_bytes + stores.live_bytes + rest_bytes,
            device_free_bytes,
            reusable_bytes: stores.reusable_bytes,
            largest_store_bytes: largest,
            segment_bytes: self.segment_bytes,
        };
        measured.space()
    }
}

impl DiskGauge {
    fn stores(&self) -> (Extent, u64) {
        let (mut all, mut largest) = (Extent::default(), 0);
        for usage in self.engine.lent_usage() {
            all.live_bytes += usage.used_bytes;
            all.reusable_bytes += usage.file_bytes.saturating_sub(usage.used_bytes);
            largest = largest.max(usage.used_bytes);
        }
        (all, largest)
    }

    fn rest_bytes(&self, log_bytes: u64, stores: Extent) -> u64 {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if rest.measures.is_multiple_of(WALK_EVERY) {
            let known = log_bytes + stores.live_bytes + stores.reusable_bytes;
            rest.bytes = own_bytes(&self.root).saturating_sub(known);
        }
        rest.measures = rest.measures.wrapping_add(1);
        rest.bytes
    }
}

/// Numbers of one measure.
#[expect(clippy::struct_field_names, reason = "the unit is part of each name")]
#[derive(Clone, Copy, Debug)]
struct Measured {
    offered_bytes: u64,
    used_bytes: u64,
    /// Free on the device.
    device_free_bytes: u64,
    /// Free inside our own files.
    reusable_bytes: u64,
    largest_store_bytes: u64,
    segment_bytes: u64,
}

impl Measured {
    fn space(self) -> Space {
        let wished = RESERVE.bytes().max(self.largest_store_bytes);
        let scaled = wished.min(self.offered_bytes / RESERVE_PART);
        let unused = self.offered_bytes.saturating_sub(self.used_bytes);
        Space {
            used_bytes: self.used_bytes,
            capacity_bytes: self.offered_bytes,
            room_bytes: unused.min(self.device_free_bytes + self.reusable_bytes),
            device_bytes: unused.saturating_sub(self.reusable_bytes).min(self.device_free_bytes),
            reserve_bytes: scaled.max(RESERVE_SEGMENTS * self.segment_bytes),
        }
    }
}

/// Bytes the files below `root` take.
fn own_bytes(root: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(root) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => own_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{ClusterId, NodeId, StoreId},
        ports::engine::{Engine, Tree, Write},
    };

    use super::*;
    use crate::devices::lmdb::LmdbConfig;

    const MIB: u64 = 1 << 20;

    fn measured(offered: u64, used: u64, reachable: u64) -> Space {
        Measured {
            offered_bytes: offered,
            used_bytes: used,
            device_free_bytes: reachable,
            reusable_bytes: 0,
            largest_store_bytes: 0,
            segment_bytes: 64 * MIB,
        }
        .space()
    }

    #[test]
    fn an_empty_node_on_a_disk_of_others_uses_only_its_own_bytes() {
        let space = measured(250 << 30, 200 * MIB, 40 << 30);
        assert_eq!(space.used_bytes, 200 * MIB);
        assert_eq!(space.room_bytes, 40 << 30);
        assert_eq!((space.percent_used(), space.is_full()), (0, false));
    }

    #[test]
    fn a_node_is_full_when_others_have_filled_its_disk() {
        let space = measured(250 << 30, 200 * MIB, 500 * MIB);
        assert!(space.is_full(), "less than the reserve is left: {space:?}");
        let small = measured(512 * MIB, 200 * MIB, 0);
        assert_eq!((small.percent_used(), small.is_full()), (100, true));
    }

    #[test]
    fn the_reserve_is_a_gibibyte_or_the_largest_store_and_less_on_small_disks() {
        assert_eq!(measured(1 << 40, 0, 1 << 40).reserve_bytes, 1 << 30);
        assert_eq!(measured(4 << 30, 0, 4 << 30).reserve_bytes, (4 << 30) / 10);
        let large = Measured {
            offered_bytes: 1 << 40,
            used_bytes: 0,
            device_free_bytes: 1 << 40,
            reusable_bytes: 0,
            largest_store_bytes: 16 << 30,
            segment_bytes: 64 * MIB,
        };
        assert_eq!(large.space().reserve_bytes, 16 << 30);
    }

    #[test]
    fn pages_freed_inside_a_store_are_room_and_the_log_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::create_dir(&log).unwrap();
        let config = LmdbConfig { cluster: ClusterId(1), node: NodeId(2), map_bytes: 256 << 20 };
        let (stores, quarantine) = (folder.path().join("stores"), folder.path().join("q"));
        let engine = Arc::new(LmdbEngine::new(stores, quarantine, config).unwrap());
        let gauge = DiskGauge {
            root: folder.path().to_owned(),
            log: log.clone(),
            engine: Arc::clone(&engine),
            capacity: Some(ByteSize::mib(64)),
            segment_bytes: MIB,
            rest: Mutex::default(),
        };
        let empty = gauge.measure();
        let store = engine.create(StoreId(1)).unwrap();
        let write =
            |value: Option<Vec<u8>>| Write { tree: Tree::Latest, key: b"k".to_vec(), value };
        store.commit(&[write(Some(vec![7; 20 << 20]))]).unwrap();
        let filled = gauge.measure();
        assert!(filled.used_bytes >= empty.used_bytes + 20 * MIB, "{empty:?} {filled:?}");
        assert!(filled.room_bytes <= empty.room_bytes - 20 * MIB, "{empty:?} {filled:?}");
        store.commit(&[write(None)]).unwrap();
        let emptied = gauge.measure();
        assert!(emptied.used_bytes < empty.used_bytes + MIB, "{empty:?} {emptied:?}");
        assert!(emptied.room_bytes + MIB > empty.room_bytes, "{empty:?} {emptied:?}");

        fs::write(log.join("1.segment"), vec![1; 4 << 20]).unwrap();
        let grown = gauge.measure().used_bytes - emptied.used_bytes;
        assert!((4 * MIB..5 * MIB).contains(&grown), "{grown}");
    }
}
