//! Copying a replica while it is written.
//!
//! A snapshot is no copy but a *pin*: a reader kept aside. Each piece reads on
//! from a position in a short transaction of its own; what was overwritten since
//! is found in the history, so the pieces together are the state at the pin.
//! Records come in key order, the newest version of a key first; a position is
//! the history key of the last record sent, behind the bytes sent so far.
//!
//! The receiver writes each piece together with its progress, so a receiver that
//! is killed goes on where its store stands. The root record comes last: a
//! store without one is not a replica yet.
//!
//! Invariant: the received state has the same [`Reader::state_hash`].

use std::ops::{Bound, ControlFlow};

use super::{
    reader::{ReadError, Reader, Stand, damaged},
    root::{Root, RootError},
};
use crate::{
    ids::{LogIndex, ReplicaId, Term},
    mvcc::{
        layout::{change_key, history_end, history_key, progress_key, read_history_key, root_key},
        record::{ChangeRecord, Record, RecordError},
    },
    ports::engine::{EngineError, Tree, View, Write},
    request::{SnapshotPiece, SnapshotRecord},
};

/// Version of the progress record.
const PROGRESS_VERSION: u16 = 1;
/// Bytes of the progress record before the position.
const PROGRESS_HEADER_BYTES: usize = 20;
/// Bytes of a position before the history key: how much was sent.
const SENT_BYTES: usize = 8;

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
/// about `bytes_max` bytes and at least one record.
///
/// # Errors
/// If the position is none, the pin was compacted away, or the store's.
pub fn snapshot_piece(
    pin: &PinnedSnapshot,
    view: &dyn View,
    after: &[u8],
    bytes_max: usize,
) -> Result<SnapshotPiece, SnapshotError> {
    let (sent, place) = read_position(after)?;
    let stand = pin.reader.stand(view, Some(pin.reader.now()))?;
    let Stretch { records, last } = stretch(&pin.reader, &stand, place, bytes_max)?;
    let bytes: usize = records.iter().map(record_bytes).sum();
    let sent = sent + bytes as u64;
    let position = match records.last() {
        Some(record) => write_position(sent, record),
        None => after.to_vec(),
    };
    Ok(SnapshotPiece {
        root: pin.root.clone(),
        records,
        position,
        last,
        progress: (sent, pin.bytes_estimate.max(sent)),
    })
}

fn record_bytes(record: &SnapshotRecord) -> usize {
    record.key.len() + record.record.len()
}

fn place_of(record: &SnapshotRecord) -> Vec<u8> {
    history_key(&record.key, record.version, record.sub)
}

fn write_position(sent: u64, record: &SnapshotRecord) -> Vec<u8> {
    let mut position = sent.to_be_bytes().to_vec();
    position.extend(place_of(record));
    position
}

/// A position as bytes sent and history key.
fn read_position(position: &[u8]) -> Result<(u64, Option<Place>), SnapshotError> {
    if position.is_empty() {
        return Ok((0, None));
    }
    let invalid = || SnapshotError::Invalid("the position is none".to_owned());
    let (sent, place) = position.split_first_chunk::<SENT_BYTES>().ok_or_else(invalid)?;
    let (key, ..) = read_history_key(place).ok_or_else(invalid)?;
    Ok((u64::from_be_bytes(*sent), Some(Place { history_key: place.to_vec(), key })))
}

