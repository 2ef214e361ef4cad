//! Reading a replica while apply and flush go on.
//!
//! A reader is the state at one applied position: overlay and root, immutable.
//! What the overlay has already handed to the store is read through a view
//! opened *afterwards*. The view may be newer than the reader; versions mend
//! that, because every read is at a version and older records lie in the
//! history. A view that is older would miss what the overlay has dropped: the
//! replica's mark in the view tells, and such a read is refused. What of the
//! history is gone is told by the log (the compacted version) and, for a view
//! that is newer than the reader, by the view (how far it was swept), so that is
//! always checked last. A snapshot may read on below a newer compacted version:
//! whoever sweeps leaves what is pinned, and the view proves it.
//!
//! Source: design, "overlay snapshot first, then the read transaction, then the
//! compacted version".

mod changes;
mod events;
mod page;

pub use changes::{ChangedItems, Changes, KeyChange};
pub use page::Page;

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use super::{
    command::Outcome,
    descriptor::ShardDescriptor,
    leases::{LeaseRecord, LeaseView, Leases, attached_keys},
    machine::look,
    range::TooLarge,
    restore::{Restore, RestoreError},
    root::{Mark, Root, RootError},
    sweep::swept,
    transaction::Transaction,
};
use crate::{
    auth::{Accounts, AuthError, Denial, Need, Principal},
    ids::{Epoch, LeaseId, LogIndex, ReplicaId, Term},
    limits::LEASES_PAGE_MAX,
    mvcc::{
        layout::{history_end, history_key, root_key},
        overlay::Overlay,
        record::{Record, RecordError},
        tally::Tally,
        version::{Hlc, Version, VersionKind},
    },
    ports::engine::{EngineError, Store, Tree, View},
    raft::types::Configuration,
    request::Item,
};

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The version is too old.
    #[error("version {at} is compacted away; the oldest kept is {compacted}")]
    Compacted {
        /// Asked for.
        at: Version,
        /// Oldest version that can be read.
        compacted: Version,
    },
    /// What the read stood on was compacted before it could begin: read again.
    #[error("the state at {now} was compacted to {compacted} meanwhile")]
    Overtaken {
        /// Where the reader stands.
        now: Version,
        /// Oldest version that can be read by now.
        compacted: Version,
    },
    /// The view is of a later state than the reader, where both must be one: read again.
    #[error("the store has gone on beyond {now}")]
    GoneOn {
        /// Where the reader stands.
        now: Version,
    },
    /// The state is not whole: a restore is under way.
    #[error(transparent)]
    NotWhole(#[from] RestoreError),
    /// Who asked may not.
    #[error(transparent)]
    Denied(#[from] AuthError),
    /// The version does not exist yet.
    #[error("version {at} lies in the future; the newest is {now}")]
    Future {
        /// Asked for.
        at: Version,
        /// Newest version that can be read.
        now: Version,
    },
    /// The key is not this shard's.
    #[error("the key does not belong to this shard at {0}")]
    WrongShard(Epoch),
    /// It is too large to be sorted as a whole.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The view was opened before the reader was taken.
    #[error("the view stands at {view}, the overlay begins after {flushed}: open it later")]
    ViewTooOld {
        /// Where the view stands.
        view: LogIndex,
        /// What it must hold.
        flushed: LogIndex,
    },
    /// The replica is no longer in the store.
    #[error("the store no longer holds {0}")]
    Gone(ReplicaId),
    /// Its root record cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The store could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

#[derive(Debug)]
struct Snapshot {
    replica: ReplicaId,
    root: Root,
    overlay: Overlay,
    flushed: LogIndex,
    /// How far its store was swept when it was opened.
    swept: Version,
}

/// A replica at one applied position. Cheap to clone, readable on any thread.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Snapshot>);

/// A view that was checked against a reader, and the version to read at.
#[derive(Clone, Copy)]
pub(super) struct Stand<'a> {
    pub(super) view: &'a dyn View,
    pub(super) at: Version,
    /// Whether `latest` may hold newer records than `at`, or lack keys that
    /// were deleted after it, so that the history must be asked too.
    past: bool,
}

impl Reader {
    pub(super) fn new(
        replica: ReplicaId,
        root: Root,
        overlay: Overlay,
        (flushed, swept): (LogIndex, Version),
    ) -> Self {
        Self(Arc::new(Snapshot { replica, root, overlay, flushed, swept }))
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.0.replica
    }

    pub(super) fn root(&self) -> &Root {
        &self.0.root
    }

    pub(super) fn overlay(&self) -> &Overlay {
        &self.0.overlay
    }

    /// A view of the store to read through: opened after the reader, as it must be.
    ///
    /// # Errors
    /// Those of the store.
    pub fn view<'s>(&self, store: &'s dyn Store) -> Result<Box<dyn View + 's>, EngineError> {
        store.view()
    }

    /// Last applied position and its term.
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.root().mark.applied, self.root().mark.term)
    }

    /// The position a view must prove at least.
    pub fn flushed(&self) -> LogIndex {
        self.0.flushed
    }

    /// Last version that changed a key.
    pub fn version(&self) -> Version {
        self.root().mark.version
    }

    /// The version at which a read without a version reads.
    pub fn now(&self) -> Version {
        self.root().now()
    }

    /// Closed time: no later entry gets this point of time or an earlier one.
    pub fn closed(&self) -> Hlc {
        self.root().mark.clock
    }

    /// Versions below this one can no longer be read.
    pub fn compacted(&self) -> Version {
        self.root().mark.compacted
    }

    /// Versions below this one are hidden from every reader; see [`Mark::floor`].
    pub fn floor(&self) -> Version {
        self.root().mark.floor()
    }

    /// History below this version is not all here: [`Self::floor`], or more where
    /// the store was swept for a compaction that this replica, since it was opened,
    /// has not applied again.
    pub fn kept_from(&self) -> Version {
        self.floor().max(self.0.swept)
    }

    /// Its leases.
    pub fn leases(&self) -> &Leases {
        &self.root().leases
    }

    /// Monotonic milliseconds the shard's leaders have counted.
    pub fn shard_time_ms(&self) -> u64 {
        self.root().shard_time_ms
    }

    /// The time its leases run on, at a point of shard time.
    pub fn lease_time_ms(&self, shard_time_ms: u64) -> u64 {
        self.root().lease_time_ms(shard_time_ms)
    }

    /// Which clock names its versions.
    pub fn versions(&self) -> VersionKind {
        self.root().versions
    }

    /// Predicate, epoch and replicas.
    pub fn descriptor(&self) -> &ShardDescriptor {
        &self.root().descriptor
    }

    /// Voters and learners.
    pub fn configuration(&self) -> &Configuration {
        &self.root().configuration
    }

    /// Reads one key.
    ///
    /// # Errors
    /// If the key is another shard's, the version cannot be read, or the store.
    pub fn get(
        &self,
        view: &dyn View,
        key: &[u8],
        at: Option<Version>,
        head_only: bool,
    ) -> Result<Option<Item>, ReadError> {
        if !self.descriptor().predicate.owns(key) {
            return Err(ReadError::WrongShard(self.descriptor().epoch));
        }
        let stand = self.stand(view, at)?;
        Ok(self.record(&stand, key)?.map(|record| item(key, &record, !head_only)))
    }

    /// What a transaction that changes nothing comes to, as of now. It is done as apply does
    /// it, on the newest of what there is; so a view that has gone on meanwhile is refused, and
    /// the read asked again.
    ///
    /// # Errors
    /// If the view is not of this very state, and those of the store.
    pub fn look(&self, view: &dyn View, transaction: &Transaction) -> Result<Outcome, ReadError> {
        let stand = self.stand(view, None)?;
        if stand.past {
            return Err(ReadError::GoneOn { now: stand.at });
        }
        Ok(look(self.root(), self.overlay(), view, transaction)?)
    }

    /// Leases behind one, a page of them without their keys, at a point of shard time;
    /// and whether more follow.
    pub fn list_leases(&self, after: LeaseId, shard_time_ms: u64) -> (Vec<LeaseView>, bool) {
        let mut behind = self.leases().after(after);
        let page = behind.by_ref().take(LEASES_PAGE_MAX);
        let leases = page.map(|record| self.lease_view(record, shard_time_ms)).collect();
        (leases, behind.next().is_some())
    }

    /// A lease without its keys, at a point of shard time.
    pub fn lease_view(
        &self,
        LeaseRecord { id, lease }: LeaseRecord,
        shard_time_ms: u64,
    ) -> LeaseView {
        let now_ms = self.lease_time_ms(shard_time_ms);
        let remaining_ms = lease.ends_ms.saturating_sub(now_ms);
        LeaseView { lease: id, ttl_ms: lease.ttl_ms, remaining_ms, keys: Vec::new() }
    }

    /// The keys that hang on a lease, in order.
    ///
    /// # Errors
    /// Those of the store.
    pub fn lease_keys(&self, view: &dyn View, lease: LeaseId) -> Result<Vec<Vec<u8>>, ReadError> {
        let stand = self.stand(view, None)?;
        let keys = attached_keys(self.overlay(), view, lease)?;
        if !stand.past {
            return Ok(keys);
        }
        // The view may know of keys that were attached since; of those that were
        // taken off since it knows nothing, and nobody misses them.
        let mut kept = Vec::with_capacity(keys.len());
        for key in keys {
            let found = self.record(&stand, &key)?;
            if found.is_some_and(|record| record.head.lease == lease) {
                kept.push(key);
            }
        }
        Ok(kept)
    }

    /// Whether a principal may do what needs this, as of this very state.
    ///
    /// # Errors
    /// If it may not, and those of the store.
    pub fn check(
        &self,
        view: &dyn View,
        principal: &Principal,
        needs: &[Need],
    ) -> Result<(), ReadError> {
        if !self.accounts().is_enabled() && !needs.contains(&Need::Trust) {
            return Ok(());
        }
        let mut needs = needs.to_vec();
        if let Some(place) = needs.iter().position(|need| matches!(need, Need::LeasesAfter(..)))
            && let Need::LeasesAfter(access, after) = needs.swap_remove(place)
        {
            let page = self.leases().after(after).take(LEASES_PAGE_MAX);
            needs.extend(page.map(|record| Need::Lease(access, record.id)));
        }
        let judged = self.accounts().check(principal, &needs, |lease, tell| {
            for key in self.lease_keys(view, lease)? {
                if !tell(&key) {
                    break;
                }
            }
            Ok(())
        });
        judged.map_err(|denial| match denial {
            Denial::Denied(error) => error.into(),
            Denial::Unread(error) => error,
        })
    }

    /// How many keys there are.
    pub fn tally(&self) -> Tally {
        self.root().tally
    }

    /// The last restore.
    pub fn restore(&self) -> Option<&Restore> {
        self.root().restore.as_deref()
    }

    /// Whether anybody may be shown this state: none that is half restored.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn check_whole(&self) -> Result<(), ReadError> {
        let underway = self.restore().is_some_and(|restore| !restore.whole);
        if underway { Err(RestoreError::Underway.into()) } else { Ok(()) }
    }

    /// Who may do what behind the doors that ask.
    pub fn accounts(&self) -> &Accounts {
        &self.root().accounts
    }

    fn mark(&self, view: &dyn View) -> Result<Mark, ReadError> {
        let bytes = view.get(Tree::Root, &root_key(self.0.replica))?;
        Ok(Mark::read(bytes.ok_or(ReadError::Gone(self.0.replica))?)?)
    }

    /// Checks that the view fits the reader and that the version can be read.
    pub(super) fn stand<'a>(
        &self,
        view: &'a dyn View,
        at: Option<Version>,
    ) -> Result<Stand<'a>, ReadError> {
        let (asked, now) = (at, self.now());
        let stand = self.stand_at(view, at.unwrap_or(now))?;
        if stand.at > now {
            return Err(ReadError::Future { at: stand.at, now });
        }
        // A read of the present asks `latest` alone, from which nothing is swept.
        let compacted = if stand.past { self.compacted_in(view)? } else { self.compacted() };
        match asked {
            Some(at) if at < compacted => Err(ReadError::Compacted { at, compacted }),
            None if now < compacted => Err(ReadError::Overtaken { now, compacted }),
            Some(_) | None => Ok(stand),
        }
    }

    /// For what reads all that was there at this point, history from `at` on
    /// included: it can as long as no more was swept.
    pub(super) fn stand_pinned<'a>(
        &self,
        view: &'a dyn View,
        at: Version,
    ) -> Result<Stand<'a>, ReadError> {
        let stand = self.stand_at(view, self.now())?;
        let compacted = swept(view, self.0.replica)?;
        if at < compacted { Err(ReadError::Compacted { at, compacted }) } else { Ok(stand) }
    }

    /// Checks only that the view fits the reader.
    fn stand_at<'a>(&self, view: &'a dyn View, at: Version) -> Result<Stand<'a>, ReadError> {
        let mark = self.mark(view)?;
        let flushed = self.0.flushed;
        if mark.applied < flushed {
            return Err(ReadError::ViewTooOld { view: mark.applied, flushed });
        }
        let past = at < self.version() || mark.applied > self.applied().0;
        Ok(Stand { view, at, past })
    }

    /// The version after which all changes are there in this view.
    pub(super) fn floor_in(&self, view: &dyn View) -> Result<Version, ReadError> {
        let told = self.mark(view)?.floor().max(self.floor());
        Ok(told.max(swept(view, self.0.replica)?))
    }

    /// The oldest version that can be read through this view.
    pub(super) fn compacted_in(&self, view: &dyn View) -> Result<Version, ReadError> {
        let told = self.mark(view)?.compacted.max(self.compacted());
        Ok(told.max(swept(view, self.0.replica)?))
    }

    /// The record a read of `key` finds.
    fn record<'a>(
        &'a self,
        stand: &Stand<'a>,
        key: &[u8],
    ) -> Result<Option<Record<'a>>, ReadError> {
        let view = stand.view;
        if let Some(bytes) = self.overlay().get(view, Tree::Latest, key)? {
            let record = Record::read(key, bytes).map_err(|error| damaged(view, error))?;
            if record.head.modified <= stand.at {
                return Ok(record.head.kind.exists().then_some(record));
            }
        }
        if !stand.past {
            return Ok(None);
        }
        let Some(place) = self.newest_in_history(stand, key)? else { return Ok(None) };
        let bytes = self.overlay().get(view, Tree::History, &place)?.unwrap_or_default();
        let record = Record::read(key, bytes).map_err(|error| damaged(view, error))?;
        Ok(record.head.kind.exists().then_some(record))
    }

    /// Where the newest record of `key` up to the version read at lies.
    fn newest_in_history(
        &self,
        stand: &Stand<'_>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let from = history_key(key, stand.at, u32::MAX);
        let to = history_end(key);
        let mut place = None;
        let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        self.overlay().scan(stand.view, Tree::History, bounds.0, bounds.1, &mut |found, _| {
            place = Some(found.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(place)
    }
}

pub(super) fn item(key: &[u8], record: &Record<'_>, value: bool) -> Item {
    let head = &record.head;
    Item {
        key: key.to_vec(),
        value: if value { record.value.to_vec() } else { Vec::new() },
        value_bytes: record.value.len() as u64,
        created: head.created,
        modified: head.modified,
        changes: head.changes,
        modified_ms: head.time().wall().0,
        lease: head.lease,
    }
}

pub(super) fn damaged(view: &dyn View, error: RecordError) -> ReadError {
    EngineError::Damaged { store: view.store(), cause: error.to_string() }.into()
}
