//! Bytes of one version of one key, and of its entry in the changes tree.
//!
//! A record is a fixed header of 56 bytes and the value, little-endian:
//!
//! ```text
//! 0         2      3       4     8         16         24        32      40            48    52
//! | version | kind | flags | crc | created | modified | changes | lease | other clock | sub | codec | value …
//! ```
//! The header is written by hand so that a read borrows the value from the
//! page it lies on. The checksum covers the user key as well as the record:
//! LMDB checks nothing, and a record found under another key is as wrong as a
//! bent one. `other clock` is the clock that does not name the version: the
//! hybrid clock of a dense shard (flag 1), the count of key-changing commands
//! of a hybrid one. `codec` is zero: the value is stored as it is.

use super::version::{Hlc, Version, VersionKind};
use crate::ids::LeaseId;

/// Version of the record format, first in every record.
pub const RECORD_VERSION: u16 = 1;
/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 56;
/// Bytes of a change.
pub const CHANGE_BYTES: usize = 16;
const FLAG_DENSE: u8 = 1;

/// What a record says about its key. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The key has a value.
    Value = 1,
    /// The key was deleted. Lives in the history tree only.
    Tombstone = 2,
    /// The value is the manifest of an object.
    Manifest = 3,
    /// A write of a transaction that is not decided yet. Reserved.
    Intent = 4,
}

impl RecordKind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Value, Self::Tombstone, Self::Manifest, Self::Intent]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }

    /// Whether a read finds the key.
    pub fn exists(self) -> bool {
        match self {
            Self::Value | Self::Manifest => true,
            Self::Tombstone | Self::Intent => false,
        }
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the record says.
    pub kind: RecordKind,
    /// Which clock names [`Self::modified`].
    pub versions: VersionKind,
    /// When the key was created; zero in a tombstone.
    pub created: Version,
    /// When this version was written.
    pub modified: Version,
    /// Its place among the changes of that version.
    pub sub: u32,
    /// Changes since the key was created, from 1; zero in a tombstone.
    pub changes: u64,
    /// The lease the key hangs on; zero for none.
    pub lease: LeaseId,
    /// The clock that does not name the version.
    pub other: u64,
}

impl Head {
    /// When the record was written, on the hybrid clock.
    pub fn time(&self) -> Hlc {
        match self.versions {
            VersionKind::Dense => Hlc(self.other),
            VersionKind::Hybrid => Hlc(self.modified.0),
        }
    }
}

/// A record as it lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its header.
    pub head: Head,
    /// The value, borrowed.
    pub value: &'a [u8],
}

/// Stored bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than a header.
    #[error("record is cut short")]
    Short,
    /// The checksum does not match key and record.
    #[error("record does not match its checksum")]
    Checksum,
    /// A format of a newer release.
    #[error("record has format {0}, which this release does not know")]
    Version(u16),
    /// A kind of a newer release.
    #[error("record is of unknown kind {0}")]
    Kind(u8),
    /// A value codec of a newer release.
    #[error("value is stored with unknown codec {0}")]
    Codec(u32),
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// CRC32C over `context` and `bytes` without the four bytes of the checksum.
fn checksum(context: &[u8], bytes: &[u8]) -> u32 {
    let (before, rest) = bytes.split_at(4.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    let crc = crc32c::crc32c(context);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, before), after)
}

fn flags(versions: VersionKind) -> u8 {
    match versions {
        VersionKind::Dense => FLAG_DENSE,
        VersionKind::Hybrid => 0,
    }
}

fn versions(flags: u8) -> VersionKind {
    if flags & FLAG_DENSE == 0 { VersionKind::Hybrid } else { VersionKind::Dense }
}

/// Checks what both forms begin with: version, kind, flags, checksum.
fn read_start(context: &[u8], bytes: &[u8]) -> Result<(RecordKind, VersionKind), RecordError> {
    let [low, high, kind, flags, ..] = bytes else { return Err(RecordError::Short) };
    if word32(bytes, 4) != checksum(context, bytes) {
        return Err(RecordError::Checksum);
    }
    let version = u16::from_le_bytes([*low, *high]);
    if version != RECORD_VERSION {
        return Err(RecordError::Version(version));
    }
    let kind = RecordKind::from_number(*kind).ok_or(RecordError::Kind(*kind))?;
    Ok((kind, versions(*flags)))
}

fn write_start(kind: RecordKind, versions: VersionKind, out: &mut Vec<u8>) {
    out.extend_from_slice(&RECORD_VERSION.to_le_bytes());
    out.push(kind as u8);
    out.push(flags(versions));
    out.extend_from_slice(&[0; 4]);
}

