//! Stores in memory: the engine port for simulation and tests.
//!
//! A commit builds the next state beside the present one and swaps it in, so
//! it is atomic, and views keep the state they began with. What `commit` (or
//! `create`) returned `Ok` for is durable: it survives [`MemoryEngine::crash`],
//! which ends every open handle. Nothing else has any state to lose.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;

use crate::{
    ids::StoreId,
    ports::engine::{
        Engine, EngineError, Order, Store, StoreUsage, Tree, UNLIMITED, View, Visit, Write,
    },
};

type Map = RedBlackTreeMapSync<Bytes, Bytes>;

#[derive(Clone, Debug)]
struct Trees {
    maps: [Map; 5],
    bytes: u64,
    /// What the store's file takes. It never shrinks: what is freed in it can
    /// be used again, by this store only.
    file_bytes: u64,
}

impl Default for Trees {
    fn default() -> Self {
        Self { maps: std::array::from_fn(|_| Map::new_sync()), bytes: 0, file_bytes: 0 }
    }
}

impl Trees {
    fn map(&self, tree: Tree) -> &Map {
        let [latest, history, changes, leases, root] = &self.maps;
        match tree {
            Tree::Latest => latest,
            Tree::History => history,
            Tree::Changes => changes,
            Tree::Leases => leases,
            Tree::Root => root,
        }
    }

    fn apply(&mut self, write: &Write) {
        let [latest, history, changes, leases, root] = &mut self.maps;
        let map = match write.tree {
            Tree::Latest => latest,
            Tree::History => history,
            Tree::Changes => changes,
            Tree::Leases => leases,
            Tree::Root => root,
        };
        if let Some(old) = map.get(&write.key[..]) {
            self.bytes -= (write.key.len() + old.len()) as u64;
        }
        match &write.value {
            Some(value) => {
                self.bytes += (write.key.len() + value.len()) as u64;
                map.insert_mut(Bytes::copy_from_slice(&write.key), Bytes::copy_from_slice(value));
            }
            None => {
                map.remove_mut(&write.key[..]);
            }
        }
    }
}

/// What a test may make go wrong.
#[derive(Clone, Debug, Default)]
struct Faults {
    commits: u64,
    fail_commit: Option<u64>,
    bytes_max: Option<u64>,
    device_bytes: Option<u64>,
    damaged: BTreeSet<StoreId>,
}

#[derive(Debug, Default)]
struct Disk {
    stores: BTreeMap<StoreId, Trees>,
    quarantined: BTreeMap<StoreId, Trees>,
    lent: BTreeMap<StoreId, Weak<MemoryStore>>,
    /// Bytes that the file of each store may come to.
    limit_bytes: Option<u64>,
    faults: Faults,
    /// Rises with each crash; handles of an earlier life are dead.
    life: u64,
}

impl Disk {
    fn file_bytes(&self) -> u64 {
        self.stores.values().map(|trees| trees.file_bytes).sum()
    }
}

/// One disk's stores. Clones share the disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine(Shared);

