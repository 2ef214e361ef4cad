//! Copying a replica while it is written.
//!
//! A snapshot is no copy but a *pin*: a reader kept aside. Each piece reads on
//! from a position in a short transaction of its own; what was overwritten since
//! is found in the history, so the pieces together are the state at the pin.
//! Records come in key order, the newest version of a key first, and leases after
//! them, in order of id, from the pin itself, which holds them in memory. A position
//! is what was sent last, a record's history key or a lease, behind the bytes sent so
//! far.
//!
//! The receiver writes each piece together with its progress, so a receiver that
//! is killed goes on where its store stands. The root record comes last: a
//! store without one is not a replica yet.
//!
//! History that nobody can read at the pin's floor is left out,
//! whether or not the sender has swept it; what it holds above that is kept for
//! as long as the pin lives, also when compaction moves on. A sender may have swept
//! more than its pin knows to be compacted: it lost power before the compaction was
//! in its store, and cannot apply it again before the receiver makes its quorum
//! whole. Then it sends what is left, which is all that can be read above, and the
//! receiver notes the same in its store.
//!
//! Invariant: the received state has the same [`Reader::state_hash`].

mod receiver;

pub use receiver::SnapshotReceiver;

use std::ops::{Bound, ControlFlow};

use super::{
    leases::LeaseRecord,
    reader::{ReadError, Reader, Stand, damaged},
    root::RootError,
};
use crate::{
    ids::{LeaseId, LogIndex, ReplicaId, Term},
    mvcc::{
        layout::{change_key, history_end, history_key, lease_record_key, read_history_key},
        record::{Record, RecordError, RecordKind},
        version::Version,
    },
    ports::engine::{EngineError, Tree, View},
    request::{SnapshotPiece, SnapshotRecord},
};

/// Bytes of a position before what was sent last: how much was sent, and what that is.
const SENT_BYTES: usize = 8;
/// What was sent last is a record.
const SENT_RECORD: u8 = 1;
/// It is a lease.
const SENT_LEASE: u8 = 2;

/// A state kept aside to be sent.
#[derive(Clone, Debug)]
pub struct PinnedSnapshot {
    reader: Reader,
    root: Vec<u8>,
    bytes_estimate: u64,
}

impl PinnedSnapshot {
    /// Pins what `reader` sees. `bytes_estimate` only serves progress bars.
    pub fn new(reader: Reader, bytes_estimate: u64) -> Self {
        let root = reader.root().encode(ReplicaId(0));
        Self { reader, root, bytes_estimate }
    }

    /// Last position the snapshot contains, and its term.
    pub fn applied(&self) -> (LogIndex, Term) {
        self.reader.applied()
    }

    /// The pinned state.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

/// Reads the piece that follows the position `after` (empty at the beginning),
/// about `bytes_max` bytes and at least one record or lease.
///
/// # Errors
/// If the position is none, the pin was compacted away, or the store's.
pub fn snapshot_piece(
    pin: &PinnedSnapshot,
    view: &dyn View,
    after: &[u8],
    bytes_max: usize,
) -> Result<SnapshotPiece, SnapshotError> {
    let (sent, after) = read_position(after)?;
    let kept_from = pin.reader.kept_from();
    let stand = pin.reader.stand_pinned(view, kept_from)?;
    let (place, lease) = match &after {
        Sent::Nothing => (None, None),
        Sent::Record(place) => (Some(place.clone()), None),
        Sent::Lease(lease) => (None, Some(*lease)),
    };
    let Stretch { records, last } = match lease {
        None => stretch(&pin.reader, (&stand, kept_from), place, bytes_max)?,
        Some(_) => Stretch { records: Vec::new(), last: true },
    };
    let bytes: usize = records.iter().map(record_bytes).sum();
    let (leases, last) = if last {
        leases_after(&pin.reader, lease.unwrap_or_default(), bytes_max.saturating_sub(bytes))
    } else {
        (Vec::new(), false)
    };
    let sent = sent + (bytes + leases.len() * size_of::<LeaseRecord>()) as u64;
    let after = after.behind(&records, &leases);
    Ok(SnapshotPiece {
        root: pin.root.clone(),
        kept_from,
        records,
        leases,
        position: after.position(sent),
        last,
        progress: (sent, pin.bytes_estimate.max(sent)),
    })
}

/// The leases behind one, as many as there is room for and at least one; and whether
/// these are all.
fn leases_after(reader: &Reader, after: LeaseId, bytes_max: usize) -> (Vec<LeaseRecord>, bool) {
    let fit = (bytes_max / size_of::<LeaseRecord>()).max(1);
    let mut behind = reader.leases().after(after);
    let leases = behind.by_ref().take(fit).collect();
    (leases, behind.next().is_none())
}

fn record_bytes(record: &SnapshotRecord) -> usize {
    record.key.len() + record.record.len()
}

fn place_of(record: &SnapshotRecord) -> Vec<u8> {
    history_key(&record.key, record.version, record.sub)
}

/// What was sent last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    Record(Place),
    Lease(LeaseId),
}

