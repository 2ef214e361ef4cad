//! Stores on disk: the engine port over LMDB.
//!
//! One environment per store under `stores/store-N/`. A commit is one LMDB
//! transaction: data pages are synced by LMDB before it writes its meta page
//! (`NO_META_SYNC` leaves that page to us), and a forced sync follows before
//! the commit returns. `NO_SYNC` and `WRITE_MAP` are never set: a power cut
//! corrupts such environments.
//!
//! Environments belong to the disk and are lent: as long as one handle lives,
//! `open` gives the same one, because LMDB must not be opened twice in one
//! process. A failed sync poisons the handle: what it wrote may be lost though
//! the kernel says otherwise later. A disk without room does not: the pages of
//! the batch are aborted with it, and nothing refers to them.
//!
//! Invariants:
//! - what `commit` and `create` returned `Ok` for survives a power cut;
//! - a directory named `store-N` was created whole, or its opening fails;
//! - bytes LMDB or our checks find bent are reported as damage, never repaired.
//!
//! Source: `lmdb.h`; Keidar et al. on what a failed fsync means (ATC'20).

mod check;
mod stamp;

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cluster::{
    ids::{ClusterId, NodeId, StoreId},
    mvcc::layout::STAMP_KEY,
    ports::engine::{
        Engine, EngineError, Order, Store, StoreUsage, Tree, View, Visit, Write, is_void,
        kept_bytes,
    },
};
use heed::{
    CommitOrAbort, Database, DatabaseStat, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn,
    WithoutTls, types::Bytes,
};

use stamp::Stamp;

use crate::observe::metrics;

/// Reader slots of an environment. Views are short and opened by the disk's
/// engine threads (at most 64) and by readers beside them; a slot is 64 bytes.
const READERS_MAX: u32 = 1_024;
/// How long to wait for an environment that is just being closed by whoever
/// held it last. Closing is an unmap: milliseconds.
const CLOSING_WAIT: Duration = Duration::from_secs(2);
/// Copies of one store that are set aside; a number is quarantined once in
/// its life unless a disk's old image comes back again and again.
const QUARANTINED_MAX: u64 = 1_000;
/// The file of an environment.
const DATA_FILE: &str = "data.mdb";
/// Address space is a multiple of this, and so of the pages of all systems.
const MAP_STEP_BYTES: u64 = 64 << 10;
/// Pages at the start of every environment.
const META_PAGES: u64 = 2;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Room that other files may give back between a write that fell short and
/// the look at the disk: two segments of the log at their default size.
const GIVEN_BACK_BYTES: u64 = 2 * (64 << 20);

/// Their handles, valid as long as the environment.
type Trees = [Database<'static, Bytes, Bytes>; 5];

/// What the stores of a disk have in common.
#[derive(Clone, Copy, Debug)]
pub struct LmdbConfig {
    /// The cluster; stamped into every store.
    pub cluster: ClusterId,
    /// The node; stamped into every store, so that swapped disks are noticed.
    pub node: NodeId,
    /// Limit of one store, and so its address space, in bytes: a multiple of the
    /// page size. It costs no memory until used; a store that was made with less
    /// grows at its next opening. One whose file is near it or beyond, because the
    /// limit was more, is mapped a little further, or nothing could be deleted.
    pub map_bytes: usize,
}

/// The stores of one disk, in LMDB.
#[derive(Debug)]
pub struct LmdbEngine {
    stores: PathBuf,
    quarantine: PathBuf,
    config: LmdbConfig,
    /// Environments that are held by someone. Openings happen under the lock,
    /// so that two of them cannot meet; reads and commits never take it.
    lent: Mutex<BTreeMap<StoreId, Weak<LmdbStore>>>,
}

/// One environment.
#[derive(Debug)]
pub struct LmdbStore {
    store: StoreId,
    env: Env<WithoutTls>,
    trees: Trees,
    limit_bytes: u64,
    poisoned: AtomicBool,
}

/// A read transaction.
struct LmdbView<'s> {
    store: &'s LmdbStore,
    transaction: RoTxn<'s, WithoutTls>,
}

fn device(store: StoreId, cause: &dyn Display) -> EngineError {
    EngineError::Device { store, cause: cause.to_string() }
}