/// Views and commits of one disk may come from several threads; each holds
/// this for one map operation and never while calling out.
// Lock: stores and views of one disk share it, as they would share a device.
type Shared = Arc<Mutex<Disk>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Disk> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryEngine {
    /// Loses power: open handles fail from now on, committed state stays.
    pub fn crash(&self) {
        let mut disk = lock(&self.0);
        disk.life += 1;
        disk.lent.clear();
    }

    /// A separate disk with the same stores.
    #[must_use]
    pub fn fork(&self) -> Self {
        let disk = lock(&self.0);
        let (stores, quarantined) = (disk.stores.clone(), disk.quarantined.clone());
        let (limit_bytes, faults) = (disk.limit_bytes, disk.faults.clone());
        let fork = Disk { stores, quarantined, limit_bytes, faults, ..Disk::default() };
        Self(Arc::new(Mutex::new(fork)))
    }

    /// Limits the file of each store, as [`StoreUsage`] then tells; none for no limit.
    /// A commit that would grow it beyond is refused as full, whatever it frees: pages are
    /// copied before old ones are free.
    pub fn set_limit_bytes(&self, limit_bytes: Option<u64>) {
        lock(&self.0).limit_bytes = limit_bytes;
    }

    /// What [`Self::set_limit_bytes`] set.
    pub fn limit_bytes(&self) -> Option<u64> {
        lock(&self.0).limit_bytes
    }

    /// Makes the `k`-th commit from now (1 is the next) fail with a device error.
    pub fn fail_commit(&self, k: u64) {
        let mut disk = lock(&self.0);
        disk.faults.fail_commit = Some(disk.faults.commits + k);
    }

    /// Caps the bytes of each store; none for no cap. Commits that would grow
    /// beyond it are refused as full, deletes still pass.
    pub fn set_bytes_max(&self, bytes_max: Option<u64>) {
        lock(&self.0).faults.bytes_max = bytes_max;
    }

    /// Gives the device a size; none for no bounds. Files of stores grow until
    /// they fill it. A commit that needs more is refused as full, also one that
    /// would free more than it needs: pages are copied before old ones are free.
    pub fn set_device_bytes(&self, device_bytes: Option<u64>) {
        lock(&self.0).faults.device_bytes = device_bytes;
    }

    /// Bytes of the files of all stores.
    pub fn file_bytes(&self) -> u64 {
        lock(&self.0).file_bytes()
    }

    /// Bytes of keys and values in the largest store.
    pub fn largest_bytes(&self) -> u64 {
        lock(&self.0).stores.values().map(|trees| trees.bytes).max().unwrap_or(0)
    }

    /// Makes a store's bytes unreadable: views and opens report damage.
    pub fn damage(&self, store: StoreId) {
        lock(&self.0).faults.damaged.insert(store);
    }

    /// Commits tried so far.
    pub fn commits(&self) -> u64 {
        lock(&self.0).faults.commits
    }

    /// Bytes of keys and values in all stores.
    pub fn bytes(&self) -> u64 {
        lock(&self.0).stores.values().map(|trees| trees.bytes).sum()
    }

    /// Stores set aside.
    pub fn quarantined(&self) -> Vec<StoreId> {
        lock(&self.0).quarantined.keys().copied().collect()
    }

    fn lend(&self, disk: &mut Disk, store: StoreId) -> Arc<dyn Store> {
        if let Some(lent) = disk.lent.get(&store).and_then(Weak::upgrade) {
            return lent;
        }
        let handle = Arc::new(MemoryStore { store, disk: Arc::clone(&self.0), life: disk.life });
        disk.lent.insert(store, Arc::downgrade(&handle));
        handle
    }
}

fn missing(disk: &Disk, store: StoreId) -> Result<(), EngineError> {
    if disk.faults.damaged.contains(&store) {
        let cause = "damaged by the test".to_owned();
        return Err(EngineError::Damaged { store, cause });
    }
    if disk.stores.contains_key(&store) { Ok(()) } else { Err(EngineError::Missing(store)) }
}

impl Engine for MemoryEngine {
    fn create(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        let mut disk = lock(&self.0);
        if disk.stores.contains_key(&store) {
            return Err(EngineError::Exists(store));
        }
        disk.stores.insert(store, Trees::default());
        Ok(self.lend(&mut disk, store))
    }

    fn open(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        let mut disk = lock(&self.0);
        missing(&disk, store)?;
        Ok(self.lend(&mut disk, store))
    }

    fn list(&self) -> Result<Vec<StoreId>, EngineError> {
        Ok(lock(&self.0).stores.keys().copied().collect())
    }

    fn quarantine(&self, store: StoreId) -> Result<(), EngineError> {
        let mut disk = lock(&self.0);
        let trees = disk.stores.remove(&store).ok_or(EngineError::Missing(store))?;
        disk.quarantined.insert(store, trees);
        disk.faults.damaged.remove(&store);
        disk.lent.remove(&store);
        Ok(())
    }

    fn destroy(&self, store: StoreId) -> Result<(), EngineError> {
        let mut disk = lock(&self.0);
        disk.stores.remove(&store).ok_or(EngineError::Missing(store))?;
        disk.faults.damaged.remove(&store);
        disk.lent.remove(&store);
        Ok(())
    }
}

