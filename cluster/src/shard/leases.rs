//! Leases: keys that go when nobody says any more that they shall stay.
//!
//! A lease is granted for a time, keys are attached to it by writing them under
//! it, and it ends when its time has passed since it was last kept alive. Its
//! end deletes its keys, all at one version.
//!
//! Time is *shard time*: milliseconds of a leader's monotonic clock that it adds
//! in proposed steps. It never runs ahead of any clock, and what passes between
//! two leaders is not counted, so a change of leader, a restart or a clock that
//! jumps makes leases longer and never shorter. A leader that has leases adds a
//! step every [`CHECKPOINT`], so that many changes of leader in a row lose
//! little: what etcd calls a checkpoint of the remaining time.
//!
//! Only the leader notices that a lease is over; its proposal is judged again by
//! apply, because a keep-alive may stand before it in the log.
//!
//! Each lease has a record in the tree `leases`, beside those that say which keys
//! hang on it, all written by the batch that writes the keys. In memory lie all
//! leases of a shard, by id and by end, with how many keys each has: some 180 bytes
//! a lease, read from the store when a replica opens it. A reader keeps them as they
//! were at its point of the log, as it keeps the overlay.
//!
//! Invariants:
//! - no lease ends before its time has passed on every clock that counted it;
//! - a lease that ended is never seen again under its id's old keys;
//! - at most [`LEASES_PER_SHARD_MAX`] leases of [`LEASE_KEYS_MAX`] keys.
//!
//! Source: etcd's lessor, whose early expiry after a change of leader this avoids.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

mod stored;

pub use stored::check_entry;
pub(super) use stored::write as stored_lease;

use std::{
    collections::BTreeSet,
    ops::{Bound, ControlFlow},
    time::Duration,
};

use rkyv::{Archive, Deserialize, Serialize};
use rpds::RedBlackTreeMapSync;

use crate::{
    ids::LeaseId,
    limits::{LEASE_KEYS_MAX, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN, LEASES_PER_SHARD_MAX},
    mvcc::{layout::lease_key, overlay::Overlay, record::check_attachment, version::Version},
    ports::engine::{EngineError, Tree, View},
};

/// How often a leader that has leases adds to shard time: half of what one step
/// adds at most, so that nothing is lost between two of them.
pub const CHECKPOINT: Duration = Duration::from_secs(5);

/// One lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Lease {
    /// Milliseconds it lives after it was granted or kept alive.
    pub ttl_ms: u64,
    /// Shard time at which it is over.
    pub ends_ms: u64,
    /// Keys that hang on it.
    pub keys: u32,
}

/// A lease as asked for, at a moment of its leader's clock.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LeaseView {
    /// Which.
    pub lease: LeaseId,
    /// Milliseconds it was granted for.
    pub ttl_ms: u64,
    /// Milliseconds it has left.
    pub remaining_ms: u64,
    /// Its keys in order, if they were asked for.
    pub keys: Vec<Vec<u8>>,
}

/// What is done to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LeaseCommand {
    /// Begins one. Less than [`LEASE_TTL_MS_MIN`] is raised to it.
    Grant {
        /// Its id, not zero and not in use.
        lease: LeaseId,
        /// How long it lives.
        ttl_ms: u64,
    },
    /// Begins its time anew.
    KeepAlive(LeaseId),
    /// Ends it with its keys.
    Revoke(LeaseId),
    /// Ends it if its time is over: proposed by leaders only.
    Expire(LeaseId),
}

/// What that came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LeaseOutcome {
    /// It was granted, or lives on, for so many milliseconds.
    Lives {
        /// How long.
        ttl_ms: u64,
        /// The newest version at that point.
        version: Version,
    },
    /// It ended.
    Ended {
        /// The version that deleted its keys; the newest if it had none.
        version: Version,
        /// How many they were.
        keys: u32,
    },
    /// Its time is not over after all.
    NotDue,
}

/// Why a lease is not as it was asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum LeaseError {
    /// There is none of that id.
    #[error("requested lease not found: there is no {0}, or it has ended")]
    Unknown(LeaseId),
    /// There is one of that id already.
    #[error("lease already exists: {0} is in use")]
    Exists(LeaseId),
    /// Zero, or not a positive signed number.
    #[error("a lease has a number from 1 to 2^63 - 1, not {}", .0.0)]
    InvalidId(LeaseId),
    /// It would outlive any clock.
    #[error("too large lease TTL: a lease lives at most {LEASE_TTL_MS_MAX} ms, not {0}")]
    TooLong(u64),
    /// The shard has too many.
    #[error("a shard keeps at most {LEASES_PER_SHARD_MAX} leases at a time")]
    TooMany,
    /// Too many keys hang on it.
    #[error("at most {LEASE_KEYS_MAX} keys hang on one lease; {0} has them")]
    Full(LeaseId),
}

/// One lease as a snapshot brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Its id.
    pub id: LeaseId,
    /// All else.
    pub lease: Lease,
}

