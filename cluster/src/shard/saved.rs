//! A saved snapshot: what a volume of kind *single* holds at one version, as a
//! file that `cdb volume snapshot` and `etcdctl snapshot save` write and
//! `cdb volume restore` reads.
//!
//! ```text
//! "CDBSAVED"  format u16  0 u16  0 u32  version u64
//! { kind u8, length u32, body }*       keys in order, then leases, then the end
//! zeros to a multiple of 512 bytes
//! SHA-256 of all before
//! ```
//! Numbers are little-endian. The sum lies where `etcdctl` looks for one. Nothing
//! is believed before it was compared, and each length is bounded all the same.
//!
//! | kind | body |
//! |---|---|
//! | 1 key | created, modified, changes, lease, modified in wall ms (u64 each), length of the key u32, key, value |
//! | 2 lease | id, granted ms, remaining ms (u64 each) |
//! | 3 end | how many keys, how many leases (u64 each) |
//!
//! Left out: history, and accounts (passwords do not belong into a file that is
//! passed around). Format 1 was `"CDBETCD1"`, without leases, and is not read.

use super::restore::SavedLease;
use crate::{
    ids::LeaseId,
    limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    mvcc::version::Version,
    request::Item,
};

/// First bytes of a saved snapshot.
const MAGIC: &[u8; 8] = b"CDBSAVED";
/// First bytes of one that the first format had.
const MAGIC_FIRST: &[u8; 8] = b"CDBETCD1";
/// Version of the format.
pub const SAVED_VERSION: u16 = 2;
/// Bytes before the first record.
pub const SAVED_HEADER_BYTES: usize = 24;
/// Bytes before the body of a record.
pub const RECORD_HEAD_BYTES: usize = 5;
/// A file without its sum takes a multiple of this.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of the sum.
pub const SUM_BYTES: usize = 32;

const KIND_KEY: u8 = 1;
const KIND_LEASE: u8 = 2;
const KIND_END: u8 = 3;
/// Bytes of a key's body before the key.
const KEY_HEAD_BYTES: usize = 5 * 8 + 4;
const LEASE_BYTES: usize = 3 * 8;
const END_BYTES: usize = 2 * 8;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavedRecord {
    /// A key.
    Key(Item),
    /// A lease.
    Lease(SavedLease),
    /// Nothing follows.
    End {
        /// How many keys came before.
        keys: u64,
        /// How many leases.
        leases: u64,
    },
}

/// Bytes that are no saved snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Something else.
    #[error("it is no saved snapshot of ClusterDB")]
    Foreign,
    /// Of another release.
    #[error("it has format {0}, this release reads format {SAVED_VERSION}")]
    Version(u16),
    /// Not all of it is there.
    #[error("it is cut short")]
    Short,
    /// The sum does not fit.
    #[error("its checksum does not fit: it is damaged, or cut short")]
    Checksum,
    /// The sum fits, but what it holds is none.
    #[error("{0}")]
    Malformed(&'static str),
}

/// The header of a snapshot saved at this version.
pub fn write_header(version: Version) -> [u8; SAVED_HEADER_BYTES] {
    let mut out = [0; SAVED_HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&SAVED_VERSION.to_le_bytes());
    out[16..].copy_from_slice(&version.0.to_le_bytes());
    out
}

/// Reads a header: the version that was saved.
///
/// # Errors
/// If it is none, or of another format.
pub fn read_header(bytes: &[u8]) -> Result<Version, SavedError> {
    if bytes.starts_with(MAGIC_FIRST) {
        return Err(SavedError::Version(1));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(SavedError::Foreign);
    }
    let header = bytes.first_chunk::<SAVED_HEADER_BYTES>().ok_or(SavedError::Short)?;
    let found = u16::from_le_bytes([header[8], header[9]]);
    if found != SAVED_VERSION {
        return Err(SavedError::Version(found));
    }
    Ok(Version(Words(&header[16..]).next()))
}

/// Reads what stands before a body: how many bytes that has.
///
/// # Errors
/// If it is of no kind, or larger than any of its kind.
pub fn read_head(head: [u8; RECORD_HEAD_BYTES]) -> Result<usize, SavedError> {
    let [kind, length @ ..] = head;
    let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    let bytes_max = match kind {
        KIND_KEY => KEY_HEAD_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX,
        KIND_LEASE => LEASE_BYTES,
        KIND_END => END_BYTES,
        _ => return Err(SavedError::Malformed("a record is of no known kind")),
    };
    if bytes > bytes_max {
        return Err(SavedError::Malformed("a record is larger than any of its kind"));
    }
    Ok(bytes)
}