/// Bytes that a write takes before what it replaces is free.
fn written_bytes(write: &Write) -> u64 {
    (write.key.len() + write.value.as_ref().map_or(0, Vec::len)) as u64
}

/// One store of a [`MemoryEngine`].
#[derive(Debug)]
pub struct MemoryStore {
    store: StoreId,
    disk: Shared,
    life: u64,
}

impl MemoryStore {
    fn alive(&self, disk: &Disk) -> Result<(), EngineError> {
        if disk.life != self.life {
            let cause = "the disk lost power since this handle was opened".to_owned();
            return Err(EngineError::Device { store: self.store, cause });
        }
        missing(disk, self.store)
    }
}

impl Store for MemoryStore {
    fn view(&self) -> Result<Box<dyn View + '_>, EngineError> {
        let disk = lock(&self.disk);
        self.alive(&disk)?;
        let trees = disk.stores.get(&self.store).cloned().unwrap_or_default();
        Ok(Box::new(MemoryView { store: self.store, trees }))
    }

    fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
        let mut disk = lock(&self.disk);
        self.alive(&disk)?;
        disk.faults.commits += 1;
        if disk.faults.fail_commit == Some(disk.faults.commits) {
            disk.faults.fail_commit = None;
            let cause = "commit failed by the test".to_owned();
            return Err(EngineError::Device { store: self.store, cause });
        }
        let bytes_max = disk.faults.bytes_max.unwrap_or(u64::MAX);
        let limit_bytes = disk.limit_bytes.unwrap_or(UNLIMITED);
        let device_bytes = disk.faults.device_bytes.unwrap_or(u64::MAX);
        let taken_bytes = disk.faults.device_bytes.map_or(0, |_| disk.file_bytes());
        let Some(trees) = disk.stores.get_mut(&self.store) else {
            return Err(EngineError::Missing(self.store));
        };
        let mut next = trees.clone();
        for write in writes {
            next.apply(write);
        }
        if next.bytes > bytes_max && next.bytes > trees.bytes {
            let cause = format!("{} bytes exceed the cap of {bytes_max}", next.bytes);
            return Err(EngineError::Full { store: self.store, cause });
        }
        let written: u64 = writes.iter().map(written_bytes).sum();
        let file_bytes = trees.file_bytes.max(trees.bytes + written);
        let grown = file_bytes - trees.file_bytes;
        if grown > 0 && file_bytes > limit_bytes {
            let cause = format!("its limit of {limit_bytes} bytes is met");
            return Err(EngineError::Full { store: self.store, cause });
        }
        if grown > 0 && taken_bytes + grown > device_bytes {
            let cause = format!("its file cannot grow to {file_bytes} bytes");
            return Err(EngineError::Full { store: self.store, cause });
        }
        *trees = Trees { file_bytes, ..next };
        Ok(())
    }

    fn usage(&self) -> Result<StoreUsage, EngineError> {
        let disk = lock(&self.disk);
        self.alive(&disk)?;
        let (used_bytes, file_bytes) =
            disk.stores.get(&self.store).map_or((0, 0), |trees| (trees.bytes, trees.file_bytes));
        // A cap is a fault of the device, which nobody is warned of.
        let limit_bytes = disk.limit_bytes.unwrap_or(UNLIMITED);
        Ok(StoreUsage { used_bytes, file_bytes, limit_bytes })
    }
}

/// An immutable snapshot of a [`MemoryStore`].
pub struct MemoryView {
    store: StoreId,
    trees: Trees,
}

impl fmt::Debug for MemoryView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryView").field("store", &self.store).finish_non_exhaustive()
    }
}

impl View for MemoryView {
    fn store(&self) -> StoreId {
        self.store
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        Ok(self.trees.map(tree).get(key).map(|value| &value[..]))
    }

    fn scan(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        if crate::ports::engine::is_void(from, to) {
            return Ok(());
        }
        let range = self.trees.map(tree).range::<[u8], _>((from, to));
        match order {
            Order::Ascending => {
                for (key, value) in range {
                    if visit(key, value).is_break() {
                        break;
                    }
                }
            }
            Order::Descending => {
                for (key, value) in range.rev() {
                    if visit(key, value).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
