//! What a replica keeps beside its data: one root record, written in the same
//! batch as the data it speaks of.
//!
//! ```text
//! 0         2          4     8         16     24        32      40      48          56
//! | version | reserved | crc | applied | term | version | clock | count | compacted | frame …
//! ```
//! The fixed part (the [`Mark`], little-endian, with its own checksum) says
//! where a view stands and is read with every view. The frame holds the rest:
//! descriptor, configuration, sessions, accounts, the last restore, how many keys
//! there are. Leases have records of their own; the root has the time they run on.

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    descriptor::ShardDescriptor,
    leases::Leases,
    restore::Restore,
    sessions::{SessionRecord, Sessions},
};
use crate::{
    auth::Accounts,
    formats::{self, FrameKind, decode_frame, encode_frame},
    ids::{LogIndex, ReplicaId, Term},
    mvcc::{
        tally::Tally,
        version::{Hlc, Version, VersionKind},
    },
    raft::types::Configuration,
};

/// Version of the root record's format.
pub const ROOT_VERSION: u16 = 2;
/// Bytes of the fixed part.
pub const MARK_BYTES: usize = 56;
/// Largest root record believed: 1,024 sessions of 64 replies of 1 KiB.
pub const ROOT_BYTES_MAX: usize = 64 << 20;

/// What a shard stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ShardRole {
    /// Keys and values of a volume.
    Data,
    /// The catalog's typed records.
    Catalog,
}

/// Where a replica, or a view of it, stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Last entry applied.
    pub applied: LogIndex,
    /// Its term.
    pub term: Term,
    /// Last version that changed a key.
    pub version: Version,
    /// Closed time: no later entry gets this point of time or an earlier one.
    pub clock: Hlc,
    /// Commands that changed a key, counted from 1.
    pub count: u64,
    /// Versions below this one may be gone from the history.
    pub compacted: Version,
}

/// Everything about a replica that is not its data.
#[derive(Clone, Debug)]
pub struct Root {
    /// Where it stands.
    pub mark: Mark,
    /// Which clock names its versions.
    pub versions: VersionKind,
    /// What it stores.
    pub role: ShardRole,
    /// Monotonic milliseconds the shard's leaders have counted.
    pub shard_time_ms: u64,
    /// Predicate, epoch and replicas.
    pub descriptor: Arc<ShardDescriptor>,
    /// Voters and learners as Raft runs with them.
    pub configuration: Arc<Configuration>,
    /// Exactly-once bookkeeping.
    pub sessions: Sessions,
    /// Keys that hang on a time. They lie beside the record, and are read for themselves.
    pub leases: Leases,
    /// Who may do what behind the doors that ask.
    pub accounts: Arc<Accounts>,
    /// The last restore: what marks a shard that is not whole.
    pub restore: Option<Arc<Restore>>,
    /// How many keys there are.
    pub tally: Tally,
}

/// Bytes that are no root record of this replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// They are not what was written.
    #[error("root record is damaged: {0}")]
    Damaged(String),
    /// Written by another release.
    #[error("root record has format {found}, this release reads format {ROOT_VERSION}")]
    OtherFormat {
        /// Format found.
        found: u16,
    },
    /// It is another replica's.
    #[error("root record belongs to {found}")]
    Foreign {
        /// Whose it is.
        found: ReplicaId,
    },
}

/// The part of a root record inside its frame.
#[derive(Archive, Serialize, Deserialize)]
struct RootBody {
    replica: ReplicaId,
    versions: VersionKind,
    role: ShardRole,
    shard_time_ms: u64,
    descriptor: ShardDescriptor,
    configuration: Configuration,
    sessions: Vec<SessionRecord>,
    accounts: Accounts,
    restore: Option<Restore>,
    tally: Tally,
}

impl Mark {
    /// Reads below this version need nothing any more that a newer one hides.
    /// It lies one below the oldest that can be read, so that a watch may begin
    /// there, see its changes and what they replaced.
    pub fn floor(&self) -> Version {
        Version(self.compacted.0.saturating_sub(1))
    }

    fn write(&self) -> [u8; MARK_BYTES] {
        let words = [
            self.applied.0,
            self.term.0,
            self.version.0,
            self.clock.0,
            self.count,
            self.compacted.0,
        ];
        let mut out = [0; MARK_BYTES];
        let (start, rest) = out.split_at_mut(8);
        for (place, word) in rest.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(rest).to_le_bytes();
        let (version, crc_place) = start.split_at_mut(4);
        version[..2].copy_from_slice(&ROOT_VERSION.to_le_bytes());
        crc_place.copy_from_slice(&crc);
        out
    }

