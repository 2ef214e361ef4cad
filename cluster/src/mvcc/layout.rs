//! Keys of the five trees. These bytes are stored: they never change meaning.
//!
//! ```text
//! latest    user key                                       → record
//! history   memcomparable(user key) ‖ !version ‖ !sub      → record
//! changes   version ‖ sub ‖ user key                       → change
//! leases    lease ‖ user key                               → checksum of the key
//!           0 (no lease has id zero) ‖ replica id ‖ lease  → the lease itself
//! root      replica id                                     → root record
//!           replica id ‖ 1                                 → progress of a snapshot being received
//!           replica id ‖ 2                                 → version up to which history was swept
//!           0 (no replica has id zero)                     → stamp of the store
//! ```
//! Numbers are big-endian so that they sort; `!` inverts, so the newest version
//! of a key comes first. Every key is unique per user key, so replicas of one
//! lineage, which own disjoint keys, may share a store without meeting.

use crate::{
    ids::{LeaseId, ReplicaId},
    mvcc::version::Version,
};

/// Bytes of a group in the memcomparable form; each is followed by one marker.
const GROUP_BYTES: usize = 8;
/// Bytes that follow the user key in a history key.
pub(super) const HISTORY_SUFFIX_BYTES: usize = 12;
/// Bytes before the user key in a changes key.
const CHANGE_PREFIX_BYTES: usize = 12;
/// Bytes of the place of a lease.
const LEASE_RECORD_KEY_BYTES: usize = 24;
/// Key of the store's stamp in the root tree.
pub const STAMP_KEY: [u8; 8] = [0; 8];

/// Appends the memcomparable form of `key`: groups of eight bytes, zero-padded,
/// each followed by 255 less the number of padding bytes. The form sorts as the
/// key does and no form is a prefix of another, so a suffix cannot disturb the
/// order. Source: `MyRocks` memcomparable format, as used by `TiKV`.
pub fn push_memcomparable(key: &[u8], out: &mut Vec<u8>) {
    let mut rest = key;
    loop {
        let group = rest.len().min(GROUP_BYTES);
        let (head, tail) = rest.split_at(group);
        let padding = GROUP_BYTES - group;
        out.extend_from_slice(head);
        out.resize(out.len() + padding, 0);
        out.push(u8::MAX - u8::try_from(padding).unwrap_or(u8::MAX));
        if padding > 0 {
            return;
        }
        rest = tail;
    }
}

/// Reads a memcomparable form; the key and what follows it. `None` if the
/// bytes are not such a form.
pub fn read_memcomparable(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut key = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let (group, tail) = rest.split_at_checked(GROUP_BYTES + 1)?;
        let (content, marker) = group.split_at(GROUP_BYTES);
        let padding = usize::from(u8::MAX - *marker.first()?);
        if padding > GROUP_BYTES {
            return None;
        }
        let (head, zeroes) = content.split_at(GROUP_BYTES - padding);
        if zeroes.iter().any(|byte| *byte != 0) {
            return None;
        }
        key.extend_from_slice(head);
        rest = tail;
        if padding > 0 {
            return Some((key, rest));
        }
    }
}

/// Where a version of a key lies in the history tree; also the position of a
/// record in a snapshot.
pub fn history_key(key: &[u8], version: Version, sub: u32) -> Vec<u8> {
    let mut out = history_prefix(key);
    out.extend_from_slice(&(!version.0).to_be_bytes());
    out.extend_from_slice(&(!sub).to_be_bytes());
    out
}

/// What the history keys of all versions of `key` begin with.
pub fn history_prefix(key: &[u8]) -> Vec<u8> {
    let groups = key.len() / GROUP_BYTES + 1;
    let mut out = Vec::with_capacity(groups * (GROUP_BYTES + 1) + HISTORY_SUFFIX_BYTES);
    push_memcomparable(key, &mut out);
    out
}

/// A bound above the history keys of all versions of `key`.
pub fn history_end(key: &[u8]) -> Vec<u8> {
    let mut out = history_prefix(key);
    out.extend_from_slice(&[u8::MAX; HISTORY_SUFFIX_BYTES + 1]);
    out
}

/// Reads a history key: user key, version, sub.
pub fn read_history_key(bytes: &[u8]) -> Option<(Vec<u8>, Version, u32)> {
    let (key, suffix) = read_memcomparable(bytes)?;
    let (version, sub) = suffix.split_at_checked(8)?;
    let version = !u64::from_be_bytes(version.try_into().ok()?);
    let sub = !u32::from_be_bytes(sub.try_into().ok()?);
    Some((key, Version(version), sub))
}

