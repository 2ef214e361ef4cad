//! Changes: what happened after a version, in the order it happened.
//!
//! Watches, incremental backup and the nodes' copies of the catalog catch up
//! from here. A version is never parted, so whoever asks again after
//! [`Changes::upto`] misses nothing and sees nothing twice.

use std::ops::{Bound, ControlFlow};

use super::{ReadError, Reader, damaged, item};
use crate::{
    mvcc::{
        layout::{change_start, read_change_key},
        record::{ChangeRecord, RecordError, RecordKind},
        version::Version,
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
        Ok((upto, items))
    }

    /// `None` for a key of another replica in the same store.
    fn change(&self, place: &[u8], bytes: &[u8]) -> Result<Option<KeyChange>, RecordError> {
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
