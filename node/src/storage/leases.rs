//! Leases of an embedded store: keys that go when nobody keeps them. Unlike in
//! programs that count time themselves, a lease here ends by itself.

use super::{
    asked::{self, id_of},
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
        self.run(|client| asked::grant(client, lease_id, ttl))
    }

    /// Begins its time anew.
    ///
    /// # Errors
    /// [`super::StorageError::NotFound`] if it has ended.
    pub fn keep_lease_alive(&self, lease_id: i64) -> StorageResult<()> {
        self.run(|client| asked::keep_alive(client, lease_id))
    }

    /// Ends a lease with its keys, at one revision: in place of deleting the keys
    /// one by one.
    ///
    /// # Errors
    /// [`super::StorageError::NotFound`] if it has ended.
    pub fn revoke_lease(&self, lease_id: i64) -> StorageResult<()> {
        self.run(|client| asked::revoke(client, lease_id))
    }

    /// The keys that hang on a lease, in order; none if it has ended.
    ///
    /// # Errors
    /// If the node does not serve.
    pub fn get_keys_by_lease(&self, lease_id: i64) -> StorageResult<Vec<Vec<u8>>> {
        let lease = id_of(lease_id);
        let (shown, _) =
            self.run(|client| async move { client.show_lease(VOLUME, lease, true).await })?;
        Ok(shown.map(|shown| shown.keys).unwrap_or_default())
    }

    /// Hangs a key on a lease and leaves its value as it is.
    ///
    /// # Errors
    /// [`super::StorageError::NotFound`] if the key or the lease is not there.
    pub fn associate_key_with_lease(&self, key: &KeyValue, lease_id: i64) -> StorageResult<()> {
        let key = key.key.clone();
        self.run(|client| asked::associate(client, key, lease_id))
    }
}
