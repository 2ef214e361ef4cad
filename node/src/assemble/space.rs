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

use actors::world::{Measured, Space, SpaceGauge};
use cluster::units::ByteSize;

use crate::devices::lmdb::LmdbEngine;

/// Measures between two walks of the whole directory: about ten seconds.
const WALK_EVERY: u32 = 10;
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