impl Sent {
    /// What it is once these were sent too.
    fn behind(self, records: &[SnapshotRecord], leases: &[LeaseRecord]) -> Self {
        match (records.last(), leases.last()) {
            (_, Some(lease)) => Self::Lease(lease.id),
            (Some(record), None) => Self::Record(Place::of(record)),
            (None, None) => self,
        }
    }

    fn position(&self, bytes: u64) -> Vec<u8> {
        let mut position = bytes.to_be_bytes().to_vec();
        match self {
            Self::Nothing => return Vec::new(),
            Self::Record(place) => {
                position.push(SENT_RECORD);
                position.extend_from_slice(&place.history_key);
            }
            Self::Lease(lease) => {
                position.push(SENT_LEASE);
                position.extend_from_slice(&lease.0.to_be_bytes());
            }
        }
        position
    }
}

/// A position as bytes sent and what was sent last.
fn read_position(position: &[u8]) -> Result<(u64, Sent), SnapshotError> {
    if position.is_empty() {
        return Ok((0, Sent::Nothing));
    }
    let read = || {
        let (bytes, rest) = position.split_first_chunk::<SENT_BYTES>()?;
        let (kind, place) = rest.split_first()?;
        let sent = match *kind {
            SENT_RECORD => {
                let (key, version, _) = read_history_key(place)?;
                Sent::Record(Place { history_key: place.to_vec(), key, version })
            }
            SENT_LEASE => Sent::Lease(LeaseId(u64::from_be_bytes(place.try_into().ok()?))),
            _ => return None,
        };
        Some((u64::from_be_bytes(*bytes), sent))
    };
    read().ok_or_else(|| SnapshotError::Invalid("the position is none".to_owned()))
}

/// The place of one record among all records of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    history_key: Vec<u8>,
    key: Vec<u8>,
    version: Version,
}

impl Place {
    fn of(record: &SnapshotRecord) -> Self {
        let (history_key, key) = (place_of(record), record.key.clone());
        Self { history_key, key, version: record.version }
    }
}

/// Records in order, and whether no more follow.
struct Stretch {
    records: Vec<SnapshotRecord>,
    last: bool,
}

/// Records of one tree, in order, and whether the tree has more.
struct Found {
    records: Vec<(Vec<u8>, SnapshotRecord)>,
    cut: bool,
}

/// All versions after `after` that the reader sees and can read at a version or
/// later, about `bytes_max` bytes.
/// Both trees are read in key order, merged as far as both were read, and cut.
fn stretch(
    reader: &Reader,
    (stand, at): (&Stand<'_>, Version),
    after: Option<Place>,
    bytes_max: usize,
) -> Result<Stretch, ReadError> {
    let passed = after.as_ref().filter(|after| after.version <= at);
    let mut floor = Floor { reader, stand, at, passed: passed.map(|after| after.key.clone()) };
    let (key, place) = after.map(|place| (place.key, place.history_key)).unzip();
    let from = |bytes: &'_ Option<Vec<u8>>| match bytes {
        Some(bytes) => Bound::Excluded(bytes.clone()),
        None => Bound::Unbounded,
    };
    let latest = floor.collect(Tree::Latest, &from(&key), None, bytes_max)?;
    let end = latest.records.last().filter(|_| latest.cut).map(|(_, last)| history_end(&last.key));
    let history = floor.collect(Tree::History, &from(&place), end.as_deref(), bytes_max)?;
    let mut last = !latest.cut && !history.cut;
    let covered = history.records.last().filter(|_| history.cut).map(|(place, _)| place.clone());
    let mut records = latest.records;
    records.extend(history.records);
    records.sort_by(|a, b| a.0.cmp(&b.0));
    // A newer view has moved to the history what the overlay still shows as latest.
    records.dedup_by(|a, b| a.0 == b.0);
    if let Some(covered) = covered {
        records.retain(|(place, _)| *place <= covered);
    }
    let mut bytes = 0;
    let fits = records.iter().take_while(|(_, record)| {
        let room = bytes <= bytes_max;
        bytes += record_bytes(record);
        room
    });
    let keep = fits.count();
    last &= keep == records.len();
    records.truncate(keep);
    Ok(Stretch { records: records.into_iter().map(|(_, record)| record).collect(), last })
}

/// Tells what of a replica's records can be read at the floor or
/// later, as they pass by in order.
struct Floor<'r> {
    reader: &'r Reader,
    stand: &'r Stand<'r>,
    at: Version,
    /// The key of which everything readable has passed by.
    passed: Option<Vec<u8>>,
}

