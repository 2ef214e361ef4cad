//! The stamp of a store: whose it is, and in which format.
//!
//! ```text
//! 0        2          4     8          16        32     48
//! | format | reserved | crc | store id | cluster | node |
//! ```
//! Little-endian. It is written with the store and checked at every opening,
//! so a swapped disk or the directory of another cluster is refused.

use cluster::{
    ids::{ClusterId, NodeId, StoreId},
    ports::engine::EngineError,
};

/// Newest format of a store this release reads and writes.
const FORMAT: u16 = 1;
const STAMP_BYTES: usize = 48;

/// Whose a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) store: StoreId,
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

impl Stamp {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut body = self.store.0.to_le_bytes().to_vec();
        body.extend_from_slice(&self.cluster.0.to_le_bytes());
        body.extend_from_slice(&self.node.0.to_le_bytes());
        let mut out = FORMAT.to_le_bytes().to_vec();
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        out.extend(body);
        out
    }

    /// Checks the stamp found in a store against what it should be.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), EngineError> {
        let store = self.store;
        let damaged = |cause: &str| EngineError::Damaged { store, cause: cause.to_owned() };
        if bytes.len() < STAMP_BYTES {
            return Err(damaged("its stamp is cut short"));
        }
        let number = |at: usize, n: usize| {
            let bytes = bytes.get(at..at + n).unwrap_or_default();
            bytes.iter().rev().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte))
        };
        let found = u16::try_from(number(0, 2)).unwrap_or(u16::MAX);
        if found > FORMAT {
            return Err(EngineError::NewerFormat { store, found, supported: FORMAT });
        }
        if u128::from(crc32c::crc32c(bytes.get(8..STAMP_BYTES).unwrap_or_default())) != number(4, 4)
        {
            return Err(damaged("its stamp does not match its checksum"));
        }
        if number(8, 8) != u128::from(store.0) {
            let cause = format!("it is stamped store-{}", number(8, 8));
            return Err(EngineError::Foreign { store, cause });
        }
        let (cluster, node) = (ClusterId(number(16, 16)), NodeId(number(32, 16)));
        if (cluster, node) != (self.cluster, self.node) {
            let cause = format!(
                "it belongs to node {node} of cluster {cluster}, this is node {} of cluster {}: \
                 put the disk back where it came from",
                self.node, self.cluster
            );
            return Err(EngineError::Foreign { store, cause });
        }
        Ok(())
    }
}