/// All leases of a shard. A clone costs two reference counts.
#[derive(Clone, Debug)]
pub struct Leases {
    by_id: RedBlackTreeMapSync<LeaseId, Lease>,
    /// The same, by when they are over.
    by_end: RedBlackTreeMapSync<(u64, LeaseId), ()>,
    /// Those whose records are to be written.
    changed: BTreeSet<LeaseId>,
}

impl Default for Leases {
    fn default() -> Self {
        let (by_id, by_end) = (RedBlackTreeMapSync::new_sync(), RedBlackTreeMapSync::new_sync());
        Self { by_id, by_end, changed: BTreeSet::new() }
    }
}

/// The keys that hang on a lease, in order.
///
/// # Errors
/// Those of the view, and damage of an entry.
pub(super) fn attached_keys(
    overlay: &Overlay,
    view: &dyn View,
    lease: LeaseId,
) -> Result<Vec<Vec<u8>>, EngineError> {
    if lease == LeaseId(0) {
        // No lease: where its keys would lie, the leases themselves do.
        return Ok(Vec::new());
    }
    let (from, to) = (lease_key(lease, &[]), lease_key(LeaseId(lease.0.saturating_add(1)), &[]));
    let (mut keys, mut fault) = (Vec::new(), None);
    let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    overlay.scan(view, Tree::Leases, bounds.0, bounds.1, &mut |place, entry| {
        match check_attachment(place, entry) {
            Ok(()) => keys.extend(place.get(from.len()..).map(<[u8]>::to_vec)),
            Err(error) => fault = Some(error),
        }
        if fault.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match fault {
        Some(error) => Err(EngineError::Damaged { store: view.store(), cause: error.to_string() }),
        None => Ok(keys),
    }
}

impl Leases {
    /// Begins a lease; how long it lives.
    ///
    /// # Errors
    /// If the id is in use or none, the time too long, or there are too many.
    pub fn grant(&mut self, id: LeaseId, ttl_ms: u64, now_ms: u64) -> Result<u64, LeaseError> {
        if id.0 == 0 || id.0 > i64::MAX.cast_unsigned() {
            return Err(LeaseError::InvalidId(id));
        }
        if ttl_ms > LEASE_TTL_MS_MAX {
            return Err(LeaseError::TooLong(ttl_ms));
        }
        if self.by_id.contains_key(&id) {
            return Err(LeaseError::Exists(id));
        }
        if self.by_id.size() >= LEASES_PER_SHARD_MAX {
            return Err(LeaseError::TooMany);
        }
        let ttl_ms = ttl_ms.max(LEASE_TTL_MS_MIN);
        self.put(id, Lease { ttl_ms, ends_ms: now_ms + ttl_ms, keys: 0 });
        Ok(ttl_ms)
    }

    /// Begins a lease as it was saved, with the time it had left.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub fn restore(
        &mut self,
        id: LeaseId,
        ttl_ms: u64,
        remaining_ms: u64,
        now_ms: u64,
    ) -> Result<(), LeaseError> {
        let ttl_ms = self.grant(id, ttl_ms, now_ms)?;
        let remaining_ms = remaining_ms.clamp(LEASE_TTL_MS_MIN, ttl_ms);
        self.put(id, Lease { ttl_ms, ends_ms: now_ms + remaining_ms, keys: 0 });
        Ok(())
    }

    /// Begins a lease's time anew; how long it lives.
    ///
    /// # Errors
    /// If there is none.
    pub fn keep_alive(&mut self, id: LeaseId, now_ms: u64) -> Result<u64, LeaseError> {
        let mut lease = self.get(id)?;
        lease.ends_ms = now_ms + lease.ttl_ms;
        self.put(id, lease);
        Ok(lease.ttl_ms)
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, id: LeaseId) -> Result<Lease, LeaseError> {
        self.by_id.get(&id).copied().ok_or(LeaseError::Unknown(id))
    }

    /// Forgets a lease; its keys are gone, or go with it.
    pub fn end(&mut self, id: LeaseId) {
        if let Some(old) = self.by_id.get(&id) {
            self.by_end.remove_mut(&(old.ends_ms, id));
            self.by_id.remove_mut(&id);
            self.changed.insert(id);
        }
    }

    /// Whether a lease can take so many keys more.
    ///
    /// # Errors
    /// If it cannot, or is none.
    pub fn check_room(&self, id: LeaseId, more: i64) -> Result<(), LeaseError> {
        let keys = i64::from(self.get(id)?.keys) + more;
        let full = keys > i64::from(LEASE_KEYS_MAX);
        if more > 0 && full { Err(LeaseError::Full(id)) } else { Ok(()) }
    }

    /// So many keys more, or fewer, hang on a lease. One that has ended is
    /// passed by.
    pub fn attach(&mut self, id: LeaseId, more: i64) {
        if let Ok(mut lease) = self.get(id) {
            let keys = i64::from(lease.keys) + more;
            debug_assert!(keys >= 0, "{id} has fewer than no keys");
            lease.keys = u32::try_from(keys.max(0)).unwrap_or(u32::MAX);
            self.put(id, lease);
        }
    }

    /// The lease that is over first, and when.
    pub fn first(&self) -> Option<(u64, LeaseId)> {
        self.by_end.first().map(|(end, ())| *end)
    }

    /// Leases that are over at `now_ms`, first ones first.
    pub fn over(&self, now_ms: u64) -> impl Iterator<Item = LeaseId> {
        self.by_end.keys().take_while(move |(ends_ms, _)| *ends_ms <= now_ms).map(|(_, id)| *id)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_id.size()
    }

    /// All of them, in order of id.
    pub fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.by_id.keys().copied()
    }

    /// Those behind one, in order of id; all behind zero.
    pub fn after(&self, id: LeaseId) -> impl Iterator<Item = LeaseRecord> {
        let behind = (Bound::Excluded(id), Bound::Unbounded);
        self.by_id.range(behind).map(|(id, lease)| LeaseRecord { id: *id, lease: *lease })
    }

    fn put(&mut self, id: LeaseId, lease: Lease) {
        self.hold(id, lease);
        self.changed.insert(id);
    }

    /// Holds it as it is stored.
    fn hold(&mut self, id: LeaseId, lease: Lease) {
        if let Some(old) = self.by_id.get(&id) {
            self.by_end.remove_mut(&(old.ends_ms, id));
        }
        self.by_end.insert_mut((lease.ends_ms, id), ());
        self.by_id.insert_mut(id, lease);
    }
}

