//! Reading a saved snapshot from a file, record by record.
//!
//! It is read twice: once to see that it is whole, before anything is done with
//! it, and once to use it; whoever does that compares the sums of both.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use cluster::{
    ids::LeaseId,
    limits::LEASES_PER_SHARD_MAX,
    mvcc::version::Version,
    shard::{
        restore::{SavedId, SavedLease},
        saved::{
            BLOCK_BYTES, RECORD_HEAD_BYTES, SAVED_HEADER_BYTES, SUM_BYTES, SavedError, SavedRecord,
            read_head, read_header,
        },
    },
};
use sha2::{Digest, Sha256};

/// Bytes read ahead.
const AHEAD_BYTES: usize = 256 << 10;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error(transparent)]
    Io(io::Error),
    /// It is no saved snapshot, or not a whole one.
    #[error(transparent)]
    Saved(#[from] SavedError),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            SavedError::Short.into()
        } else {
            Self::Io(error)
        }
    }
}

/// A snapshot that is whole.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Its name.
    pub(crate) id: SavedId,
    /// The version that was saved.
    pub(crate) version: Version,
    /// How many keys it holds.
    pub(crate) keys: u64,
    /// Its leases.
    pub(crate) leases: Vec<SavedLease>,
    /// Bytes of the file.
    pub(crate) bytes: u64,
}

/// The records of a snapshot, in order.
#[derive(Debug)]
pub(crate) struct Records {
    file: BufReader<File>,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    sum: Sha256,
    /// Bytes that were read.
    pub(crate) read: u64,
    /// The version that was saved.
    pub(crate) version: Version,
}

/// Reads a file to its end: whether it is whole, and what it holds.
///
/// # Errors
/// If it is no saved snapshot, cut short, damaged, or cannot be read.
pub(crate) fn check(path: &Path) -> Result<Checked, FileError> {
    let malformed = |what| Err(FileError::from(SavedError::Malformed(what)));
    let mut records = Records::open(path)?;
    let (version, bytes) = (records.version, records.bytes);
    let (mut keys, mut leases, mut named) = (0, Vec::new(), BTreeSet::new());
    loop {
        match records.next()? {
            SavedRecord::Key(item) => {
                keys += 1;
                if item.lease != LeaseId(0) {
                    named.insert(item.lease);
                }
            }
            SavedRecord::Lease(lease) => leases.push(lease),
            SavedRecord::End { keys: all_keys, leases: all_leases } => {
                if (all_keys, all_leases) != (keys, leases.len() as u64) {
                    return malformed("it holds fewer records than it says, or more");
                }
                break;
            }
        }
        if named.len().max(leases.len()) > LEASES_PER_SHARD_MAX {
            return malformed("it holds more leases than a volume keeps");
        }
    }
    for lease in &leases {
        named.remove(&lease.lease);
    }
    let id = records.finish()?;
    if !named.is_empty() {
        return malformed("a key hangs on a lease that it does not hold");
    }
    Ok(Checked { id, version, keys, leases, bytes })
}