fn damaged(store: StoreId, cause: &dyn Display) -> EngineError {
    EngineError::Damaged { store, cause: cause.to_string() }
}

fn io_fault(store: StoreId, error: &io::Error) -> EngineError {
    match error.raw_os_error() {
        Some(ENOSPC | EDQUOT) => EngineError::Full { store, cause: error.to_string() },
        Some(_) | None => device(store, error),
    }
}

/// What LMDB says, in the port's words.
fn fault(store: StoreId, error: heed::Error) -> EngineError {
    match error {
        heed::Error::Io(error) => io_fault(store, &error),
        heed::Error::Mdb(error) => lmdb_fault(store, error),
        heed::Error::Encoding(error) | heed::Error::Decoding(error) => device(store, &error),
        heed::Error::EnvAlreadyOpened => device(store, &"it is still open elsewhere"),
    }
}

fn lmdb_fault(store: StoreId, error: MdbError) -> EngineError {
    match error {
        MdbError::MapFull => {
            let cause = "it is at its limit; raise limits.store in node.yaml and restart the node"
                .to_owned();
            EngineError::Full { store, cause }
        }
        MdbError::PageNotFound
        | MdbError::Corrupted
        | MdbError::Invalid
        | MdbError::VersionMismatch
        | MdbError::CursorFull
        | MdbError::PageFull
        | MdbError::MapResized
        | MdbError::Incompatible
        | MdbError::BadDbi
        | MdbError::NotFound
        | MdbError::Problem => damaged(store, &error),
        MdbError::KeyExist
        | MdbError::Panic
        | MdbError::DbsFull
        | MdbError::ReadersFull
        | MdbError::TlsFull
        | MdbError::TxnFull
        | MdbError::BadRslot
        | MdbError::BadTxn
        | MdbError::BadValSize
        | MdbError::Other(_) => device(store, &error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl LmdbEngine {
    /// The stores under `stores`, with `quarantine` for those set aside.
    ///
    /// # Errors
    /// If the directories cannot be made or read.
    pub fn new(
        stores: impl Into<PathBuf>,
        quarantine: impl Into<PathBuf>,
        config: LmdbConfig,
    ) -> io::Result<Self> {
        let (stores, quarantine) = (stores.into(), quarantine.into());
        for path in [&stores, &quarantine] {
            fs::create_dir_all(path)?;
            path.parent().map_or(Ok(()), sync_directory)?;
        }
        let engine = Self { stores, quarantine, config, lent: Mutex::default() };
        engine.finish_destroying()?;
        Ok(engine)
    }

    /// Removes what a crash left of stores that were being made or destroyed.
    fn finish_destroying(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.stores)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                fs::remove_dir_all(entry.path())?;
            }
        }
        sync_directory(&self.stores)
    }

    fn path(&self, store: StoreId) -> PathBuf {
        self.stores.join(store.to_string())
    }

    fn stamp(&self, store: StoreId) -> Stamp {
        Stamp { store, cluster: self.config.cluster, node: self.config.node }
    }

    fn lent(&self) -> std::sync::MutexGuard<'_, BTreeMap<StoreId, Weak<LmdbStore>>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each store takes that somebody has open; cheap.
    pub fn lent_usage(&self) -> Vec<StoreUsage> {
        let open: Vec<Arc<LmdbStore>> = self.lent().values().filter_map(Weak::upgrade).collect();
        // One that cannot say is in trouble that its own replica meets and tells.
        open.iter().filter_map(|store| store.usage().ok()).collect()
    }

    fn open_environment(&self, store: StoreId, path: &Path) -> Result<Opened, EngineError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        let map_bytes = self.map_bytes(store, path)?;
        options.map_size(map_bytes).max_readers(READERS_MAX).max_dbs(5);
        let flags = EnvFlags::NO_META_SYNC | EnvFlags::NO_READ_AHEAD;
        // SAFETY: neither flag weakens memory safety; NO_META_SYNC's weaker
        // durability is made up for by the forced sync of every commit.
        #[expect(unsafe_code, reason = "heed marks flags unsafe because of others than these")]
        unsafe {
            options.flags(flags)
        };
        let open = || {
            // SAFETY: the file is changed by LMDB only. The node's lock keeps other
            // processes out of the data directory, `lent` keeps this process from
            // opening it twice, and `create`, `quarantine` and `destroy` never write
            // into or truncate a file that may be mapped.
            #[expect(unsafe_code, reason = "a memory map is only as safe as its file")]
            unsafe {
                options.open(path)
            }
        };
        let env = match open() {
            Err(heed::Error::EnvAlreadyOpened) => {
                // Its last holder is dropping it on another thread at this moment.
                let closing = path.canonicalize().ok().and_then(heed::env_closing_event);
                if let Some(closing) = closing {
                    closing.wait_timeout(CLOSING_WAIT);
                }
                open()
            }
            opened @ (Ok(_) | Err(_)) => opened,
        };
        env.map_err(|error| fault(store, error))
    }

    /// Address space of a store: its limit, or what its file has and room to delete.
    fn map_bytes(&self, store: StoreId, path: &Path) -> Result<usize, EngineError> {
        let limit = self.config.map_bytes;
        // A store that is just being made has no file.
        let file_bytes = fs::metadata(path.join(DATA_FILE)).map_or(0, |file| file.len());
        let needed = file_bytes + kept_bytes(limit as u64);
        let needed = usize::try_from(needed.next_multiple_of(MAP_STEP_BYTES));
        Ok(limit.max(needed.map_err(|error| device(store, &error))?))
    }

    /// Makes the environment and stamps it.
    fn fill(&self, store: StoreId, path: &Path) -> Result<(), EngineError> {
        let env = self.open_environment(store, path)?;
        let write = env.write_txn().map_err(|error| fault(store, error))?;
        let stamp = self.stamp(store).write();
        env.create_databases_and_commit(write, |opener, write| {
            for tree in Tree::ALL {
                let database = opener.create_database::<Bytes, Bytes>(write, Some(name(tree)))?;
                if tree == Tree::Root {
                    database.put(write, &STAMP_KEY, &stamp)?;
                }
            }
            Ok(CommitOrAbort::<(), ()>::Commit(()))
        })
        .map_err(|error: heed::Error| fault(store, error))?;
        env.force_sync().map_err(|error| fault(store, error))?;
        let closing = env.prepare_for_closing();
        closing.wait_timeout(CLOSING_WAIT);
        sync_directory(path).map_err(|error| io_fault(store, &error))
    }

    fn load(&self, store: StoreId) -> Result<LmdbStore, EngineError> {
        let path = self.path(store);
        if !path.is_dir() {
            return Err(EngineError::Missing(store));
        }
        // LMDB would make a new, empty environment of a missing or empty file.
        check::structure(&path.join(DATA_FILE)).map_err(|cause| damaged(store, &cause))?;
        let env = self.open_environment(store, &path)?;
        env.clear_stale_readers().map_err(|error| fault(store, error))?;
        let trees = open_trees(store, &env)?;
        let (limit_bytes, poisoned) = (self.config.map_bytes as u64, AtomicBool::new(false));
        let opened = LmdbStore { store, env, trees, limit_bytes, poisoned };
        let view = opened.begin()?;
        let bytes = view.get(Tree::Root, &STAMP_KEY)?;
        let bytes = bytes.ok_or_else(|| damaged(store, &"it has no stamp"))?;
        self.stamp(store).check(bytes)?;
        drop(view);
        Ok(opened)
    }

    /// Moves a store's directory under `folder`; the open handle, if any, keeps
    /// its files until it is dropped but is no longer lent.
    fn move_away(&self, store: StoreId, to: &Path) -> Result<(), EngineError> {
        let mut lent = self.lent();
        let from = self.path(store);
        if !from.is_dir() {
            return Err(EngineError::Missing(store));
        }
        lent.remove(&store);
        let moved = fs::rename(&from, to)
            .and_then(|()| sync_directory(&self.stores))
            .and_then(|()| to.parent().map_or(Ok(()), sync_directory));
        moved.map_err(|error| io_fault(store, &error))
    }
}

