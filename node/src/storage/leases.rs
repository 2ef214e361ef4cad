//! Leases of an embedded store: keys that go when nobody keeps them. Unlike in
//! programs that count time themselves, a lease here ends by itself.

use cluster::{ids::LeaseId, shard::transaction::Put};

use super::{
    error::StorageResult,
    kinds::KeyValue,
    store::{MvccStore, VOLUME},
};

impl MvccStore {
    /// Grants a lease for so many seconds.
    ///
    /// # Errors
    /// [`super::StorageError::Conflict`] if its id is in use.
    pub fn put_lease(&self, lease_id: i64, ttl: i64) -> StorageResult<()> {
        let lease = LeaseId(lease_id.cast_unsigned());
        let ttl_ms = u64::try_from(ttl).unwrap_or(0).saturating_mul(1_000);
        let grant = |client: actors::client::Client| async move {
            client.grant_lease(VOLUME, Some(lease), ttl_ms).await
        };
        self.run(grant).map(drop)
    }

    /// Begins its time anew.
    ///
    /// # Errors
    /// [`super::StorageError::NotFound`] if it has ended.
    pub fn keep_lease_alive(&self, lease_id: i64) -> StorageResult<()> {
        let lease = LeaseId(lease_id.cast_unsigned());
        self.run(|client| async move { client.keep_lease_alive(VOLUME, lease).await }).map(drop)
    }

    /// Ends a lease with its keys, at one revision: in place of deleting the keys
    /// one by one.
    ///
    /// # Errors
    /// [`super::StorageError::NotFound`] if it has ended.
    pub fn revoke_lease(&self, lease_id: i64) -> StorageResult<()> {
        let lease = LeaseId(lease_id.cast_unsigned());
        self.run(|client| async move { client.revoke_lease(VOLUME, lease).await }).map(drop)
    }

    /// The keys that hang on a lease, in order; none if it has ended.
    ///
    /// # Errors
    /// If the node does not serve.
    pub fn get_keys_by_lease(&self, lease_id: i64) -> StorageResult<Vec<Vec<u8>>> {
        let lease = LeaseId(lease_id.cast_unsigned());
        let (shown, _) =
            self.run(|client| async move { client.show_lease(VOLUME, lease, true).await })?;
        Ok(shown.map(|shown| shown.keys).unwrap_or_default())
    }

    /// Hangs a key on a lease and leaves its value as it is.
    ///
    /// # Errors
    /// [`super::StorageError::NotFound`] if the key or the lease is not there.
    pub fn associate_key_with_lease(&self, key: &KeyValue, lease_id: i64) -> StorageResult<()> {
        let lease = LeaseId(lease_id.cast_unsigned());
        let put = Put { value: None, ..Put::new(key.key.clone(), "").under(lease) };
        self.put_as(&key.key, put).map(drop)
    }
}