impl Records {
    /// Opens a file.
    ///
    /// # Errors
    /// If it is no saved snapshot, is cut short, or cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let file = BufReader::with_capacity(AHEAD_BYTES, file);
        let mut records =
            Self { file, bytes, sum: Sha256::new(), read: 0, version: Version::default() };
        // A short file may still say that it is something else.
        let mut header = [0; SAVED_HEADER_BYTES];
        let there = usize::try_from(bytes).unwrap_or(usize::MAX).min(SAVED_HEADER_BYTES);
        let (start, _) = header.split_at_mut(there);
        records.fill(start)?;
        records.version = read_header(start)?;
        if bytes % BLOCK_BYTES as u64 != SUM_BYTES as u64 {
            return Err(SavedError::Short.into());
        }
        Ok(records)
    }

    /// The next record; nothing is behind [`SavedRecord::End`].
    ///
    /// # Errors
    /// If there is none, or the file cannot be read.
    pub(crate) fn next(&mut self) -> Result<SavedRecord, FileError> {
        let mut head = [0; RECORD_HEAD_BYTES];
        self.fill(&mut head)?;
        let mut body = vec![0; read_head(head)?];
        self.fill(&mut body)?;
        Ok(SavedRecord::read(head[0], &body)?)
    }

    /// Reads what is behind the last record and compares the sum; the snapshot's
    /// name.
    ///
    /// # Errors
    /// If it does not fit.
    pub(crate) fn finish(mut self) -> Result<SavedId, FileError> {
        let block = BLOCK_BYTES as u64;
        let zeros = usize::try_from(self.read.next_multiple_of(block) - self.read).unwrap_or(0);
        self.fill(&mut vec![0; zeros])?;
        let mut told = [0; SUM_BYTES];
        self.file.read_exact(&mut told)?;
        let found = self.sum.finalize();
        if found.as_slice() != told || self.read + SUM_BYTES as u64 != self.bytes {
            return Err(SavedError::Checksum.into());
        }
        let mut id = [0; 16];
        for (place, byte) in id.iter_mut().zip(told) {
            *place = byte;
        }
        Ok(SavedId(id))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FileError> {
        self.file.read_exact(bytes)?;
        self.sum.update(&*bytes);
        self.read += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cluster::{request::Item, shard::saved::write_header};

    use super::*;

    /// A snapshot of one key under a lease.
    fn saved() -> Vec<u8> {
        let lease = LeaseId(7);
        let item = Item {
            key: b"k".to_vec(),
            value: vec![7; 900],
            value_bytes: 900,
            created: Version(2),
            modified: Version(3),
            changes: 2,
            modified_ms: 5,
            lease,
        };
        let records = [
            SavedRecord::Key(item),
            SavedRecord::Lease(SavedLease { lease, ttl_ms: 9_000, remaining_ms: 8_000 }),
            SavedRecord::End { keys: 1, leases: 1 },
        ];
        of(&records)
    }

    fn of(records: &[SavedRecord]) -> Vec<u8> {
        let mut bytes = write_header(Version(9)).to_vec();
        for record in records {
            record.write(&mut bytes);
        }
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let sum = Sha256::digest(&bytes);
        [bytes, sum.to_vec()].concat()
    }

    fn checked(bytes: &[u8]) -> Result<Checked, SavedError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        std::fs::write(&path, bytes).unwrap();
        check(&path).map_err(|error| match error {
            FileError::Saved(error) => error,
            FileError::Io(error) => panic!("{error}"),
        })
    }

    #[test]
    fn a_whole_file_tells_what_it_holds() {
        let checked = checked(&saved()).unwrap();
        assert_eq!((checked.version, checked.keys, checked.leases.len()), (Version(9), 1, 1));
    }

    #[test]
    fn a_file_with_any_byte_bent_or_cut_anywhere_is_refused() {
        let whole = saved();
        for place in (0..whole.len()).step_by(7) {
            let mut bent = whole.clone();
            bent[place] ^= 0x10;
            assert!(checked(&bent).is_err(), "byte {place}");
            assert!(checked(&whole[..place]).is_err(), "cut at {place}");
        }
        assert_eq!(checked(&whole[..whole.len() - 1]).unwrap_err(), SavedError::Short);
        assert_eq!(checked(&whole[..512 + 32]).unwrap_err(), SavedError::Short);
        assert_eq!(checked(b"").unwrap_err(), SavedError::Foreign);
        let longer = [&whole[..], &[0; 512]].concat();
        assert_eq!(checked(&longer).unwrap_err(), SavedError::Checksum);
    }

    #[test]
    fn a_file_that_lies_under_a_right_sum_is_refused() {
        let end = |keys, leases| SavedRecord::End { keys, leases };
        assert!(checked(&of(&[end(0, 0)])).is_ok(), "an empty volume may be saved");
        assert!(checked(&of(&[end(1, 0)])).is_err());
        let bytes = saved();
        let SavedRecord::Key(item) = Records::next_of(&bytes) else { panic!() };
        assert!(checked(&of(&[SavedRecord::Key(item), end(1, 0)])).is_err(), "its lease lacks");
    }

    impl Records {
        fn next_of(bytes: &[u8]) -> SavedRecord {
            let body = &bytes[SAVED_HEADER_BYTES + RECORD_HEAD_BYTES..];
            SavedRecord::read(1, &body[..5 * 8 + 4 + 1 + 900]).unwrap()
        }
    }
}