impl SavedRecord {
    /// Appends it to a file.
    pub fn write(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
        let (kind, words) = match self {
            Self::Key(item) => (
                KIND_KEY,
                vec![item.created.0, item.modified.0, item.changes, item.lease.0, item.modified_ms],
            ),
            Self::Lease(lease) => {
                (KIND_LEASE, vec![lease.lease.0, lease.ttl_ms, lease.remaining_ms])
            }
            Self::End { keys, leases } => (KIND_END, vec![*keys, *leases]),
        };
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        if let Self::Key(item) = self {
            out.extend_from_slice(&length(item.key.len()));
            out.extend_from_slice(&item.key);
            out.extend_from_slice(&item.value);
        }
        let bytes = length(out.len() - begin - RECORD_HEAD_BYTES);
        if let Some([place, rest @ ..]) = out.get_mut(begin..begin + RECORD_HEAD_BYTES) {
            *place = kind;
            rest.copy_from_slice(&bytes);
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// If it is none of its kind.
    pub fn read(kind: u8, body: &[u8]) -> Result<Self, SavedError> {
        let mut words = Words(body);
        let short = SavedError::Malformed("a record is cut short");
        match kind {
            KIND_KEY => read_key(body).ok_or(short),
            KIND_LEASE if body.len() == LEASE_BYTES => Ok(Self::Lease(SavedLease {
                lease: LeaseId(words.next()),
                ttl_ms: words.next(),
                remaining_ms: words.next(),
            })),
            KIND_END if body.len() == END_BYTES => {
                Ok(Self::End { keys: words.next(), leases: words.next() })
            }
            _ => Err(short),
        }
    }
}

/// The little-endian numbers at the begin of bytes that are long enough.
struct Words<'b>(&'b [u8]);

impl Words<'_> {
    fn next(&mut self) -> u64 {
        let Some((word, rest)) = self.0.split_first_chunk::<8>() else { return 0 };
        self.0 = rest;
        u64::from_le_bytes(*word)
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

fn read_key(body: &[u8]) -> Option<SavedRecord> {
    let (head, rest) = body.split_at_checked(KEY_HEAD_BYTES)?;
    let (words, length) = head.split_at_checked(KEY_HEAD_BYTES - 4)?;
    let length = u32::from_le_bytes(*length.first_chunk::<4>()?);
    let (key, value) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let mut words = Words(words);
    Some(SavedRecord::Key(Item {
        created: Version(words.next()),
        modified: Version(words.next()),
        changes: words.next(),
        lease: LeaseId(words.next()),
        modified_ms: words.next(),
        key: key.to_vec(),
        value: value.to_vec(),
        value_bytes: value.len() as u64,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SavedRecord {
        SavedRecord::Key(Item {
            key: b"key".to_vec(),
            value: b"value".to_vec(),
            value_bytes: 5,
            created: Version(0x11),
            modified: Version(0x22),
            changes: 0x33,
            modified_ms: 0x55,
            lease: LeaseId(0x44),
        })
    }

    fn written(record: &SavedRecord) -> Vec<u8> {
        let mut out = Vec::new();
        record.write(&mut out);
        out
    }

    fn read(bytes: &[u8]) -> Result<SavedRecord, SavedError> {
        let (head, body) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>().unwrap();
        assert!(read_head(*head)? <= body.len());
        SavedRecord::read(head[0], body)
    }

    #[test]
    fn the_bytes_of_a_saved_snapshot_are_pinned() {
        let header = b"CDBSAVED\x02\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0";
        assert_eq!(&write_header(Version(7)), header);
        let mut pinned = vec![1, 52, 0, 0, 0];
        for word in [0x11_u64, 0x22, 0x33, 0x44, 0x55] {
            pinned.extend_from_slice(&word.to_le_bytes());
        }
        pinned.extend_from_slice(b"\x03\0\0\0keyvalue");
        assert_eq!(written(&key()), pinned);
        let lease = SavedLease { lease: LeaseId(7), ttl_ms: 9, remaining_ms: 8 };
        let lease = written(&SavedRecord::Lease(lease));
        let words = [7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(lease, [&[2, 24, 0, 0, 0][..], &words].concat());
        let end = written(&SavedRecord::End { keys: 1, leases: 2 });
        assert_eq!(end[..6], [3, 16, 0, 0, 0, 1]);
    }

    #[test]
    fn what_was_written_is_read_and_what_is_cut_or_too_large_is_refused() {
        for record in [key(), SavedRecord::End { keys: 3, leases: 4 }] {
            assert_eq!(read(&written(&record)), Ok(record));
        }
        let whole = written(&key());
        let short = SavedError::Malformed("a record is cut short");
        assert_eq!(SavedRecord::read(1, &whole[5..50]), Err(short.clone()));
        assert_eq!(SavedRecord::read(2, &whole[5..]), Err(short.clone()));
        assert_eq!(SavedRecord::read(3, &[]), Err(short));
        assert!(read_head([1, 0, 0, 0, 1]).is_err(), "16 MiB");
        assert!(read_head([9, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn other_files_and_other_formats_are_told_apart() {
        assert_eq!(read_header(&write_header(Version(9))), Ok(Version(9)));
        assert_eq!(read_header(b"SQLite format 3\0"), Err(SavedError::Foreign));
        assert_eq!(read_header(b"CDBETCD1\0\0"), Err(SavedError::Version(1)));
        assert_eq!(read_header(b"CDBSAVED\x02"), Err(SavedError::Short));
        let mut newer = write_header(Version(9));
        newer[8] = 3;
        assert_eq!(read_header(&newer), Err(SavedError::Version(3)));
    }
}
