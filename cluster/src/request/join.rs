//! How a node that is new comes into the cluster.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    ids::{ClusterId, NodeId},
    membership::Boot,
};

/// A stranger asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's secret.
    pub secret: [u8; 32],
    /// The id born with its data directory.
    pub node: NodeId,
    /// Certificate signing request (DER).
    pub signing_request: Vec<u8>,
    /// Where its QUIC port is reached.
    pub addresses: Vec<String>,
    /// Where its HTTP port is reached.
    pub http_address: String,
    /// Failure domain.
    pub zone: String,
    /// Bytes it offers.
    pub capacity_bytes: u64,
    /// Its first start.
    pub boot: Boot,
}

/// What a new node needs.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its number, for people.
    pub number: u64,
    /// Its certificate (DER).
    pub certificate: Vec<u8>,
    /// The authority's certificate (DER).
    pub authority: Vec<u8>,
    /// Key that opens the sealed authority key.
    pub cluster_key: [u8; 32],
    /// Members to gossip with: id and addresses.
    pub members: Vec<(NodeId, Vec<String>)>,
}

impl fmt::Debug for JoinAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinAnswer")
            .field("cluster", &self.cluster)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
