//! What clients and nodes ask of a node, and what it answers: the native door.
//!
//! One request form for all: the command line, the library and a node that
//! forwards. Every data request names shard and epoch; a stale one gets the
//! newer descriptor instead of an answer; at most one node forwards it.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

mod fault;
mod join;
mod shard;
mod snapshot;

use rkyv::{Archive, Deserialize, Serialize};

pub use self::{
    fault::Fault,
    join::{JoinAnswer, JoinRequest},
    shard::{
        Item, ReadLevel, ReplicaStatus, ShardAnswer, ShardBody, ShardRequest, ShardResult,
        WriteLevel,
    },
    snapshot::{SnapshotPiece, SnapshotPieceRequest, SnapshotRecord},
};
use crate::{
    formats::{InvalidRecord, from_bytes, to_versioned_bytes},
    ids::CATALOG_SHARD,
    mvcc::version::Version,
    ports::network::RequestClass,
};

/// Version of the request and answer encoding, first in every body (`u16`,
/// little-endian).
pub const REQUEST_VERSION: u16 = 1;

/// A body that is no request or answer of a version we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// Too short for its version.
    #[error("the body is empty")]
    Empty,
    /// Written by another release.
    #[error("the body has version {found}, this release speaks {REQUEST_VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// Not what it should be.
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
}

impl Request {
    /// The class it travels in; both ends judge it by this one table.
    pub fn class(&self) -> RequestClass {
        match self {
            Self::Shard(request) if request.shard == CATALOG_SHARD => RequestClass::Admin,
            Self::Shard(_) => RequestClass::Data,
            Self::CatalogChanges { .. } | Self::NodeStatus | Self::NewToken { .. } => {
                RequestClass::Admin
            }
            Self::SnapshotPiece(_) => RequestClass::Bulk,
            Self::Join(_) => RequestClass::Join,
        }
    }

    /// The request as bytes of a frame's payload.
    pub fn encode(&self) -> Vec<u8> {
        to_versioned_bytes(REQUEST_VERSION, self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are of another version or no request.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBody> {
        Ok(from_bytes(body(bytes)?)?)
    }
}

impl Answer {
    /// The answer as bytes of a frame's payload.
    pub fn encode(&self) -> Vec<u8> {
        to_versioned_bytes(REQUEST_VERSION, self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are of another version or no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBody> {
        Ok(from_bytes(body(bytes)?)?)
    }
}

fn body(bytes: &[u8]) -> Result<&[u8], BadBody> {
    let (version, rest) = bytes.split_first_chunk::<2>().ok_or(BadBody::Empty)?;
    match u16::from_le_bytes(*version) {
        REQUEST_VERSION => Ok(rest),
        found => Err(BadBody::Version { found }),
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Request {
    /// To one shard.
    Shard(ShardRequest),
    /// What this node knows: catalog records changed after a version. The
    /// answer waits up to `wait_ms` for something newer.
    CatalogChanges {
        /// Last version the asker has.
        after: Version,
        /// How long to wait, in milliseconds (at most 10,000).
        wait_ms: u32,
    },
    /// This node's own state, as JSON for people and scripts.
    NodeStatus,
    /// A piece of a snapshot (nodes only).
    SnapshotPiece(SnapshotPieceRequest),
    /// Admission of a new node (the only request open to strangers).
    Join(JoinRequest),
    /// A new join token (administrators only).
    NewToken {
        /// How long it lets a node in, in milliseconds, from 1 to
        /// [`crate::limits::TOKEN_LIFETIME_MS_MAX`].
        lifetime_ms: u32,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// Of a shard.
    Shard(ShardAnswer),
    /// Catalog records changed, in key order, and the version they reach.
    CatalogChanges {
        /// The new version to ask after.
        version: Version,
        /// Key and record; none if deleted.
        changes: Vec<(String, Option<Vec<u8>>)>,
    },
    /// JSON.
    NodeStatus(String),
    /// A piece of a snapshot.
    SnapshotPiece(SnapshotPiece),
    /// Admission.
    Joined(JoinAnswer),
    /// A join token as the user types it.
    Token(String),
    /// Not served.
    Fault(Fault),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_another_version_is_refused() {
        let request = Request::CatalogChanges { after: Version(7), wait_ms: 3 };
        let mut bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Ok(request));
        bytes[0] = 9;
        assert_eq!(Request::decode(&bytes), Err(BadBody::Version { found: 9 }));
        assert_eq!(Request::decode(&[]), Err(BadBody::Empty));
    }
}