type Opened = Env<WithoutTls>;

fn name(tree: Tree) -> &'static str {
    match tree {
        Tree::Latest => "latest",
        Tree::History => "history",
        Tree::Changes => "changes",
        Tree::Leases => "leases",
        Tree::Root => "root",
    }
}

fn open_trees(store: StoreId, env: &Opened) -> Result<Trees, EngineError> {
    let read = env.read_txn().map_err(|error| fault(store, error))?;
    let opened = env
        .open_databases_and_commit(read, |opener, read| {
            let open = |tree| opener.open_database::<Bytes, Bytes>(read, Some(name(tree)));
            let [latest, history, changes, leases, root] = Tree::ALL.map(open);
            Ok(CommitOrAbort::<_, ()>::Commit([latest?, history?, changes?, leases?, root?]))
        })
        .map_err(|error: heed::Error| fault(store, error))?;
    let missing = || damaged(store, &"one of its trees is missing");
    match opened.commit().ok_or_else(missing)? {
        [Some(latest), Some(history), Some(changes), Some(leases), Some(root)] => {
            Ok([latest, history, changes, leases, root])
        }
        _ => Err(missing()),
    }
}

impl Engine for LmdbEngine {
    fn create(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        let lent = self.lent();
        let path = self.path(store);
        if path.exists() {
            return Err(EngineError::Exists(store));
        }
        // Filled under another name: `store-N` appears whole or not at all.
        let nascent = self.stores.join(format!(".new-{store}"));
        let made = fs::create_dir(&nascent).map_err(|error| io_fault(store, &error));
        made.and_then(|()| self.fill(store, &nascent))
            .and_then(|()| {
                fs::rename(&nascent, &path)
                    .and_then(|()| sync_directory(&self.stores))
                    .map_err(|error| io_fault(store, &error))
            })
            .inspect_err(|_| {
                // Best effort: what stays is removed at the next start.
                drop(fs::remove_dir_all(&nascent));
            })?;
        drop(lent);
        self.open(store)
    }

