//! The changes of one command, collected before any of them takes effect.
//!
//! A command is all or nothing even when the engine fails in its middle, so
//! its changes gather here, seeing each other, and enter the overlay together
//! at the end. All share one version; each has its own sub-version.
//!
//! What is changed, and what that moves in the trees by which keys are found, is told to the
//! log at level `debug`: keys, never values.

mod scan;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    layout::{change_key, history_key, lease_key},
    overlay::{Change, Overlay},
    record::{ChangeRecord, Head, Record, RecordError, RecordKind, write_attachment},
    tally::TallyChange,
    version::{Version, VersionKind},
};
use crate::{
    ids::LeaseId,
    ports::engine::{EngineError, Tree, View},
};

/// The names a command gives to its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which clock names the version.
    pub versions: VersionKind,
    /// The version.
    pub version: Version,
    /// The other clock.
    pub other: u64,
}

/// What lies below a command.
#[derive(Clone, Copy)]
struct Below<'a> {
    overlay: &'a Overlay,
    view: &'a dyn View,
}

impl Below<'_> {
    fn damaged(&self, error: RecordError) -> EngineError {
        EngineError::Damaged { store: self.view.store(), cause: error.to_string() }
    }
}

/// Changes of one command.
pub struct Draft<'a> {
    below: Below<'a>,
    stamp: Stamp,
    sub: u32,
    latest: BTreeMap<Bytes, Option<Bytes>>,
    others: Vec<Change>,
    /// How many keys more, or fewer, hang on each lease.
    attached: BTreeMap<LeaseId, i64>,
    tally: TallyChange,
}

impl std::fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft")
            .field("stamp", &self.stamp)
            .field("sub", &self.sub)
            .finish_non_exhaustive()
    }
}

impl<'a> Draft<'a> {
    /// Begins a command that will be named `stamp` if it changes anything.
    pub fn new(overlay: &'a Overlay, view: &'a dyn View, stamp: Stamp) -> Self {
        let below = Below { overlay, view };
        let (latest, others, attached) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let tally = TallyChange::default();
        Self { below, stamp, sub: 0, latest, others, attached, tally }
    }

