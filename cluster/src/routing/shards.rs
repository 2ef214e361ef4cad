//! From a key to its shard, and from a prefix to the shards that may hold it.
//!
//! A shard's predicate says which keys it owns; the predicates of a volume's
//! shards never overlap, so the first that owns a key is the one.

use crate::shard::descriptor::{Predicate, ShardDescriptor};

/// The shard that owns `key`. `None` only while a map is half learnt.
pub fn shard_of<'a>(
    shards: impl IntoIterator<Item = &'a ShardDescriptor>,
    key: &[u8],
) -> Option<&'a ShardDescriptor> {
    shards.into_iter().find(|shard| shard.predicate.owns(key))
}

/// The shards a list under `prefix` must ask.
pub fn listing_shards<'a>(
    shards: impl IntoIterator<Item = &'a ShardDescriptor>,
    prefix: &[u8],
) -> Vec<&'a ShardDescriptor> {
    shards.into_iter().filter(|shard| covers_prefix(&shard.predicate, prefix)).collect()
}

/// Whether a shard may own a key that begins with `prefix`.
pub fn covers_prefix(predicate: &Predicate, prefix: &[u8]) -> bool {
    match predicate {
        Predicate::Hash { .. } => true,
        Predicate::Range { from, to } => {
            let starts_in_time = to.is_empty() || prefix < to.as_slice();
            let ends_late_enough = from.as_slice() <= prefix || from.starts_with(prefix);
            starts_in_time && ends_late_enough
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, ShardId, VolumeId};

    fn shard(id: u64, predicate: Predicate) -> ShardDescriptor {
        ShardDescriptor {
            shard: ShardId(id),
            volume: VolumeId(2),
            epoch: Epoch(1),
            predicate,
            replicas: Vec::new(),
        }
    }

    fn range(from: &str, to: &str) -> Predicate {
        Predicate::Range { from: from.into(), to: to.into() }
    }

    #[test]
    fn every_key_of_a_hash_volume_has_exactly_one_shard() {
        let shards: Vec<_> =
            (1..).zip(Predicate::hash_parts(7)).map(|(id, part)| shard(id, part)).collect();
        for number in 0..500 {
            let key = format!("key {number}");
            let owners = shards.iter().filter(|s| s.predicate.owns(key.as_bytes())).count();
            assert_eq!(owners, 1);
            assert!(shard_of(&shards, key.as_bytes()).is_some());
        }
    }

    #[test]
    fn a_prefix_asks_only_the_ranges_it_can_meet() {
        let shards =
            [shard(1, range("", "f")), shard(2, range("f", "foo/m")), shard(3, range("foo/m", ""))];
        let ids = |prefix: &str| -> Vec<u64> {
            listing_shards(&shards, prefix.as_bytes()).iter().map(|s| s.shard.0).collect()
        };
        assert_eq!(ids(""), [1, 2, 3]);
        assert_eq!(ids("a"), [1]);
        assert_eq!(ids("foo/"), [2, 3]);
        assert_eq!(ids("foo/z"), [3]);
        assert_eq!(ids("f"), [2, 3]);
    }
}