    /// Reads the fixed part of a root record.
    ///
    /// # Errors
    /// If it is damaged or of another release.
    pub fn read(bytes: &[u8]) -> Result<Self, RootError> {
        let short = || RootError::Damaged("it is cut short".to_owned());
        let fixed = bytes.first_chunk::<MARK_BYTES>().ok_or_else(short)?;
        let (start, rest) = fixed.split_at(8);
        if crc32c::crc32c(rest).to_le_bytes() != start[4..8] {
            return Err(RootError::Damaged("its fixed part fails the checksum".to_owned()));
        }
        let found = u16::from_le_bytes([start[0], start[1]]);
        if found != ROOT_VERSION {
            return Err(RootError::OtherFormat { found });
        }
        let mut words = rest
            .chunks_exact(8)
            .map(|word| word.try_into().map(u64::from_le_bytes).unwrap_or_default());
        let mut next = || words.next().unwrap_or_default();
        Ok(Self {
            applied: LogIndex(next()),
            term: Term(next()),
            version: Version(next()),
            clock: Hlc(next()),
            count: next(),
            compacted: Version(next()),
        })
    }
}

impl Root {
    /// The root of a replica that has applied nothing.
    pub fn birth(descriptor: &ShardDescriptor, versions: VersionKind, role: ShardRole) -> Self {
        // etcd's first revision is that of an empty store.
        let first = u64::from(versions == VersionKind::Dense && role == ShardRole::Data);
        let mark = Mark { version: Version(first), count: first, ..Mark::default() };
        Self {
            mark,
            versions,
            role,
            shard_time_ms: 0,
            configuration: Arc::new(super::configuration::of_replicas(&descriptor.replicas)),
            descriptor: Arc::new(descriptor.clone()),
            sessions: Sessions::default(),
            leases: Leases::default(),
            accounts: Arc::default(),
            restore: None,
            tally: Tally::default(),
        }
    }

    /// The time that leases run on, at a point of shard time.
    pub fn lease_time_ms(&self, shard_time_ms: u64) -> u64 {
        let restored = self.restore.as_ref();
        restored.map_or(shard_time_ms, |restore| restore.lease_time_ms(shard_time_ms))
    }

    /// The newest point that no later entry can change: what a read without a
    /// version reads at.
    pub fn now(&self) -> Version {
        match self.versions {
            VersionKind::Dense => self.mark.version,
            VersionKind::Hybrid => Version(self.mark.clock.0),
        }
    }

    /// Its bytes, addressed to `replica`.
    pub fn encode(&self, replica: ReplicaId) -> Vec<u8> {
        let body = RootBody {
            replica,
            versions: self.versions,
            role: self.role,
            shard_time_ms: self.shard_time_ms,
            descriptor: ShardDescriptor::clone(&self.descriptor),
            configuration: Configuration::clone(&self.configuration),
            sessions: self.sessions.records(),
            accounts: Accounts::clone(&self.accounts),
            restore: self.restore.as_deref().cloned(),
            tally: self.tally,
        };
        let mut out = self.mark.write().to_vec();
        out.extend(encode_frame(FrameKind::Root, ROOT_VERSION, &formats::to_bytes(&body)));
        out
    }

    /// Reads a root record and whose it is; its leases are not in it.
    ///
    /// # Errors
    /// If it is damaged or of another release.
    pub fn decode(bytes: &[u8]) -> Result<(ReplicaId, Self), RootError> {
        let mark = Mark::read(bytes)?;
        let framed = bytes.get(MARK_BYTES..).unwrap_or_default();
        let damaged = |cause: String| RootError::Damaged(cause);
        let (header, payload) =
            decode_frame(framed, ROOT_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
        if header.kind != FrameKind::Root {
            return Err(damaged("it is a frame of another kind".to_owned()));
        }
        if header.version != ROOT_VERSION {
            return Err(RootError::OtherFormat { found: header.version });
        }
        let body: RootBody = formats::from_bytes(payload).map_err(|error| damaged(error.0))?;
        let root = Self {
            mark,
            versions: body.versions,
            role: body.role,
            shard_time_ms: body.shard_time_ms,
            descriptor: Arc::new(body.descriptor),
            configuration: Arc::new(body.configuration),
            sessions: Sessions::from_records(body.sessions),
            leases: Leases::default(),
            accounts: Arc::new(body.accounts),
            restore: body.restore.map(Arc::new),
            tally: body.tally,
        };
        Ok((body.replica, root))
    }
}