fn seal(context: &[u8], out: &mut [u8]) {
    let crc = checksum(context, out);
    if let Some(place) = out.get_mut(4..8) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

impl<'a> Record<'a> {
    /// Writes the record of `key`.
    pub fn write(&self, key: &[u8]) -> Vec<u8> {
        let head = &self.head;
        let mut out = Vec::with_capacity(RECORD_HEADER_BYTES + self.value.len());
        write_start(head.kind, head.versions, &mut out);
        for word in [head.created.0, head.modified.0, head.changes, head.lease.0, head.other] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&head.sub.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.value);
        seal(key, &mut out);
        out
    }

    /// Reads the record of `key`, borrowing its value.
    ///
    /// # Errors
    /// If the bytes are damaged, of another key or of a newer release.
    pub fn read(key: &[u8], bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (header, value) =
            bytes.split_at_checked(RECORD_HEADER_BYTES).ok_or(RecordError::Short)?;
        let (kind, versions) = read_start(key, bytes)?;
        let codec = word32(header, 52);
        if codec != 0 {
            return Err(RecordError::Codec(codec));
        }
        let head = Head {
            kind,
            versions,
            created: Version(word64(header, 8)),
            modified: Version(word64(header, 16)),
            changes: word64(header, 24),
            lease: LeaseId(word64(header, 32)),
            other: word64(header, 40),
            sub: word32(header, 48),
        };
        Ok(Self { head, value })
    }
}

/// What lies under a key of the leases tree: a checksum, for the key is all it
/// says.
pub fn write_attachment(lease_key: &[u8]) -> [u8; 4] {
    crc32c::crc32c(lease_key).to_le_bytes()
}

/// Checks an entry of the leases tree.
///
/// # Errors
/// If it is damaged.
pub fn check_attachment(lease_key: &[u8], bytes: &[u8]) -> Result<(), RecordError> {
    let sound = bytes == write_attachment(lease_key);
    if sound { Ok(()) } else { Err(RecordError::Checksum) }
}

/// One entry of the changes tree; its key says version, sub and user key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    /// What the change wrote.
    pub kind: RecordKind,
    /// Which clock names its version.
    pub versions: VersionKind,
    /// The clock that does not name the version.
    pub other: u64,
}

impl ChangeRecord {
    /// Writes the entry that lies under `change_key`.
    pub fn write(&self, change_key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(CHANGE_BYTES);
        write_start(self.kind, self.versions, &mut out);
        out.extend_from_slice(&self.other.to_le_bytes());
        seal(change_key, &mut out);
        out
    }

    /// Reads the entry that lies under `change_key`.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer release.
    pub fn read(change_key: &[u8], bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() != CHANGE_BYTES {
            return Err(RecordError::Short);
        }
        let (kind, versions) = read_start(change_key, bytes)?;
        Ok(Self { kind, versions, other: word64(bytes, 8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            kind: RecordKind::Value,
            versions: VersionKind::Dense,
            created: Version(0x11),
            modified: Version(0x2222),
            sub: 0x33,
            changes: 0x44,
            lease: LeaseId(0x55),
            other: 0x66,
        }
    }

    #[test]
    fn the_bytes_of_a_record_are_pinned() {
        let bytes = Record { head: head(), value: b"value" }.write(b"key");
        let mut pinned = vec![1, 0, 1, 1, 0xa7, 0x5e, 0xc0, 0x7d];
        for word in [0x11_u64, 0x2222, 0x44, 0x55, 0x66] {
            pinned.extend_from_slice(&word.to_le_bytes());
        }
        pinned.extend_from_slice(&[0x33, 0, 0, 0, 0, 0, 0, 0]);
        pinned.extend_from_slice(b"value");
        assert_eq!(bytes, pinned);
        assert_eq!(Record::read(b"key", &bytes), Ok(Record { head: head(), value: b"value" }));
    }

    #[test]
    fn the_bytes_of_a_change_are_pinned() {
        let change =
            ChangeRecord { kind: RecordKind::Tombstone, versions: VersionKind::Hybrid, other: 7 };
        let bytes = change.write(b"place");
        assert_eq!(bytes, [1, 0, 2, 0, 0x6b, 0xa3, 0x92, 0xe3, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ChangeRecord::read(b"place", &bytes), Ok(change));
    }

    #[test]
    fn a_record_under_another_key_or_with_any_bit_bent_is_refused() {
        let bytes = Record { head: head(), value: b"value" }.write(b"key");
        assert_eq!(Record::read(b"kez", &bytes), Err(RecordError::Checksum));
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::read(b"key", &bent).is_err(), "bit {bit} went unnoticed");
        }
        assert_eq!(Record::read(b"key", &bytes[..55]), Err(RecordError::Short));
    }

    #[test]
    fn what_a_newer_release_wrote_is_named_as_such() {
        let sealed = |at: usize, byte: u8| {
            let mut bytes = Record { head: head(), value: b"" }.write(b"key");
            bytes[at] = byte;
            seal(b"key", &mut bytes);
            Record::read(b"key", &bytes).map(drop)
        };
        assert_eq!(sealed(0, 2), Err(RecordError::Version(2)));
        assert_eq!(sealed(2, 9), Err(RecordError::Kind(9)));
        assert_eq!(sealed(52, 1), Err(RecordError::Codec(1)));
    }
}