/// The place of one record among all records of a replica.
#[derive(Clone, Debug)]
struct Place {
    history_key: Vec<u8>,
    key: Vec<u8>,
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

/// All versions after `after` that the reader sees, about `bytes_max` bytes.
/// Both trees are read in key order, merged as far as both were read, and cut.
fn stretch(
    reader: &Reader,
    stand: &Stand<'_>,
    after: Option<Place>,
    bytes_max: usize,
) -> Result<Stretch, ReadError> {
    let (key, place) = after.map(|place| (place.key, place.history_key)).unzip();
    let from = |bytes: &'_ Option<Vec<u8>>| match bytes {
        Some(bytes) => Bound::Excluded(bytes.clone()),
        None => Bound::Unbounded,
    };
    let latest = collect(reader, stand, Tree::Latest, &from(&key), None, bytes_max)?;
    let end = latest.records.last().filter(|_| latest.cut).map(|(_, last)| history_end(&last.key));
    let history = collect(reader, stand, Tree::History, &from(&place), end.as_deref(), bytes_max)?;
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

fn collect(
    reader: &Reader,
    stand: &Stand<'_>,
    tree: Tree,
    from: &Bound<Vec<u8>>,
    to: Option<&[u8]>,
    bytes_max: usize,
) -> Result<Found, ReadError> {
    let mut found = Found { records: Vec::new(), cut: false };
    let mut bytes = 0;
    let mut fault = None;
    let from = from.as_ref().map(Vec::as_slice);
    let to = to.map_or(Bound::Unbounded, Bound::Excluded);
    reader.overlay().scan(stand.view, tree, from, to, &mut |place, stored| {
        let record = match read(tree, place, stored) {
            Ok(record) => record,
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        };
        if record.version > stand.at || !reader.descriptor().predicate.owns(&record.key) {
            return ControlFlow::Continue(());
        }
        if bytes > bytes_max {
            found.cut = true;
            return ControlFlow::Break(());
        }
        bytes += record_bytes(&record);
        found.records.push((place_of(&record), record));
        ControlFlow::Continue(())
    })?;
    match fault {
        Some(error) => Err(damaged(stand.view, error)),
        None => Ok(found),
    }
}

fn read(tree: Tree, place: &[u8], stored: &[u8]) -> Result<SnapshotRecord, RecordError> {
    let key = match tree {
        Tree::History => read_history_key(place).ok_or(RecordError::Short)?.0,
        Tree::Latest | Tree::Changes | Tree::Root => place.to_vec(),
    };
    let head = Record::read(&key, stored)?.head;
    Ok(SnapshotRecord { key, version: head.modified, sub: head.sub, record: stored.to_vec() })
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

/// A replica being received into an empty store.
#[derive(Clone, Debug)]
pub struct SnapshotReceiver {
    replica: ReplicaId,
    offer: u64,
    /// Checksum of the root record that every piece carries.
    root_crc: Option<u32>,
    position: Vec<u8>,
    complete: bool,
}

impl SnapshotReceiver {
    /// Begins in an empty store.
    pub fn new(replica: ReplicaId, offer: u64) -> Self {
        Self { replica, offer, root_crc: None, position: Vec::new(), complete: false }
    }

    /// Goes on where the store stands. `None` if it holds nothing of this
    /// offer: it must be set aside, and a new one begun.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn resume(
        view: &dyn View,
        replica: ReplicaId,
        offer: u64,
    ) -> Result<Option<Self>, SnapshotError> {
        let Some(bytes) = view.get(Tree::Root, &progress_key(replica))? else { return Ok(None) };
        let progress = read_progress(bytes).ok_or_else(|| EngineError::Damaged {
            store: view.store(),
            cause: "progress of a snapshot cannot be read".to_owned(),
        })?;
        let Progress { offer: found, root_crc, position } = progress;
        if found != offer {
            return Ok(None);
        }
        let complete = view.get(Tree::Root, &root_key(replica))?.is_some();
        Ok(Some(Self { replica, offer, root_crc: Some(root_crc), position, complete }))
    }

    /// What to ask for next.
    pub fn position(&self) -> &[u8] {
        &self.position
    }

    /// Whether the store holds the whole replica.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes received so far.
    pub fn received_bytes(&self) -> u64 {
        read_position(&self.position).map_or(0, |(sent, _)| sent)
    }

    /// Turns a piece into the batch to commit. The receiver has moved on when
    /// this returns: if the commit fails, resume from the store.
    ///
    /// # Errors
    /// If the piece cannot follow what came before.
    pub fn accept(&mut self, piece: &SnapshotPiece) -> Result<Vec<Write>, SnapshotError> {
        let root_crc = crc32c::crc32c(&piece.root);
        if self.root_crc.is_some_and(|crc| crc != root_crc) {
            return Err(SnapshotError::OtherSnapshot);
        }
        let (_, root) = Root::decode(&piece.root)?;
        let mut writes = Vec::with_capacity(piece.records.len() * 2 + 2);
        self.take_records(piece, &root, &mut writes)?;
        self.position.clone_from(&piece.position);
        self.root_crc = Some(root_crc);
        self.complete = piece.last;
        if piece.last {
            writes.push(Write {
                tree: Tree::Root,
                key: root_key(self.replica).to_vec(),
                value: Some(root.encode(self.replica)),
            });
        }
        // The progress stays beside the root: a receiver killed before it could
        // tell anyone finds that all is here.
        writes.push(Write {
            tree: Tree::Root,
            key: progress_key(self.replica).to_vec(),
            value: Some(write_progress(self.offer, root_crc, &self.position)),
        });
        writes.sort_by(|a, b| (a.tree, &a.key).cmp(&(b.tree, &b.key)));
        Ok(writes)
    }

    fn take_records(
        &self,
        piece: &SnapshotPiece,
        root: &Root,
        writes: &mut Vec<Write>,
    ) -> Result<(), SnapshotError> {
        let invalid = |cause: &str| SnapshotError::Invalid(cause.to_owned());
        let (_, mut before) = read_position(&self.position)?;
        for record in &piece.records {
            let place = place_of(record);
            if before.as_ref().is_some_and(|before| before.history_key >= place) {
                return Err(invalid("records are out of order"));
            }
            let newest = before.is_none_or(|before| before.key != record.key);
            push_record(record, root, newest, &place, writes)?;
            before = Some(Place { history_key: place, key: record.key.clone() });
        }
        let end = read_position(&piece.position)?.1.map(|place| place.history_key);
        if end != before.map(|place| place.history_key) {
            return Err(invalid("its position is not that of its last record"));
        }
        Ok(())
    }
}

/// Writes one record where it belongs, and its change.
fn push_record(
    record: &SnapshotRecord,
    root: &Root,
    newest: bool,
    place: &[u8],
    writes: &mut Vec<Write>,
) -> Result<(), SnapshotError> {
    let head = Record::read(&record.key, &record.record)
        .map_err(|error| SnapshotError::Invalid(error.to_string()))?
        .head;
    if (head.modified, head.sub) != (record.version, record.sub) || head.modified > root.now() {
        return Err(SnapshotError::Invalid("a record lies about its version".to_owned()));
    }
    let (tree, key) = if newest && head.kind.exists() {
        (Tree::Latest, record.key.clone())
    } else {
        (Tree::History, place.to_vec())
    };
    writes.push(Write { tree, key, value: Some(record.record.clone()) });
    if head.modified > root.mark.compacted {
        let key = change_key(head.modified, head.sub, &record.key);
        let change = ChangeRecord { kind: head.kind, versions: head.versions, other: head.other };
        let value = Some(change.write(&key));
        writes.push(Write { tree: Tree::Changes, key, value });
    }
    Ok(())
}

struct Progress {
    offer: u64,
    root_crc: u32,
    position: Vec<u8>,
}

/// `version u16 ‖ 0 u16 ‖ crc u32 ‖ offer u64 ‖ crc of root u32 ‖ position`.
fn write_progress(offer: u64, root_crc: u32, position: &[u8]) -> Vec<u8> {
    let mut body = offer.to_le_bytes().to_vec();
    body.extend_from_slice(&root_crc.to_le_bytes());
    body.extend_from_slice(position);
    let mut out = PROGRESS_VERSION.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    out.extend(body);
    out
}

fn read_progress(bytes: &[u8]) -> Option<Progress> {
    let (header, position) = bytes.split_at_checked(PROGRESS_HEADER_BYTES)?;
    let version = u16::from_le_bytes(header.get(..2)?.try_into().ok()?);
    let crc = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?);
    if version != PROGRESS_VERSION || crc32c::crc32c(bytes.get(8..)?) != crc {
        return None;
    }
    Some(Progress {
        offer: u64::from_le_bytes(header.get(8..16)?.try_into().ok()?),
        root_crc: u32::from_le_bytes(header.get(16..20)?.try_into().ok()?),
        position: position.to_vec(),
    })
}

impl Reader {
    /// A hash over everything a replica must share with its peers at the same
    /// applied position: every version of every key, the changes, and the root.
    /// Where a byte lies (overlay, store, which tree) does not matter.
    ///
    /// # Errors
    /// Those of the store.
    pub fn state_hash(&self, view: &dyn View) -> Result<u128, ReadError> {
        /// Records are hashed in stretches of about so many bytes.
        const STRETCH_BYTES: usize = 1 << 20;
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let stand = self.stand(view, Some(self.now()))?;
        let mut after = None;
        loop {
            let Stretch { records, last } = stretch(self, &stand, after, STRETCH_BYTES)?;
            for record in &records {
                hash.update(&place_of(record));
                hash.update(&record.record);
            }
            after = records
                .last()
                .map(|end| Place { history_key: place_of(end), key: end.key.clone() });
            if last || after.is_none() {
                break;
            }
        }
        let changes = self.changes(view, self.compacted(), usize::MAX)?;
        for change in changes.changes {
            hash.update(&change_key(change.version, change.sub, &change.key));
            hash.update(&[change.kind as u8]);
            hash.update(&change.other.to_le_bytes());
        }
        hash.update(&self.root().encode(ReplicaId(0)));
        Ok(hash.digest128())
    }
}
