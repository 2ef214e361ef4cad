//! Sweeping a replica's history: what `mvcc::compaction` finds, as batches for
//! the store.
//!
//! A sweep needs nothing but the store: it takes from it what the store holds,
//! whether or not later entries lie in the overlay, and what a flush brings
//! afterwards is found by the next sweep. It writes beside its deletes how far
//! it goes, because a view may show them before the root record that allows
//! them: after a restart the store is behind the log.
//!
//! ```text
//! 0         2          4     8       16
//! | version | reserved | crc | swept |
//! ```

use super::reader::{ReadError, Reader};
use crate::{
    ids::ReplicaId,
    mvcc::{
        compaction::{BatchLimits, Garbage, garbage},
        layout::swept_key,
        version::Version,
    },
    ports::engine::{EngineError, Tree, View, Write},
};

/// Version of the record.
const SWEPT_VERSION: u16 = 1;
/// Its bytes.
const SWEPT_BYTES: usize = 16;

/// A batch that frees room and changes nothing anybody can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// What to commit; empty if there is nothing to do.
    pub writes: Vec<Write>,
    /// Entries it removes.
    pub entries: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether there is more.
    pub more: bool,
}

impl Reader {
    /// The next batch that rids the store of what nobody can read at `upto` or
    /// later; at most up to the floor. The view must be opened when
    /// nobody else writes for this replica, and closed before the commit.
    ///
    /// # Errors
    /// Those of the store.
    pub fn sweep(
        &self,
        view: &dyn View,
        upto: Version,
        limits: BatchLimits,
    ) -> Result<Sweep, ReadError> {
        let upto = upto.min(self.floor());
        let predicate = &self.descriptor().predicate;
        let Garbage { mut writes, bytes, more } =
            garbage(view, upto, limits, |key| predicate.owns(key))?;
        let entries = writes.len();
        if entries > 0 && swept(view, self.replica())? < upto {
            writes.push(note_swept(self.replica(), upto));
        }
        Ok(Sweep { writes, entries, bytes, more })
    }
}

/// The version up to which history may be missing in a view.
pub(super) fn swept(view: &dyn View, replica: ReplicaId) -> Result<Version, EngineError> {
    let Some(bytes) = view.get(Tree::Root, &swept_key(replica))? else { return Ok(Version(0)) };
    read_swept(bytes).ok_or_else(|| EngineError::Damaged {
        store: view.store(),
        cause: "the record of how far history was swept cannot be read".to_owned(),
    })
}

/// Notes that history may be missing up to a version.
pub(super) fn note_swept(replica: ReplicaId, upto: Version) -> Write {
    let key = swept_key(replica).to_vec();
    Write { tree: Tree::Root, key, value: Some(write_swept(upto)) }
}

fn write_swept(swept: Version) -> Vec<u8> {
    let body = swept.0.to_le_bytes();
    let mut out = SWEPT_VERSION.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

fn read_swept(bytes: &[u8]) -> Option<Version> {
    let bytes: &[u8; SWEPT_BYTES] = bytes.try_into().ok()?;
    let (header, body) = bytes.split_first_chunk::<8>()?;
    let sound = header[..2] == SWEPT_VERSION.to_le_bytes()
        && header[4..] == crc32c::crc32c(body).to_le_bytes();
    sound.then(|| Version(u64::from_le_bytes(body.try_into().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_reads_back_and_a_bent_one_is_refused() {
        let mut bytes = write_swept(Version(0x0102));
        assert_eq!(bytes[..4], [1, 0, 0, 0]);
        assert_eq!(read_swept(&bytes), Some(Version(0x0102)));
        bytes[9] ^= 1;
        assert_eq!(read_swept(&bytes), None);
        assert_eq!(read_swept(&bytes[..15]), None);
    }
}
