//! A machine's disk in a real directory: LMDB and the log's own files.
//!
//! The devices are the product's; only their threads are missing, because
//! workers and log run inline. What a power cut leaves is the
//! [`ledger`](crate::power)'s to say. The directory lies in memory where the
//! system has a place for that, and is removed with the disk.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cluster::{
    ids::{ClusterId, NodeId},
    ports::{engine::Engine, files::Files},
};
use clusterdb::devices::{
    files::DirectoryFiles,
    lmdb::{LmdbConfig, LmdbEngine},
};

use super::Death;
use crate::{
    power::{self, DiskId},
    rng::Rng,
};

/// Address space of a store: far more than a run writes.
const MAP_BYTES: usize = 256 << 20;

/// One directory, watched by the ledger.
#[derive(Debug)]
pub struct RealDisk {
    base: PathBuf,
    disk: DiskId,
    /// Deaths so far: each goes on in a directory of its own, so that a handle
    /// somebody forgot cannot be mistaken for a new one.
    deaths: AtomicU64,
}

impl RealDisk {
    /// An empty disk.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn new() -> io::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let base = place.join(format!("cdb-simulation-{}-{number}", std::process::id()));
        fs::create_dir_all(base.join("0"))?;
        let disk = power::with(|ledger| ledger.watch(&base.join("0"), &base.join("attic")))?;
        Ok(Self { base, disk, deaths: AtomicU64::new(0) })
    }

    fn root(&self) -> PathBuf {
        self.base.join(self.deaths.load(Ordering::Relaxed).to_string())
    }

    /// The log's directory.
    pub(super) fn log(&self) -> io::Result<Arc<dyn Files>> {
        Ok(Arc::new(DirectoryFiles::open(&self.root().join("log"))?))
    }

    /// The directory of small state files.
    pub(super) fn state(&self) -> io::Result<Arc<dyn Files>> {
        Ok(Arc::new(DirectoryFiles::open(&self.root())?))
    }

    /// The stores.
    pub(super) fn engine(&self, stamp: (ClusterId, NodeId)) -> io::Result<Arc<dyn Engine>> {
        let config = LmdbConfig { cluster: stamp.0, node: stamp.1, map_bytes: MAP_BYTES };
        let root = self.root();
        Ok(Arc::new(LmdbEngine::new(root.join("stores"), root.join("quarantine"), config)?))
    }

    /// Takes all room, or gives it back.
    pub(super) fn fill(&self, full: bool) {
        power::with(|ledger| ledger.set_faults(self.disk, |faults| faults.full = full));
    }

    /// From now on syncs are answered and not made.
    pub fn lie(&self, lies: bool) {
        power::with(|ledger| ledger.set_faults(self.disk, |faults| faults.lies = lies));
    }

    /// Lets the next sync fail once and lose what it should have written.
    pub fn fail_sync(&self) {
        power::with(|ledger| ledger.set_faults(self.disk, |faults| faults.sync_fails_in = Some(1)));
    }

    /// Lets the next write fail once.
    pub fn fail_write(&self) {
        power::with(|ledger| {
            ledger.set_faults(self.disk, |faults| faults.write_fails_in = Some(1))
        });
    }

    /// Ends the machine and returns what could not be modelled.
    pub(super) fn die(&self, death: Death, rng: &mut Rng) -> io::Result<()> {
        self.deaths.fetch_add(1, Ordering::Relaxed);
        let root = self.root();
        power::with(|ledger| match death {
            Death::Kill => ledger.relocate(self.disk, &root),
            Death::Power => ledger.cut(self.disk, &root, rng),
        })
    }
}

impl Drop for RealDisk {
    fn drop(&mut self) {
        power::with(|ledger| ledger.unwatch(self.disk));
        // What stays is in the system's temporary place.
        drop(fs::remove_dir_all(&self.base));
    }
}