impl Floor<'_> {
    fn collect(
        &mut self,
        tree: Tree,
        from: &Bound<Vec<u8>>,
        to: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Found, ReadError> {
        let (reader, stand) = (self.reader, self.stand);
        let mut found = Found { records: Vec::new(), cut: false };
        let mut bytes = 0;
        let mut fault = None;
        let from = from.as_ref().map(Vec::as_slice);
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        reader.overlay().scan(stand.view, tree, from, to, &mut |place, stored| {
            let record = match self.wanted(tree, place, stored) {
                Ok(Some(record)) => record,
                Ok(None) => return ControlFlow::Continue(()),
                Err(error) => {
                    fault = Some(error);
                    return ControlFlow::Break(());
                }
            };
            if bytes > bytes_max {
                found.cut = true;
                return ControlFlow::Break(());
            }
            bytes += record_bytes(&record);
            found.records.push((place_of(&record), record));
            ControlFlow::Continue(())
        })?;
        fault.map_or(Ok(found), Err)
    }

    /// The record that lies here, if it belongs to the state and can be read.
    fn wanted(
        &mut self,
        tree: Tree,
        place: &[u8],
        stored: &[u8],
    ) -> Result<Option<SnapshotRecord>, ReadError> {
        let (reader, stand) = (self.reader, self.stand);
        let (kind, record) =
            read(tree, place, stored).map_err(|error| damaged(stand.view, error))?;
        if record.version > stand.at || !reader.descriptor().predicate.owns(&record.key) {
            return Ok(None);
        }
        // A restore that goes on above the pin brings keys, not versions.
        if reader.restore().is_some_and(|restore| restore.lacks(&record.key)) {
            return Ok(None);
        }
        if tree != Tree::History || record.version > self.at {
            return Ok(Some(record));
        }
        if self.passed.as_deref() == Some(&record.key[..]) {
            return Ok(None);
        }
        self.passed = Some(record.key.clone());
        Ok((kind.exists() && !self.is_hidden(&record.key)?).then_some(record))
    }

    /// Whether the newest version of a key hides all its history at the
    /// floor and later.
    fn is_hidden(&self, key: &[u8]) -> Result<bool, ReadError> {
        let view = self.stand.view;
        let Some(bytes) = self.reader.overlay().get(view, Tree::Latest, key)? else {
            return Ok(false);
        };
        let head = Record::read(key, bytes).map_err(|error| damaged(view, error))?.head;
        Ok(head.modified <= self.at)
    }
}

fn read(
    tree: Tree,
    place: &[u8],
    stored: &[u8],
) -> Result<(RecordKind, SnapshotRecord), RecordError> {
    let key = match tree {
        Tree::History => read_history_key(place).ok_or(RecordError::Short)?.0,
        Tree::Latest | Tree::Changes | Tree::Leases | Tree::Root => place.to_vec(),
    };
    let head = Record::read(&key, stored)?.head;
    let (version, sub, record) = (head.modified, head.sub, stored.to_vec());
    Ok((head.kind, SnapshotRecord { key, version, sub, record }))
}

/// Why a snapshot cannot be sent or received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The root record that came cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// What came is no piece that can follow.
    #[error("invalid snapshot piece: {0}")]
    Invalid(String),
    /// The piece is of another pin than those before: begin again in an empty store.
    #[error("the piece is of another snapshot than those before")]
    OtherSnapshot,
}

impl Reader {
    /// A hash over everything a replica must share with its peers at the same
    /// applied position: every version of every key that can be read, the
    /// changes that can be asked for, leases, and the root. Where a byte lies (overlay,
    /// store, which tree) does not matter, nor how far history was swept.
    ///
    /// # Errors
    /// Those of the store; and if more was swept than this reader knows to be
    /// compacted: one kept since before, or one that has not applied again what a
    /// power cut took.
    pub fn state_hash(&self, view: &dyn View) -> Result<u128, ReadError> {
        /// Records are hashed in stretches of about so many bytes.
        const STRETCH_BYTES: usize = 1 << 20;
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let floor = self.floor();
        let stand = self.stand_pinned(view, floor)?;
        let mut after = None;
        loop {
            let Stretch { records, last } = stretch(self, (&stand, floor), after, STRETCH_BYTES)?;
            for record in &records {
                hash.update(&place_of(record));
                hash.update(&record.record);
            }
            after = records.last().map(Place::of);
            if last || after.is_none() {
                break;
            }
        }
        let changes = self.changes_from(&stand, floor, usize::MAX)?;
        for change in changes.changes {
            hash.update(&change_key(change.version, change.sub, &change.key));
            hash.update(&[change.kind as u8]);
            hash.update(&change.other.to_le_bytes());
        }
        for LeaseRecord { id, lease } in self.leases().after(LeaseId(0)) {
            hash.update(&lease_record_key(ReplicaId(0), id));
            hash.update(&lease.ttl_ms.to_le_bytes());
            hash.update(&lease.ends_ms.to_le_bytes());
            hash.update(&lease.keys.to_le_bytes());
        }
        hash.update(&self.root().encode(ReplicaId(0)));
        Ok(hash.digest128())
    }
}
