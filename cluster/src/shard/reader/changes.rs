//! Changes: what happened after a version, in the order it happened.
//!
//! Watches, incremental backup and the nodes' copies of the catalog catch up
//! from here. A version is never parted, so whoever asks again after
//! [`Changes::upto`] misses nothing and sees nothing twice.

use std::ops::{Bound, ControlFlow};

use super::{ReadError, Reader, Stand, damaged, item};
use crate::{
    mvcc::{
        layout::{change_start, read_change_key},
        record::{ChangeRecord, RecordError, RecordKind},
        version::{Hlc, Version, VersionKind},
    },
    ports::engine::{Tree, View},
    request::Item,
};

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

/// The version up to which the items are complete, and in key order each key
/// that changed with its state at that version; none if it was deleted.
pub type ChangedItems = (Version, Vec<(Vec<u8>, Option<Item>)>);

impl Reader {
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
        self.check_after(view, after)?;
        self.changes_from(&stand, after, limit)
    }

    /// Checks that all changes after a version are there.
    pub(super) fn check_after(&self, view: &dyn View, after: Version) -> Result<(), ReadError> {
        if after >= self.floor_in(view)? {
            return Ok(());
        }
        let (at, compacted) = (Version(after.0 + 1), self.compacted_in(view)?);
        Err(ReadError::Compacted { at, compacted })
    }

    /// The same, of changes that are known to be there.
    pub(in crate::shard) fn changes_from(
        &self,
        stand: &Stand<'_>,
        after: Version,
        limit: usize,
    ) -> Result<Changes, ReadError> {
        let view = stand.view;
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

    /// The newest version written no later than `time`, but at least the
    /// compacted one. Counted versions carry the time in their changes and have
    /// no gaps, so it is found by halving.
    ///
    /// # Errors
    /// Those of the store.
    pub fn version_at(&self, view: &dyn View, time: Hlc) -> Result<Version, ReadError> {
        let (mut low, mut high) = (self.compacted_in(view)?.0, self.version().0);
        if self.versions() == VersionKind::Hybrid {
            return Ok(Version(time.0.clamp(low, self.now().0.max(low))));
        }
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match self.time_of(view, Version(middle))? {
                Some(written) if written > time => high = middle - 1,
                Some(_) | None => low = middle,
            }
        }
        Ok(Version(low))
    }

    /// When a counted version was written.
    fn time_of(&self, view: &dyn View, version: Version) -> Result<Option<Hlc>, ReadError> {
        let mut found = None;
        let from = change_start(version);
        let (from, to) = (Bound::Included(&from[..]), Bound::Unbounded);
        self.overlay().scan(view, Tree::Changes, from, to, &mut |place, bytes| {
            found = Some(ChangeRecord::read(place, bytes).map(|change| Hlc(change.other)));
            ControlFlow::Break(())
        })?;
        found.transpose().map_err(|error| damaged(view, error))
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
        Ok((upto, items))
    }

    /// `None` for a key of another replica in the same store.
    pub(super) fn change(
        &self,
        place: &[u8],
        bytes: &[u8],
    ) -> Result<Option<KeyChange>, RecordError> {
        let (version, sub, key) = read_change_key(place).ok_or(RecordError::Short)?;
        let ChangeRecord { kind, other, .. } = ChangeRecord::read(place, bytes)?;
        let owned = self.descriptor().predicate.owns(key);
        Ok(owned.then(|| KeyChange { key: key.to_vec(), version, sub, kind, other }))
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
