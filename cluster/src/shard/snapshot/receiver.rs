//! Receiving a snapshot into an empty store, resumably.
//!
//! Progress lies in the root tree beside what it speaks of:
//! `version u16 ‖ 0 u16 ‖ crc u32 ‖ offer u64 ‖ crc of the root record u32 ‖ position`.

use super::{Place, Sent, SnapshotError, place_of, read_position};
use crate::{
    ids::{LeaseId, ReplicaId},
    mvcc::{
        layout::{change_key, lease_key, lease_record_key, progress_key, root_key},
        record::{ChangeRecord, Record, write_attachment},
        version::Version,
    },
    ports::engine::{EngineError, Tree, View, Write},
    request::{SnapshotPiece, SnapshotRecord},
    shard::{
        leases::{LeaseRecord, stored_lease},
        root::Root,
        sweep::{note_swept, swept},
    },
};

/// Version of the progress record.
const PROGRESS_VERSION: u16 = 2;
/// Bytes of the progress record before the position.
const PROGRESS_HEADER_BYTES: usize = 20;

/// A replica being received into an empty store.
#[derive(Clone, Debug)]
pub struct SnapshotReceiver {
    replica: ReplicaId,
    offer: u64,
    /// Checksum of the root record that every piece carries.
    root_crc: Option<u32>,
    position: Vec<u8>,
    /// As far as a sender so far had swept.
    kept_from: Version,
    complete: bool,
}

impl SnapshotReceiver {
    /// Begins in an empty store.
    pub fn new(replica: ReplicaId, offer: u64) -> Self {
        let (root_crc, position, kept_from) = (None, Vec::new(), Version(0));
        Self { replica, offer, root_crc, position, kept_from, complete: false }
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
        let (root_crc, kept_from) = (Some(root_crc), swept(view, replica)?);
        Ok(Some(Self { replica, offer, root_crc, position, kept_from, complete }))
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
        let mut writes = Vec::with_capacity(piece.records.len() * 2 + piece.leases.len() + 3);
        if piece.kept_from > self.kept_from.max(root.mark.floor()) {
            self.kept_from = piece.kept_from;
            writes.push(note_swept(self.replica, piece.kept_from));
        }
        self.take_records(piece, &root, &mut writes)?;
        self.take_leases(piece, &mut writes)?;
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
        let (_, sent) = read_position(&self.position)?;
        let end = sent.clone().behind(&piece.records, &piece.leases);
        let mut before = match sent {
            Sent::Nothing => None,
            Sent::Record(place) => Some(place),
            Sent::Lease(_) if piece.records.is_empty() => None,
            Sent::Lease(_) => return Err(invalid("records follow leases")),
        };
        for record in &piece.records {
            let place = place_of(record);
            if before.as_ref().is_some_and(|before| before.history_key >= place) {
                return Err(invalid("records are out of order"));
            }
            let newest = before.is_none_or(|before| before.key != record.key);
            let changes_from = root.mark.floor().max(self.kept_from);
            push_record(record, (root.now(), changes_from), newest, &place, writes)?;
            before = Some(Place::of(record));
        }
        if read_position(&piece.position)?.1 != end {
            return Err(invalid("its position is not that of what came last"));
        }
        Ok(())
    }

    fn take_leases(
        &self,
        piece: &SnapshotPiece,
        writes: &mut Vec<Write>,
    ) -> Result<(), SnapshotError> {
        let mut before = match read_position(&self.position)?.1 {
            Sent::Lease(lease) => lease,
            Sent::Nothing | Sent::Record(_) => LeaseId(0),
        };
        for LeaseRecord { id, lease } in &piece.leases {
            if *id <= before {
                return Err(SnapshotError::Invalid("leases are out of order".to_owned()));
            }
            let key = lease_record_key(self.replica, *id).to_vec();
            let value = Some(stored_lease(&key, lease));
            writes.push(Write { tree: Tree::Leases, key, value });
            before = *id;
        }
        Ok(())
    }
}

/// Writes one record where it belongs, and its change.
fn push_record(
    record: &SnapshotRecord,
    (now, changes_from): (Version, Version),
    newest: bool,
    place: &[u8],
    writes: &mut Vec<Write>,
) -> Result<(), SnapshotError> {
    let head = Record::read(&record.key, &record.record)
        .map_err(|error| SnapshotError::Invalid(error.to_string()))?
        .head;
    if (head.modified, head.sub) != (record.version, record.sub) || head.modified > now {
        return Err(SnapshotError::Invalid("a record lies about its version".to_owned()));
    }
    let (tree, key) = if newest && head.kind.exists() {
        (Tree::Latest, record.key.clone())
    } else {
        (Tree::History, place.to_vec())
    };
    if tree == Tree::Latest && head.lease != LeaseId(0) {
        let key = lease_key(head.lease, &record.key);
        let value = Some(write_attachment(&key).to_vec());
        writes.push(Write { tree: Tree::Leases, key, value });
    }
    writes.push(Write { tree, key, value: Some(record.record.clone()) });
    if head.modified > changes_from {
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
