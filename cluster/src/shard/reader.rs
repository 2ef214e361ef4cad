//! Reading a replica while apply and flush go on.
//!
//! A reader is the state at one applied position: overlay and root, immutable.
//! What the overlay has already handed to the store is read through a view
//! opened *afterwards*. The view may be newer than the reader; versions mend
//! that, because every read is at a version and older records lie in the
//! history. A view that is older would miss what the overlay has dropped: the
//! replica's mark in the view tells, and such a read is refused. What the view
//! has compacted is told by the same mark, so it is always checked last.
//!
//! Source: design, "overlay snapshot first, then the read transaction, then the
//! compacted version".

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use super::{
    descriptor::ShardDescriptor,
    root::{Mark, Root, RootError},
};
use crate::{
    ids::{Epoch, LogIndex, ReplicaId, Term},
    limits::{LIST_PAGE_BYTES_MAX, LIST_PAGE_MAX},
    mvcc::{
        layout::{
            change_start, history_end, history_key, history_prefix, prefix_end, read_change_key,
            read_history_key, root_key,
        },
        overlay::Overlay,
        record::{ChangeRecord, Record, RecordError, RecordKind},
        version::{Hlc, Version},
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

/// Keys in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub items: Vec<Item>,
    /// Whether more follow.
    pub more: bool,
    /// The version they were read at; later pages should ask for it.
    pub at: Version,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: Vec<u8>,
    /// The version that changed it.
    pub version: Version,
    /// Its place within that version.
    pub sub: u32,
    /// What was written.
    pub kind: RecordKind,
    /// The clock that does not name the version.
    pub other: u64,
}

/// Changes in order of version and sub-version, never parting a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The changes.
    pub changes: Vec<KeyChange>,
    /// They are complete up to here: the version to ask after next.
    pub upto: Version,
    /// Whether there are more already.
    pub more: bool,
}

/// Keys that changed, with what they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedItems {
    /// They are complete up to here: the version to ask after next.
    pub upto: Version,
    /// Key and state at that version, in key order; none if deleted.
    pub items: Vec<(Vec<u8>, Option<Item>)>,
}

