//! Ordered storage of one store: snapshots to read, atomic batches to write.
//!
//! Reading is a parameter: cores take `&dyn View` (or `&impl View`) and get
//! borrowed bytes. A view never changes, must be short-lived (LMDB cannot
//! reuse pages a reader still sees), and several may be open at once.

use std::{fmt, ops::Bound, ops::ControlFlow};

use crate::{ids::StoreId, limits::TRANSACTION_BYTES_MAX};

/// The named trees of a store. See `mvcc::layout` for their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// key → newest record.
    Latest,
    /// key ‖ ~version → older record.
    History,
    /// version ‖ sub → key.
    Changes,
    /// lease ‖ key: which keys hang on it.
    Leases,
    /// replica → root record; and the store's own stamp.
    Root,
}

impl Tree {
    /// All trees, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Latest, Self::History, Self::Changes, Self::Leases, Self::Root];
}

/// Direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Why the engine could not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The disk or the map is full; nothing was changed.
    #[error("{store} is full: {cause}")]
    Full {
        /// Which store.
        store: StoreId,
        /// What the device said.
        cause: String,
    },
    /// The bytes on disk are not what was written. The store is quarantined
    /// and its replica rebuilt from its peers.
    #[error("{store} is damaged: {cause}")]
    Damaged {
        /// Which store.
        store: StoreId,
        /// What was wrong.
        cause: String,
    },
    /// There is no such store.
    #[error("{0} does not exist")]
    Missing(StoreId),
    /// Written by a newer release.
    #[error(
        "{store} has format {found}, this release reads up to {supported}: start the newer release"
    )]
    NewerFormat {
        /// Which store.
        store: StoreId,
        /// Format found.
        found: u16,
        /// Newest format understood.
        supported: u16,
    },
    /// Its stamp names another cluster, node or store.
    #[error("{store} is foreign: {cause}")]
    Foreign {
        /// Which store.
        store: StoreId,
        /// Whose it is.
        cause: String,
    },
    /// It cannot be created: there is one.
    #[error("{0} exists already")]
    Exists(StoreId),
    /// Anything else the device reported; the disk is fenced.
    #[error("{store}: {cause}")]
    Device {
        /// Which store.
        store: StoreId,
        /// What the device said.
        cause: String,
    },
}

/// Called for each entry of a scan; `Break` ends it.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An immutable snapshot of one store.
pub trait View {
    /// Whose snapshot it is.
    fn store(&self) -> StoreId;

    /// The value of `key`.
    ///
    /// # Errors
    /// Damage or device faults.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<&[u8]>, EngineError>;

    /// Visits the entries between the bounds in order.
    ///
    /// # Errors
    /// Damage or device faults.
    fn scan(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), EngineError>;
}

/// One change of a batch; `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// In which tree.
    pub tree: Tree,
    /// The key.
    pub key: Vec<u8>,
    /// The new value, or `None` to delete.
    pub value: Option<Vec<u8>>,
}

/// Bytes a store takes and has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes it takes of the device: those in use, and what it can use again.
    pub file_bytes: u64,
    /// Bytes it may come to; [`UNLIMITED`] where only the device bounds it.
    pub limit_bytes: u64,
}

/// The limit of a store that has none.
pub const UNLIMITED: u64 = u64::MAX;

/// Least room that a limit keeps: what one transaction moves to the history when it
/// deletes as much as it may, pages old and new, and some to copy on the way.
const KEPT_BYTES_MIN: u64 = 2 * (TRANSACTION_BYTES_MAX as u64) + (8 << 20);

/// Bytes below its limit that a store keeps for what makes room: deletes and
/// compaction write before they free. A tenth; of small stores more, for a
/// transaction is as large there.
pub fn kept_bytes(limit_bytes: u64) -> u64 {
    KEPT_BYTES_MIN.min(limit_bytes / 3).max(limit_bytes / 10)
}

/// One open store.
pub trait Store: Send + Sync + fmt::Debug {
    /// Opens a snapshot.
    ///
    /// # Errors
    /// Device faults, or too many readers.
    fn view(&self) -> Result<Box<dyn View + '_>, EngineError>;

    /// Applies all of `writes` or nothing; durable when it returns.
    ///
    /// # Errors
    /// Full, damage or device faults; the store is then unchanged.
    fn commit(&self, writes: &[Write]) -> Result<(), EngineError>;

    /// What the store takes.
    ///
    /// # Errors
    /// Device faults.
    fn usage(&self) -> Result<StoreUsage, EngineError>;
}

/// The stores of one disk.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Creates an empty store, durable with its directory.
    ///
    /// # Errors
    /// If it exists, or the device's.
    fn create(&self, store: StoreId) -> Result<std::sync::Arc<dyn Store>, EngineError>;

    /// Opens a store; the same handle for as long as one is held.
    ///
    /// # Errors
    /// If it is missing, damaged or of a newer format.
    fn open(&self, store: StoreId) -> Result<std::sync::Arc<dyn Store>, EngineError>;

    /// All stores on the disk.
    ///
    /// # Errors
    /// Device faults.
    fn list(&self) -> Result<Vec<StoreId>, EngineError>;

    /// Sets a store aside that no record names or that is damaged; nothing is
    /// deleted.
    ///
    /// # Errors
    /// Device faults.
    fn quarantine(&self, store: StoreId) -> Result<(), EngineError>;

    /// Deletes a store whose replica was destroyed.
    ///
    /// # Errors
    /// Device faults.
    fn destroy(&self, store: StoreId) -> Result<(), EngineError>;
}

/// Whether no key can lie between the bounds. Such a range is an
/// ordinary question (a page that starts after its prefix ends), not a bug.
pub fn is_void(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
