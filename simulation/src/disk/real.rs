//! A machine's disk in a real directory: LMDB and the log's own files.
//!
//! The devices are the product's; only their threads are missing, because
//! workers and log run inline. What a power cut leaves is the
//! [`ledger`](crate::power)'s to say. The directory lies in memory where the
//! system has a place for that, and is removed with the disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
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

/// Names of the directories, before process and number.
const PREFIX: &str = "cdb-simulation-";

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
        if number == 0 {
            sweep(&place)?;
        }
        let base = place.join(format!("{PREFIX}{}-{number}", std::process::id()));
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
            ledger.set_faults(self.disk, |faults| faults.write_fails_in = Some(1));
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

/// Removes what simulators that were killed have left in memory.
fn sweep(place: &Path) -> io::Result<()> {
    let processes = Path::new("/proc");
    // Without the list of processes nobody is known to be gone.
    if !processes.join("self").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|owner| !processes.join(owner).exists()) {
            // Another simulator may sweep it too.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_directories_of_dead_processes_are_swept() {
        let place = std::env::temp_dir().join(format!("sweep-{}", std::process::id()));
        // No process has a number above the kernel's limit of 2^22.
        let dead = place.join(format!("{PREFIX}4194305-0"));
        let alive = place.join(format!("{PREFIX}{}-0", std::process::id()));
        let other = place.join("other-4194305-0");
        for directory in [&dead, &alive, &other] {
            fs::create_dir_all(directory.join("0")).unwrap();
        }
        sweep(&place).unwrap();
        assert!(!dead.exists() && alive.exists() && other.exists());
        fs::remove_dir_all(place).unwrap();
    }
}