/// Where a change lies in the changes tree.
pub fn change_key(version: Version, sub: u32, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHANGE_PREFIX_BYTES + key.len());
    out.extend_from_slice(&version.0.to_be_bytes());
    out.extend_from_slice(&sub.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// A bound below all changes at `version`.
pub fn change_start(version: Version) -> [u8; 8] {
    version.0.to_be_bytes()
}

/// Reads a changes key: version, sub, user key.
pub fn read_change_key(bytes: &[u8]) -> Option<(Version, u32, &[u8])> {
    let (version, rest) = bytes.split_at_checked(8)?;
    let (sub, key) = rest.split_at_checked(4)?;
    let version = Version(u64::from_be_bytes(version.try_into().ok()?));
    Some((version, u32::from_be_bytes(sub.try_into().ok()?), key))
}

/// Where it is noted that a key hangs on a lease.
pub fn lease_key(lease: LeaseId, key: &[u8]) -> Vec<u8> {
    let mut out = lease.0.to_be_bytes().to_vec();
    out.extend_from_slice(key);
    out
}

/// Where a lease itself lies: below the keys of all leases. Replicas that share a
/// store may have leases of one id, which are not the same.
pub fn lease_record_key(replica: ReplicaId, lease: LeaseId) -> [u8; LEASE_RECORD_KEY_BYTES] {
    let mut out = [0; LEASE_RECORD_KEY_BYTES];
    out[8..16].copy_from_slice(&replica.0.to_be_bytes());
    out[16..].copy_from_slice(&lease.0.to_be_bytes());
    out
}

/// Reads the place of a lease: whose it is, and which. `None` for the place of a
/// key that hangs on one.
pub fn read_lease_record_key(place: &[u8]) -> Option<(ReplicaId, LeaseId)> {
    let (none, rest) = place.split_first_chunk::<8>()?;
    let (replica, lease) = rest.split_first_chunk::<8>()?;
    let lease = u64::from_be_bytes(lease.try_into().ok()?);
    (*none == [0; 8]).then_some((ReplicaId(u64::from_be_bytes(*replica)), LeaseId(lease)))
}

/// Where a replica's root record lies.
pub fn root_key(replica: ReplicaId) -> [u8; 8] {
    replica.0.to_be_bytes()
}

/// Where the progress of a snapshot being received lies.
pub fn progress_key(replica: ReplicaId) -> [u8; 9] {
    let mut out = [1; 9];
    out[..8].copy_from_slice(&replica.0.to_be_bytes());
    out
}

/// Where it is noted how far a replica's history was swept.
pub fn swept_key(replica: ReplicaId) -> [u8; 9] {
    let mut out = [2; 9];
    out[..8].copy_from_slice(&replica.0.to_be_bytes());
    out
}

/// The first key after all keys that begin with `prefix`; `None` if there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let cut = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=cut)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_keys_are_pinned() {
        let key = history_key(b"abcdefghi", Version(0x0102), 3);
        let pinned = [
            &b"abcdefgh"[..],
            &[0xff],
            &b"i"[..],
            &[0; 7],
            &[0xff - 7],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xfd],
            &[0xff, 0xff, 0xff, 0xfc],
        ];
        assert_eq!(key, pinned.concat());
        let pinned = [&[0, 0, 0, 0, 0, 0, 1, 2][..], &[0, 0, 0, 3], b"k"].concat();
        assert_eq!(change_key(Version(0x0102), 3, b"k"), pinned);
        assert_eq!(lease_key(LeaseId(7), b"k"), *b"\0\0\0\0\0\0\0\x07k");
        let place = lease_record_key(ReplicaId(5), LeaseId(7));
        assert_eq!(place, *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x07");
        assert_eq!(root_key(ReplicaId(7)), [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(progress_key(ReplicaId(7)), [0, 0, 0, 0, 0, 0, 0, 7, 1]);
        assert_eq!(swept_key(ReplicaId(7)), [0, 0, 0, 0, 0, 0, 0, 7, 2]);
    }

    #[test]
    fn memcomparable_keys_sort_as_the_keys_do_and_read_back() {
        let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0; 8], vec![0; 9], vec![255; 8]];
        for n in 0..20_usize {
            keys.push(b"12345678abcdefgh"[..n.min(16)].to_vec());
            keys.push([&[1, 2, 3, 4, 5, 6, 7][..], &vec![255; n]].concat());
        }
        let form = |key: &[u8]| history_key(key, Version(9), 1);
        for a in &keys {
            assert_eq!(read_history_key(&form(a)), Some((a.clone(), Version(9), 1)));
            assert!(form(a) > history_prefix(a) && form(a) < history_end(a));
            for b in &keys {
                assert_eq!(a.cmp(b), form(a).cmp(&form(b)), "{a:?} {b:?}");
                assert_eq!(a < b, history_end(a) < form(b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn the_longest_key_fits_what_the_engine_takes() {
        let longest = [7; crate::limits::KEY_BYTES_MAX];
        assert_eq!(history_key(&longest, Version(1), 0).len(), 1_173);
        assert!(change_key(Version(1), 0, &longest).len() < 1_984);
    }

    #[test]
    fn a_lease_lies_below_all_keys_that_hang_on_leases_and_is_told_from_them() {
        let last = lease_record_key(ReplicaId(u64::MAX), LeaseId(u64::MAX));
        let first = lease_key(LeaseId(1), &[0]);
        assert!(last[..] < first[..]);
        let place = lease_record_key(ReplicaId(5), LeaseId(7));
        assert_eq!(read_lease_record_key(&place), Some((ReplicaId(5), LeaseId(7))));
        let key = lease_key(LeaseId(1), &place[8..]);
        assert_eq!(read_lease_record_key(&key), None, "a key of sixteen bytes");
    }

    #[test]
    fn newer_versions_come_first() {
        let key = |version, sub| history_key(b"k", Version(version), sub);
        assert!(key(9, 0) < key(8, 0) && key(9, 2) < key(9, 1));
    }

    #[test]
    fn bent_forms_are_refused() {
        for bad in [&b"abc"[..], &[1, 2, 3, 4, 5, 6, 7, 8, 0xf0], &[1, 0, 0, 0, 0, 0, 0, 9, 0xf8]] {
            assert_eq!(read_memcomparable(bad), None);
        }
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