#[derive(Debug)]
struct Snapshot {
    replica: ReplicaId,
    root: Root,
    overlay: Overlay,
    flushed: LogIndex,
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
    pub(super) fn new(replica: ReplicaId, root: Root, overlay: Overlay, flushed: LogIndex) -> Self {
        Self(Arc::new(Snapshot { replica, root, overlay, flushed }))
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

    /// Versions below this one may be gone.
    pub fn compacted(&self) -> Version {
        self.root().mark.compacted
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

    /// Lists the keys that begin with `prefix` and lie after `after`, at most
    /// `limit` of them (capped by [`LIST_PAGE_MAX`], and by
    /// [`LIST_PAGE_BYTES_MAX`] where values come too).
    ///
    /// # Errors
    /// If the version cannot be read, or the store.
    pub fn list(
        &self,
        view: &dyn View,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        at: Option<Version>,
        values: bool,
    ) -> Result<Page, ReadError> {
        let stand = self.stand(view, at)?;
        let span = Span::new(prefix, after);
        let mut page = Collected::new(limit.clamp(1, LIST_PAGE_MAX), values);
        self.collect_latest(&stand, &span, &mut page)?;
        if stand.past {
            let mut past = Collected::new(page.limit, values);
            self.collect_history(&stand, &span, &page, &mut past)?;
            page.merge(past);
        }
        Ok(Page { items: page.items, more: page.more, at: stand.at })
    }

    /// Changes after a version, about `limit` of them (a version is never
    /// parted, so one large batch may exceed it).
    ///
    /// # Errors
    /// If the version is compacted away, or the store.
    pub fn changes(
        &self,
        view: &dyn View,
        after: Version,
        limit: usize,
    ) -> Result<Changes, ReadError> {
        let stand = self.stand(view, None)?;
        let mark = self.mark(view)?;
        let compacted = mark.compacted.max(self.compacted());
        if after < compacted {
            return Err(ReadError::Compacted { at: after, compacted });
        }
        let mut out = Changes { changes: Vec::new(), upto: stand.at.max(after), more: false };
        let from = change_start(Version(after.0.saturating_add(1)));
        let mut fault = None;
        let (from, to) = (Bound::Included(&from[..]), Bound::Unbounded);
        self.overlay().scan(view, Tree::Changes, from, to, &mut |place, bytes| match self
            .change(place, bytes)
        {
            Ok(change) => out.push(change, stand.at, limit),
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        })?;
        match fault {
            Some(error) => Err(damaged(view, error)),
            None => Ok(out),
        }
    }

    /// The keys changed after a version with their state at the end of those
    /// changes, in key order; and the version they reach.
    ///
    /// # Errors
    /// As [`Self::changes`].
    pub fn changed_items(
        &self,
        view: &dyn View,
        after: Version,
        limit: usize,
    ) -> Result<ChangedItems, ReadError> {
        let Changes { changes, upto, .. } = self.changes(view, after, limit)?;
        let mut keys: Vec<_> = changes.into_iter().map(|change| change.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let stand = self.stand(view, Some(upto))?;
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            let item = self.record(&stand, &key)?.map(|record| item(&key, &record, true));
            items.push((key, item));
        }
        Ok(ChangedItems { upto, items })
    }

    /// `None` for a key of another replica in the same store.
    fn change(&self, place: &[u8], bytes: &[u8]) -> Result<Option<KeyChange>, RecordError> {
        let (version, sub, key) = read_change_key(place).ok_or(RecordError::Short)?;
        let ChangeRecord { kind, other, .. } = ChangeRecord::read(place, bytes)?;
        let owned = self.descriptor().predicate.owns(key);
        Ok(owned.then(|| KeyChange { key: key.to_vec(), version, sub, kind, other }))
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
        let mark = self.mark(view)?;
        let flushed = self.0.flushed;
        if mark.applied < flushed {
            return Err(ReadError::ViewTooOld { view: mark.applied, flushed });
        }
        let now = self.now();
        let at = at.unwrap_or(now);
        if at > now {
            return Err(ReadError::Future { at, now });
        }
        let compacted = mark.compacted.max(self.compacted());
        if at < compacted {
            return Err(ReadError::Compacted { at, compacted });
        }
        let past = at < self.version() || mark.applied > self.applied().0;
        Ok(Stand { view, at, past })
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

    /// Keys whose newest record is old enough.
    fn collect_latest(
        &self,
        stand: &Stand<'_>,
        span: &Span,
        page: &mut Collected,
    ) -> Result<(), ReadError> {
        let mut fault = None;
        let (from, to) = span.bounds();
        self.overlay().scan(stand.view, Tree::Latest, from, to, &mut |key, bytes| {
            if !self.descriptor().predicate.owns(key) {
                return ControlFlow::Continue(());
            }
            match Record::read(key, bytes) {
                Ok(record) if record.head.modified > stand.at || !record.head.kind.exists() => {
                    ControlFlow::Continue(())
                }
                Ok(record) => page.push(key, &record),
                Err(error) => {
                    fault = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        fault.map_or(Ok(()), |error| Err(damaged(stand.view, error)))
    }

    /// Keys changed or deleted since, as they were. Keys in `present` are left
    /// out; beyond its last key nothing is needed if it is full.
    fn collect_history(
        &self,
        stand: &Stand<'_>,
        span: &Span,
        present: &Collected,
        past: &mut Collected,
    ) -> Result<(), ReadError> {
        let to = match (present.more, present.items.last()) {
            (true, Some(last)) => Some(history_end(&last.key)),
            (true | false, _) => span.to.as_deref().map(history_prefix),
        };
        let mut from = Bound::Included(history_prefix(&span.from));
        while let Some(key) = self.next_in_history(stand, &from, to.as_deref())? {
            let known = present.items.binary_search_by(|item| item.key.cmp(&key)).is_ok();
            let wanted = !known && span.contains(&key) && self.descriptor().predicate.owns(&key);
            if wanted
                && let Some(record) = self.record(stand, &key)?
                && past.push(&key, &record).is_break()
            {
                return Ok(());
            }
            from = Bound::Excluded(history_end(&key));
        }
        Ok(())
    }

    /// The first user key in the history between the bounds.
    fn next_in_history(
        &self,
        stand: &Stand<'_>,
        from: &Bound<Vec<u8>>,
        to: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let mut next = None;
        let from = from.as_ref().map(Vec::as_slice);
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        self.overlay().scan(stand.view, Tree::History, from, to, &mut |place, _| {
            next = Some(read_history_key(place).map(|(key, ..)| key));
            ControlFlow::Break(())
        })?;
        match next {
            None => Ok(None),
            Some(Some(key)) => Ok(Some(key)),
            Some(None) => Err(damaged(stand.view, RecordError::Short)),
        }
    }
}

impl Changes {
    fn push(&mut self, change: Option<KeyChange>, now: Version, limit: usize) -> ControlFlow<()> {
        let Some(change) = change else { return ControlFlow::Continue(()) };
        if change.version > now {
            return ControlFlow::Break(());
        }
        if let Some(last) = self.changes.last()
            && self.changes.len() >= limit
            && last.version != change.version
        {
            self.upto = last.version;
            self.more = true;
            return ControlFlow::Break(());
        }
        self.changes.push(change);
        ControlFlow::Continue(())
    }
}

/// A range of user keys.
struct Span {
    from: Vec<u8>,
    /// Whether `from` itself is left out.
    after: bool,
    to: Option<Vec<u8>>,
}

impl Span {
    fn new(prefix: &[u8], after: Option<&[u8]>) -> Self {
        let after = after.filter(|after| *after >= prefix);
        Self {
            from: after.unwrap_or(prefix).to_vec(),
            after: after.is_some(),
            to: prefix_end(prefix),
        }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = if self.after {
            Bound::Excluded(&self.from[..])
        } else {
            Bound::Included(&self.from[..])
        };
        (from, self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    fn contains(&self, key: &[u8]) -> bool {
        std::ops::RangeBounds::<[u8]>::contains::<[u8]>(&self.bounds(), key)
    }
}

/// A page being filled.
struct Collected {
    items: Vec<Item>,
    limit: usize,
    values: bool,
    bytes: usize,
    more: bool,
}

impl Collected {
    fn new(limit: usize, values: bool) -> Self {
        Self { items: Vec::new(), limit, values, bytes: 0, more: false }
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.limit || (self.values && self.bytes >= LIST_PAGE_BYTES_MAX)
    }

    fn push(&mut self, key: &[u8], record: &Record<'_>) -> ControlFlow<()> {
        if self.is_full() {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.bytes += key.len() + record.value.len();
        self.items.push(item(key, record, self.values));
        ControlFlow::Continue(())
    }

    /// Takes in another page of other keys; keeps what both cover completely.
    fn merge(&mut self, other: Self) {
        let covered = [&*self, &other]
            .into_iter()
            .filter(|page| page.more)
            .filter_map(|page| page.items.last().map(|item| item.key.clone()))
            .min();
        self.more |= other.more;
        self.items.extend(other.items);
        self.items.sort_by(|a, b| a.key.cmp(&b.key));
        if let Some(covered) = covered {
            self.items.retain(|item| item.key <= covered);
        }
        self.cut();
    }

    fn cut(&mut self) {
        let mut bytes = 0;
        let mut keep = 0;
        for item in &self.items {
            if keep >= self.limit || (self.values && bytes >= LIST_PAGE_BYTES_MAX) {
                break;
            }
            bytes += item.key.len() + item.value.len();
            keep += 1;
        }
        self.more |= keep < self.items.len();
        self.items.truncate(keep);
    }
}

fn item(key: &[u8], record: &Record<'_>, value: bool) -> Item {
    let head = &record.head;
    Item {
        key: key.to_vec(),
        value: if value { record.value.to_vec() } else { Vec::new() },
        value_bytes: record.value.len() as u64,
        created: head.created,
        modified: head.modified,
        changes: head.changes,
        modified_ms: head.time().wall().0,
    }
}

pub(super) fn damaged(view: &dyn View, error: RecordError) -> ReadError {
    EngineError::Damaged { store: view.store(), cause: error.to_string() }.into()
}
