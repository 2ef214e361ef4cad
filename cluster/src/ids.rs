//! Names of things: one newtype per kind of id, each with a short `Display`.
//!
//! Nodes and clusters carry random 128-bit ids that are born with a data
//! directory and never reused. Everything the catalog hands out (tenants,
//! volumes, shards, replicas) is a dense `u64`; zero is never handed out, so
//! it can stand for "none" in fixed headers.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
        )]
        #[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
        )]
        #[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash))]
        pub struct $name(pub u128);

        impl $name {
            /// The whole id as 32 lower-case hexadecimal digits.
            pub fn to_hex(self) -> String {
                format!("{:032x}", self.0)
            }

            /// Reads what [`Self::to_hex`] wrote; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                if text.len() != 32 {
                    return None;
                }
                u128::from_str_radix(text, 16).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:08x}"), self.0 >> 96)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

wide_id! {
    /// One running process with one data directory. Random, never reused:
    /// giving a removed node's id to an empty directory could form two quorums.
    NodeId, "n-"
}
wide_id! {
    /// Nodes that share one certificate authority.
    ClusterId, "c-"
}
wide_id! {
    /// A line of starts of a node: the [`Incarnation`] it began with (the upper
    /// half), and chance. It tells a restart from a restored old disk image.
    BootNonce, "boot-"
}

id! {
    /// Owner of volumes and principals.
    TenantId(u64), "t"
}
id! {
    /// A named data set with its own policy.
    VolumeId(u64), "v"
}
id! {
    /// What one Raft group owns of a volume.
    ShardId(u64), "s"
}
id! {
    /// One shard's copy on one node; new for each placement, never reused.
    ReplicaId(u64), "r"
}
id! {
    /// A client session within one shard: the position of the entry that opened it.
    SessionId(u64), "session-"
}
id! {
    /// A lease within one shard, chosen by who asks for it; zero is none. etcd's
    /// are positive and signed, so the highest bit stays clear.
    LeaseId(u64), "lease-"
}
id! {
    /// Number of a shard's predicate and voters; rises with each change.
    Epoch(u64), "e"
}
id! {
    /// How often a node has started; synced to disk before it is shown.
    Incarnation(u64), "i"
}
id! {
    /// Raft term.
    Term(u64), "term "
}
id! {
    /// Position of an entry in one shard's log. The first entry is 1.
    LogIndex(u64), "#"
}
id! {
    /// One LMDB environment (or its in-memory stand-in) on one disk.
    StoreId(u64), "store-"
}

/// The shard every cluster is born with: the catalog.
pub const CATALOG_SHARD: ShardId = ShardId(1);
/// The volume that holds the catalog shard. It belongs to no user.
pub const CATALOG_VOLUME: VolumeId = VolumeId(1);
/// The tenant every cluster is born with.
pub const FIRST_TENANT: TenantId = TenantId(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_what_it_wrote() {
        let id = NodeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(NodeId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(id.to_string(), "n-01234567");
    }

    #[test]
    fn hex_of_another_length_is_refused() {
        assert_eq!(NodeId::from_hex("abc"), None);
        assert_eq!(NodeId::from_hex(&"g".repeat(32)), None);
    }
}