    /// The stored bytes of the newest version of `key`.
    fn stored(&self, key: &[u8]) -> Result<Option<Stored<'_>>, EngineError> {
        if let Some(staged) = self.latest.get(key) {
            return Ok(staged.as_ref().map(Stored::Held));
        }
        match self.below.overlay.held(Tree::Latest, key) {
            Some(held) => Ok(held.as_ref().map(Stored::Held)),
            None => Ok(self.below.view.get(Tree::Latest, key)?.map(Stored::Below)),
        }
    }

    /// The newest version of `key`, this command's own changes included.
    ///
    /// # Errors
    /// Those of the engine, and damage of the record.
    pub fn get(&self, key: &[u8]) -> Result<Option<Record<'_>>, EngineError> {
        let Some(stored) = self.stored(key)? else { return Ok(None) };
        let bytes = match stored {
            Stored::Held(bytes) => bytes,
            Stored::Below(bytes) => bytes,
        };
        Record::read(key, bytes).map(Some).map_err(|error| self.below.damaged(error))
    }

    /// Writes a value that hangs on a lease; on none if that is zero.
    ///
    /// # Errors
    /// Those of the engine, and damage of the record replaced.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: LeaseId) -> Result<(), EngineError> {
        let old = self.retire(key)?;
        self.tally.note(key.len(), old.map(|(_, bytes)| bytes), Some(value.len()));
        let old = old.map(|(head, _)| head);
        self.attach(key, old.map_or(LeaseId(0), |old| old.lease), lease);
        let head = Head {
            kind: RecordKind::Value,
            versions: self.stamp.versions,
            created: old.map_or(self.stamp.version, |old| old.created),
            modified: self.stamp.version,
            sub: self.sub,
            changes: old.map_or(1, |old| old.changes + 1),
            lease,
            other: self.stamp.other,
        };
        let record = Bytes::from(Record { head, value }.write(key));
        tracing::debug!(
            key = %key.escape_ascii(),
            version = %head.modified,
            created = %head.created,
            changes = head.changes,
            lease = lease.0,
            value_bytes = value.len(),
            "key put"
        );
        self.note(key, RecordKind::Value);
        self.latest.insert(Bytes::copy_from_slice(key), Some(record));
        Ok(())
    }

    /// Deletes a key; whether there was one.
    ///
    /// # Errors
    /// Those of the engine, and damage of the record deleted.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        let Some((old, bytes)) = self.retire(key)? else { return Ok(false) };
        self.tally.note(key.len(), Some(bytes), None);
        self.attach(key, old.lease, LeaseId(0));
        let head = Head {
            kind: RecordKind::Tombstone,
            versions: self.stamp.versions,
            created: Version(0),
            modified: self.stamp.version,
            sub: self.sub,
            changes: 0,
            lease: LeaseId(0),
            other: self.stamp.other,
        };
        let place = history_key(key, head.modified, head.sub);
        let record = Record { head, value: &[] }.write(key);
        tracing::debug!(key = %key.escape_ascii(), version = %head.modified, "key deleted");
        self.push(Tree::History, place, Some(record.into()));
        self.note(key, RecordKind::Tombstone);
        self.latest.insert(Bytes::copy_from_slice(key), None);
        Ok(true)
    }

    /// Moves the newest version of a key, if any, into its history; how large its
    /// value was.
    fn retire(&mut self, key: &[u8]) -> Result<Option<(Head, usize)>, EngineError> {
        let Some(stored) = self.stored(key)? else { return Ok(None) };
        let bytes = match stored {
            Stored::Held(bytes) => bytes.clone(),
            Stored::Below(bytes) => Bytes::copy_from_slice(bytes),
        };
        let record = Record::read(key, &bytes).map_err(|error| self.below.damaged(error))?;
        let (head, value_bytes) = (record.head, record.value.len());
        self.push(Tree::History, history_key(key, head.modified, head.sub), Some(bytes));
        Ok(Some((head, value_bytes)))
    }

    /// Takes a key from one lease to another.
    fn attach(&mut self, key: &[u8], from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if from != LeaseId(0) {
            self.push(Tree::Leases, lease_key(from, key), None);
            *self.attached.entry(from).or_default() -= 1;
        }
        if to != LeaseId(0) {
            let place = lease_key(to, key);
            let entry = write_attachment(&place);
            self.push(Tree::Leases, place, Some(Bytes::copy_from_slice(&entry)));
            *self.attached.entry(to).or_default() += 1;
        }
    }

    fn note(&mut self, key: &[u8], kind: RecordKind) {
        let place = change_key(self.stamp.version, self.sub, key);
        let change = ChangeRecord { kind, versions: self.stamp.versions, other: self.stamp.other };
        let bytes = change.write(&place);
        self.push(Tree::Changes, place, Some(bytes.into()));
        self.sub += 1;
    }

    fn push(&mut self, tree: Tree, key: Vec<u8>, value: Option<Bytes>) {
        let gone = value.is_none();
        tracing::debug!(?tree, place = %key.escape_ascii(), gone, "index updated");
        self.others.push(Change { tree, key: key.into(), value });
    }

    /// How many keys more, or fewer, hang on each lease.
    pub fn attached(&self) -> &BTreeMap<LeaseId, i64> {
        &self.attached
    }

    /// What it adds to the tally of the shard.
    pub fn tally(&self) -> TallyChange {
        self.tally
    }

    /// How many keys were changed, counting repetitions.
    pub fn changes(&self) -> u32 {
        self.sub
    }

    /// Visits this command's own newest values under `prefix`, in key order.
    pub fn staged(&self, prefix: &[u8]) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        let prefix = prefix.to_vec();
        self.latest
            .range::<[u8], _>((std::ops::Bound::Included(&prefix[..]), std::ops::Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(key, value)| (key, value.as_ref()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// All changes, ready for the overlay.
    pub fn finish(self) -> Vec<Change> {
        let mut changes = self.others;
        for (key, value) in self.latest {
            changes.push(Change { tree: Tree::Latest, key, value });
        }
        changes
    }
}

enum Stored<'t> {
    /// In memory: staged or in the overlay.
    Held(&'t Bytes),
    /// In the store.
    Below(&'t [u8]),
}