#[cfg(test)]
mod tests {
    use crate::{ids::ReplicaId, mvcc::layout::read_lease_record_key};

    use super::*;

    const A: LeaseId = LeaseId(7);
    const B: LeaseId = LeaseId(8);

    #[test]
    fn a_lease_is_over_when_its_time_has_passed_since_it_was_kept_alive() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(A, 5_000, 100), Ok(5_000));
        assert_eq!(leases.grant(B, 9_000, 100), Ok(9_000));
        assert_eq!(leases.first(), Some((5_100, A)));
        assert_eq!(leases.over(5_099).count(), 0);
        assert_eq!(leases.keep_alive(A, 5_099), Ok(5_000));
        assert_eq!(leases.first(), Some((9_100, B)));
        assert_eq!(leases.over(u64::MAX).collect::<Vec<_>>(), [B, A]);
        leases.end(B);
        assert_eq!(leases.keep_alive(B, 0), Err(LeaseError::Unknown(B)));
    }

    #[test]
    fn ids_times_and_numbers_have_limits() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(LeaseId(0), 1, 0), Err(LeaseError::InvalidId(LeaseId(0))));
        let negative = LeaseId(1 << 63);
        assert_eq!(leases.grant(negative, 1, 0), Err(LeaseError::InvalidId(negative)));
        let long = LEASE_TTL_MS_MAX + 1;
        assert_eq!(leases.grant(A, long, 0), Err(LeaseError::TooLong(long)));
        assert_eq!(leases.grant(A, 1, 0), Ok(2_000), "a second is less than an election may take");
        assert_eq!(leases.grant(A, 1, 0), Err(LeaseError::Exists(A)));
        leases.attach(A, 10_000);
        assert_eq!(leases.check_room(A, 1), Err(LeaseError::Full(A)));
        assert_eq!(leases.check_room(A, -1), Ok(()));
    }

    #[test]
    fn those_that_were_touched_are_written_and_no_others() {
        let mut leases = Leases::default();
        for id in 1..=4 {
            leases.grant(LeaseId(id), 5_000, 0).unwrap();
        }
        let written = |leases: &mut Leases| {
            let changes = leases.take_changes(ReplicaId(9)).into_iter();
            let named = changes.map(|change| {
                let (replica, lease) = read_lease_record_key(&change.key).unwrap();
                assert_eq!(replica, ReplicaId(9));
                (lease.0, change.value.is_some())
            });
            named.collect::<Vec<_>>()
        };
        assert_eq!(written(&mut leases), [(1, true), (2, true), (3, true), (4, true)]);
        assert_eq!(written(&mut leases), []);
        leases.keep_alive(LeaseId(3), 9).unwrap();
        leases.attach(LeaseId(1), 1);
        leases.attach(LeaseId(4), 1);
        leases.end(LeaseId(4));
        let _ = (leases.grant(LeaseId(2), 5_000, 0), leases.keep_alive(LeaseId(5), 0));
        assert_eq!(written(&mut leases), [(1, true), (3, true), (4, false)]);
        let behind = |id| leases.after(LeaseId(id)).map(|record| record.id.0).collect::<Vec<_>>();
        assert_eq!((behind(0), behind(2)), (vec![1, 2, 3], vec![3]));
    }
}
