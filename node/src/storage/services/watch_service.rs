//! Watches for tasks.

use std::sync::Arc;

use crate::storage::{
    asked,
    error::{StorageError, StorageResult},
    kinds::{Event, keys_of},
    store::MvccStore,
    watch::{self, Events},
};

/// What happens to keys of a store.
#[derive(Clone, Debug)]
pub struct WatchService {
    store: Arc<MvccStore>,
}

impl WatchService {
    /// Of this store.
    pub fn new(store: Arc<MvccStore>) -> Self {
        Self { store }
    }

    /// All that happened to keys from a revision on, that one included, until now, held at
    /// once. An empty `range_end` means one key and `\0` all from `key` on, as in etcd.
    ///
    /// # Errors
    /// [`StorageError::Mvcc`] if some of it is compacted.
    pub async fn watch(
        &self,
        key: &[u8],
        range_end: &[u8],
        start_revision: i64,
    ) -> StorageResult<Vec<Event>> {
        let keys = keys_of(key, range_end);
        let told = self.store.ask(|client| async move {
            Ok::<_, StorageError>(asked::events(client, keys, start_revision).await?)
        });
        told.await
    }

    /// Follows keys, as [`MvccStore::watch`]: any number of streams hear of each change.
    ///
    /// # Errors
    /// As there.
    pub async fn follow(
        &self,
        key: &[u8],
        range_end: &[u8],
        start_revision: i64,
    ) -> StorageResult<Events> {
        let keys = keys_of(key, range_end);
        let begun =
            self.store.ask(move |client| watch::begin(client, keys, start_revision)).await?;
        Ok(Events::of(&self.store, begun))
    }
}