    fn open(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        let mut lent = self.lent();
        if let Some(held) = lent.get(&store).and_then(Weak::upgrade) {
            return Ok(held);
        }
        let opened = Arc::new(self.load(store)?);
        lent.insert(store, Arc::downgrade(&opened));
        Ok(opened)
    }

    fn list(&self) -> Result<Vec<StoreId>, EngineError> {
        let read = || -> io::Result<Vec<StoreId>> {
            let mut stores = Vec::new();
            for entry in fs::read_dir(&self.stores)? {
                let name = entry?.file_name();
                let number = name.to_str().and_then(|name| name.strip_prefix("store-"));
                stores.extend(number.and_then(|number| number.parse().ok()).map(StoreId));
            }
            stores.sort_unstable();
            Ok(stores)
        };
        read().map_err(|error| device(StoreId(0), &error))
    }

    fn quarantine(&self, store: StoreId) -> Result<(), EngineError> {
        // A store may come here more than once: its number is kept, not its place.
        let free = (1..=QUARANTINED_MAX)
            .map(|n| self.quarantine.join(format!("{store}.{n}")))
            .find(|path| !path.exists());
        let to = free.ok_or_else(|| device(store, &"its quarantine is full: delete from it"))?;
        self.move_away(store, &to)
    }

    fn destroy(&self, store: StoreId) -> Result<(), EngineError> {
        let doomed = self.stores.join(format!(".gone-{store}"));
        self.move_away(store, &doomed)?;
        fs::remove_dir_all(&doomed).map_err(|error| io_fault(store, &error))?;
        sync_directory(&self.stores).map_err(|error| io_fault(store, &error))
    }
}

