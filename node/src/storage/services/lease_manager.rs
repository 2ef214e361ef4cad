//! Leases for tasks.

use std::sync::Arc;

use cluster::{ids::LeaseId, shard::leases::LeaseView};

use crate::storage::{
    asked::{self, id_of},
    error::{StorageError, StorageResult},
    kinds::{KeyValue, signed},
    store::{MvccStore, VOLUME},
};

/// Leases of a store: keys that go when nobody keeps them. They end by themselves, whether
/// a manager lives or not; nothing is kept in it.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use clusterdb::storage::{Backend, BackendConfig, LeaseManager, MvccStore, StorageError};
/// # async fn hold(store: Arc<MvccStore>) -> Result<(), StorageError> {
/// let leases = LeaseManager::new(store.clone());
/// leases.grant(7, 60).await?;
/// store.put(b"leader", b"me", 7)?;
/// leases.keep_alive(7).await?; // for another minute
/// leases.revoke(7).await?; // with its key
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LeaseManager {
    store: Arc<MvccStore>,
}

/// How long a lease lives, in seconds, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// From now on.
    pub ttl: i64,
    /// When it was granted, and whenever it is kept alive.
    pub granted_ttl: i64,
    /// What goes with it, in order.
    pub keys: Vec<Vec<u8>>,
}

impl LeaseManager {
    /// Those of a store.
    pub fn new(store: Arc<MvccStore>) -> Self {
        Self { store }
    }

    /// Grants a lease of any number but zero for so many seconds.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if its number is in use;
    /// [`StorageError::InvalidArgument`] if it is none.
    pub async fn grant(&self, lease_id: i64, ttl: i64) -> StorageResult<()> {
        self.store.ask(|client| async move { Ok(asked::grant(client, lease_id, ttl).await?) }).await
    }

    /// Begins its time anew.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] if it has ended.
    pub async fn keep_alive(&self, lease_id: i64) -> StorageResult<()> {
        self.store.ask(|client| async move { Ok(asked::keep_alive(client, lease_id).await?) }).await
    }

    /// Ends a lease with its keys, at one revision.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] if it has ended.
    pub async fn revoke(&self, lease_id: i64) -> StorageResult<()> {
        self.store.ask(|client| async move { Ok(asked::revoke(client, lease_id).await?) }).await
    }

    /// How long it lives and what goes with it; none if it has ended.
    ///
    /// # Errors
    /// If the node does not serve.
    pub async fn time_to_live(&self, lease_id: i64) -> StorageResult<Option<TimeToLive>> {
        let lease = id_of(lease_id);
        let shown = self.store.ask(|client| async move {
            let (shown, _) = client.show_lease(VOLUME, lease, true).await?;
            Ok::<_, StorageError>(shown)
        });
        Ok(shown.await?.map(TimeToLive::from))
    }

    /// All that live, in order.
    ///
    /// # Errors
    /// If the node does not serve.
    pub async fn leases(&self) -> StorageResult<Vec<i64>> {
        let listed = self.store.ask(|client| async move {
            let (leases, _) = client.list_leases(VOLUME).await?;
            Ok::<_, StorageError>(leases)
        });
        Ok(listed.await?.into_iter().map(|LeaseId(id)| id.cast_signed()).collect())
    }

    /// Hangs a key that was put on a lease, unless that is zero. A put that names the lease
    /// has done so already, in one step with the value.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] if the key or the lease is not there.
    pub async fn on_key_put(&self, kv: &KeyValue, lease_id: i64) -> StorageResult<()> {
        if lease_id == 0 {
            return Ok(());
        }
        let key = kv.key.clone();
        self.store.ask(|client| asked::associate(client, key, lease_id)).await
    }
}

impl From<LeaseView> for TimeToLive {
    fn from(view: LeaseView) -> Self {
        let seconds = |ms: u64| signed(ms / 1_000);
        let (ttl, granted_ttl) = (seconds(view.remaining_ms), seconds(view.ttl_ms));
        Self { ttl, granted_ttl, keys: view.keys }
    }
}
