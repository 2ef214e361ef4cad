//! A log that the program keeps, applied to a store.

use std::sync::Arc;

use cluster::shard::transaction::Put;

use crate::storage::{
    asked::{self, id_of},
    error::{StorageError, StorageResult},
    kinds::{keys_of, signed},
    snapshot::{self, Snapshot},
    store::MvccStore,
};

/// What an entry changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A key is written, under a lease unless that is zero.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// The lease it hangs on.
        lease: i64,
    },
    /// Keys are deleted; an empty end means one.
    Delete {
        /// The first key.
        key: Vec<u8>,
        /// The first that stays.
        range_end: Vec<u8>,
    },
}

/// One entry of the program's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// What it changes.
    pub command: Command,
}

/// A store as the state of a log that the program replicates itself.
///
/// A store needs none: it is a replica of a Raft group of its own, and what its methods
/// return is durable. This is for programs that have a log already. Entries are applied in
/// the order of the calls; one that is applied again after a crash is a change of its own,
/// at a new revision, with the same outcome.
#[derive(Debug)]
pub struct RaftNode {
    store: Arc<MvccStore>,
    last_applied_revision: i64,
}

impl RaftNode {
    /// Over this store. Asks it for its revision, on this thread.
    pub fn new(store: Arc<MvccStore>) -> Self {
        let last_applied_revision = store.current_revision();
        Self { store, last_applied_revision }
    }

    /// The revision of the last entry, or of what the store held before the first.
    pub fn last_applied_revision(&self) -> i64 {
        self.last_applied_revision
    }

    /// Applies an entry; once it returns, what it changed is durable.
    ///
    /// # Errors
    /// As [`MvccStore::put`] and [`MvccStore::delete_range`]; nothing is changed then, unless
    /// the node does not serve any more.
    pub async fn apply_entry(&mut self, entry: LogEntry) -> StorageResult<()> {
        self.last_applied_revision = match entry.command {
            Command::Put { key, value, lease } => {
                let put = Put::new(key, value).under(id_of(lease));
                self.store.ask(|client| asked::put(client, put)).await?.0
            }
            Command::Delete { key, range_end } => {
                let keys = keys_of(&key, &range_end);
                self.store.ask(|client| asked::delete(client, keys)).await?.0
            }
        };
        Ok(())
    }

    /// As [`MvccStore::snapshot`].
    ///
    /// # Errors
    /// As there.
    pub async fn create_snapshot(&self) -> StorageResult<Vec<u8>> {
        let taken = self
            .store
            .ask(|client| async move { Ok::<_, StorageError>(snapshot::take(client).await?) });
        taken.await
    }

    /// As [`MvccStore::restore`].
    ///
    /// # Errors
    /// As there.
    pub async fn restore_snapshot(&mut self, data: &[u8]) -> StorageResult<()> {
        let snapshot = Snapshot::read(data)?;
        let restored = self.store.ask(|client| async move {
            snapshot.restore(client.clone()).await?;
            Ok::<_, StorageError>(asked::now(client).await?)
        });
        self.last_applied_revision = signed(restored.await?.0);
        Ok(())
    }
}