/// Pages of a tree that hold something.
fn pages_of(stat: &DatabaseStat) -> u64 {
    (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64
}

impl LmdbStore {
    fn begin(&self) -> Result<LmdbView<'_>, EngineError> {
        let transaction = self.env.read_txn().map_err(|error| fault(self.store, error))?;
        Ok(LmdbView { store: self, transaction })
    }

    fn database(&self, tree: Tree) -> &Database<'static, Bytes, Bytes> {
        let [latest, history, changes, leases, root] = &self.trees;
        match tree {
            Tree::Latest => latest,
            Tree::History => history,
            Tree::Changes => changes,
            Tree::Leases => leases,
            Tree::Root => root,
        }
    }

    fn write_all(&self, writes: &[Write]) -> heed::Result<()> {
        let mut transaction = self.env.write_txn()?;
        for Write { tree, key, value } in writes {
            let database = self.database(*tree);
            match value {
                Some(value) => database.put(&mut transaction, key, value)?,
                None => {
                    database.delete(&mut transaction, key)?;
                }
            }
        }
        transaction.commit()
    }

    /// What a failed batch means. LMDB calls a write that fell short an I/O
    /// error (its `mdb_page_flush` asks itself which code to use), but the
    /// last pages of a full disk are written just so: it is told by the room.
    fn write_fault(&self, error: heed::Error, writes: &[Write]) -> EngineError {
        let fell_short =
            matches!(&error, heed::Error::Io(error) if error.raw_os_error() == Some(EIO));
        if fell_short && self.lacks_room(writes) {
            let cause = "a write fell short: no room on the disk".to_owned();
            return EngineError::Full { store: self.store, cause };
        }
        fault(self.store, error)
    }

    /// Whether the disk may have had no room for a batch a moment ago.
    fn lacks_room(&self, writes: &[Write]) -> bool {
        let bytes = |write: &Write| write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        let batch = writes.iter().map(bytes).sum::<usize>() as u64;
        rustix::fs::statvfs(self.env.path()).is_ok_and(|stat| {
            stat.f_bavail.saturating_mul(stat.f_frsize) < batch.saturating_add(GIVEN_BACK_BYTES)
        })
    }
}

impl Store for LmdbStore {
    fn view(&self) -> Result<Box<dyn View + '_>, EngineError> {
        Ok(Box::new(self.begin()?))
    }

    fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(device(self.store, &"an earlier write or sync failed; restart the node"));
        }
        #[expect(clippy::disallowed_methods, reason = "a device measures its own latency")]
        let begun = Instant::now();
        let written = self.write_all(writes).map_err(|error| self.write_fault(error, writes));
        let synced = written
            .and_then(|()| self.env.force_sync().map_err(|error| device(self.store, &error)));
        let took = begun.elapsed();
        metrics::time_store_commit(took);
        tracing::debug!(store = %self.store, writes = writes.len(), ?took, "batch committed");
        if let Err(EngineError::Device { .. } | EngineError::Damaged { .. }) = &synced {
            // The batch may be visible though not durable: nothing may build on it.
            self.poisoned.store(true, Ordering::Release);
        }
        synced
    }

    fn usage(&self) -> Result<StoreUsage, EngineError> {
        let view = self.begin()?;
        let unnamed = self.env.unnamed_database_stat();
        let mut pages = META_PAGES + pages_of(&unnamed);
        for tree in &self.trees {
            let stat = tree.stat(&view.transaction).map_err(|error| fault(self.store, error))?;
            pages += pages_of(&stat);
        }
        drop(view);
        let page = u64::from(unnamed.page_size);
        let file_bytes = (self.env.info().last_page_number as u64 + 1) * page;
        // The list of free pages is no tree of ours: it counts as reusable.
        let used_bytes = (pages * page).min(file_bytes);
        Ok(StoreUsage { used_bytes, file_bytes, limit_bytes: self.limit_bytes })
    }
}

impl View for LmdbView<'_> {
    fn store(&self) -> StoreId {
        self.store.store
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        // LMDB refuses to look for keys it could never hold.
        if key.is_empty() || key.len() > self.store.env.max_key_size() {
            return Ok(None);
        }
        let database = self.store.database(tree);
        database.get(&self.transaction, key).map_err(|error| fault(self.store.store, error))
    }

    fn scan(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        if is_void(from, to) || matches!(to, Bound::Included([]) | Bound::Excluded([])) {
            return Ok(());
        }
        // No key is empty, and LMDB cannot seek to the empty key.
        let from = if matches!(from, Bound::Included([]) | Bound::Excluded([])) {
            Bound::Unbounded
        } else {
            from
        };
        let range = (from, to);
        let fault = |error| fault(self.store.store, error);
        let (database, read) = (self.store.database(tree), &self.transaction);
        match order {
            Order::Ascending => walk(database.range(read, &range).map_err(fault)?, visit),
            Order::Descending => walk(database.rev_range(read, &range).map_err(fault)?, visit),
        }
        .map_err(fault)
    }
}

fn walk<'t>(
    entries: impl Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>>,
    visit: Visit<'_>,
) -> heed::Result<()> {
    for entry in entries {
        let (key, value) = entry?;
        if visit(key, value).is_break() {
            break;
        }
    }
    Ok(())
}
