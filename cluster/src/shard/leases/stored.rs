//! Leases as they lie in the store: a record each, in the tree `leases` below all
//! keys that hang on leases.
//!
//! ```text
//! 0         2          4     8        16        24     28
//! | version | reserved | crc | ttl ms | ends ms | keys |
//! ```
//! Little-endian. The checksum covers the place too: a lease found under another
//! one's id is as wrong as a bent one. Whoever touches a lease writes its record
//! and no other, in the batch that writes its keys; all of them are read once,
//! when a replica opens its store.

use std::ops::{Bound, ControlFlow};

use super::{Lease, Leases};
use crate::{
    ids::{LeaseId, ReplicaId},
    mvcc::{
        layout::{lease_record_key, read_lease_record_key},
        overlay::Change,
        record::{RecordError, check_attachment},
    },
    ports::engine::{EngineError, Order, Tree, View},
};

/// Version of the record.
const LEASE_VERSION: u16 = 1;
/// Its bytes.
const LEASE_BYTES: usize = 28;

/// Checks an entry of the tree `leases`: a lease, or a key that hangs on one.
///
/// # Errors
/// If it is damaged or of a newer release.
pub fn check_entry(place: &[u8], entry: &[u8]) -> Result<(), RecordError> {
    match read_lease_record_key(place) {
        Some(_) => read(place, entry).map(drop),
        None => check_attachment(place, entry),
    }
}

/// The record of a lease, to lie at its place.
pub(in crate::shard) fn write(place: &[u8], lease: &Lease) -> Vec<u8> {
    let mut body = lease.ttl_ms.to_le_bytes().to_vec();
    body.extend_from_slice(&lease.ends_ms.to_le_bytes());
    body.extend_from_slice(&lease.keys.to_le_bytes());
    let mut out = LEASE_VERSION.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&checksum(place, &body).to_le_bytes());
    out.extend(body);
    out
}

fn read(place: &[u8], bytes: &[u8]) -> Result<Lease, RecordError> {
    let bytes: &[u8; LEASE_BYTES] = bytes.try_into().map_err(|_| RecordError::Short)?;
    let (header, body) = bytes.split_at(8);
    if header[4..] != checksum(place, body).to_le_bytes() {
        return Err(RecordError::Checksum);
    }
    let version = u16::from_le_bytes([header[0], header[1]]);
    if version != LEASE_VERSION {
        return Err(RecordError::Version(version));
    }
    let (ttl, rest) = body.split_first_chunk().ok_or(RecordError::Short)?;
    let (ends, rest) = rest.split_first_chunk().ok_or(RecordError::Short)?;
    let keys = rest.first_chunk().ok_or(RecordError::Short)?;
    Ok(Lease {
        ttl_ms: u64::from_le_bytes(*ttl),
        ends_ms: u64::from_le_bytes(*ends),
        keys: u32::from_le_bytes(*keys),
    })
}

fn checksum(place: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(place), body)
}

impl Leases {
    /// All that a replica has in its store.
    ///
    /// # Errors
    /// Those of the store, and damage of a record.
    pub(in crate::shard) fn load(view: &dyn View, replica: ReplicaId) -> Result<Self, EngineError> {
        let (mut leases, mut fault) = (Self::default(), None);
        let from = lease_record_key(replica, LeaseId(0));
        let to = lease_record_key(replica, LeaseId(u64::MAX));
        let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        view.scan(Tree::Leases, bounds.0, bounds.1, Order::Ascending, &mut |place, entry| match (
            read_lease_record_key(place),
            read(place, entry),
        ) {
            (Some((_, id)), Ok(lease)) => {
                leases.hold(id, lease);
                ControlFlow::Continue(())
            }
            (None, Ok(_)) => ControlFlow::Continue(()),
            (_, Err(error)) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        })?;
        match fault {
            Some(error) => {
                Err(EngineError::Damaged { store: view.store(), cause: format!("lease: {error}") })
            }
            None => Ok(leases),
        }
    }

    /// The records of those that were changed since this was asked last, none for
    /// those that ended.
    pub(in crate::shard) fn take_changes(&mut self, replica: ReplicaId) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        let change = |id: LeaseId| {
            let place = lease_record_key(replica, id).to_vec();
            let value = self.get(id).ok().map(|lease| write(&place, &lease).into());
            Change { tree: Tree::Leases, key: place.into(), value }
        };
        changed.into_iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease { ttl_ms: 0x0201, ends_ms: 0x0403, keys: 5 };

    #[test]
    fn the_bytes_of_a_lease_are_pinned_and_a_bent_or_displaced_one_is_refused() {
        let place = lease_record_key(ReplicaId(7), LeaseId(9));
        let bytes = write(&place, &LEASE);
        assert_eq!(bytes[..4], [1, 0, 0, 0]);
        assert_eq!(bytes[8..], *b"\x01\x02\0\0\0\0\0\0\x03\x04\0\0\0\0\0\0\x05\0\0\0");
        assert_eq!(read(&place, &bytes), Ok(LEASE));
        assert_eq!(check_entry(&place, &bytes), Ok(()));
        for at in 4..LEASE_BYTES {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert_eq!(check_entry(&place, &bent), Err(RecordError::Checksum), "byte {at}");
        }
        let other = lease_record_key(ReplicaId(7), LeaseId(8));
        assert_eq!(check_entry(&other, &bytes), Err(RecordError::Checksum));
        assert_eq!(check_entry(&place, &bytes[1..]), Err(RecordError::Short));
        let newer = [&[2], &bytes[1..]].concat();
        assert_eq!(check_entry(&place, &newer), Err(RecordError::Version(2)));
    }
}
