//! Changes of the catalog, and what they answer.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use rkyv::{Archive, Deserialize, Serialize};

use super::record::{ClusterRecord, Loss, NodeRecord, VolumePolicy, VolumeRecord};
use crate::{
    ids::{NodeId, ReplicaId, ShardId, TenantId, VolumeId},
    membership::Boot,
    mvcc::compaction::HistoryPolicy,
    shard::descriptor::{ReplicaDescriptor, ShardDescriptor},
    units::WallTime,
};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum CatalogCommand {
    /// The first entry of a cluster: its record, its first node, its own shard.
    Bootstrap {
        /// The cluster.
        cluster: ClusterRecord,
        /// The first node (its number is given by apply).
        node: NodeRecord,
        /// The catalog shard itself.
        catalog: ShardDescriptor,
    },
    /// Keeps a new join token, by hash.
    AddToken {
        /// SHA-256 of the secret.
        hash: [u8; 32],
        /// End of its life.
        expires: WallTime,
    },
    /// Uses a token up and admits a node. The same node may repeat it.
    AdmitNode {
        /// SHA-256 of the secret.
        hash: [u8; 32],
        /// The proposer's wall clock, to judge expiry the same everywhere.
        now: WallTime,
        /// The node (its number is given by apply).
        node: NodeRecord,
    },
    /// A node has started: its addresses and boot.
    RegisterBoot {
        /// Which.
        node: NodeId,
        /// Its start; a lower or forged one is refused.
        boot: Boot,
        /// Where its QUIC port is reached.
        addresses: Vec<String>,
        /// Where its HTTP port is reached.
        http_address: String,
        /// Its failure domain.
        zone: String,
        /// Bytes it offers.
        capacity_bytes: u64,
    },
    /// Removes a node for good.
    RemoveNode(NodeId),
    /// Creates a volume; shards get ids and wait for placement.
    CreateVolume {
        /// Its owner.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// Its policy.
        policy: VolumePolicy,
    },
    /// Lets a volume keep more of its past from now on, or less.
    SetHistory {
        /// Its owner.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// How much.
        history: HistoryPolicy,
    },
    /// The plan for one shard that waits for placement: nodes of its voters.
    PlaceShard {
        /// Which.
        shard: ShardId,
        /// One voter on each; ids are given by apply.
        nodes: Vec<NodeId>,
    },
    /// A newer descriptor seen in the shard's own log.
    ObserveShard(ShardDescriptor),
    /// Marks a volume for deletion; its replicas are destroyed, then it goes.
    DeleteVolume {
        /// Its owner.
        tenant: TenantId,
        /// Its name.
        name: String,
    },
    /// All replicas of a deleted volume are gone: forget it.
    ForgetVolume(VolumeId),
    /// Every shard of a new volume is placed: it may be used.
    MarkReady(VolumeId),
    /// The intent that a placed shard gets one more replica on a node; its id
    /// is given by apply. The node creates it empty and waits; the shard's
    /// leader then adds it as a learner.
    AllotReplica {
        /// Which.
        shard: ShardId,
        /// Where.
        node: NodeId,
    },
    /// Takes an allotted replica back that never entered the shard's log.
    WithdrawReplica {
        /// Which.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
    },
    /// A node says that a replica on it must never vote or acknowledge again:
    /// its bytes are damaged, old or gone. It cannot be taken back.
    ReportLost {
        /// Which.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// What happened to it.
        loss: Loss,
    },
    /// A node says that it destroyed its replica of a deleted shard, or never
    /// made it (and never will, for the shard is marked).
    ObserveDestroyed {
        /// Which.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
    },
}

/// What a change of the catalog answers.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum CatalogOutcome {
    /// Done.
    Done,
    /// The node as admitted or registered.
    Node(NodeRecord),
    /// The volume as created or marked.
    Volume(VolumeRecord),
    /// The shard as placed.
    Shard(ShardDescriptor),
    /// The replica as allotted.
    Replica(ReplicaDescriptor),
    /// Not done, with the reason.
    Refused(CatalogRefusal),
}

/// Why the catalog refused a change; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum CatalogRefusal {
    #[error("the cluster exists already")]
    AlreadyBootstrapped,
    #[error("no such join token: make one with `cdb cluster token`")]
    UnknownToken,
    #[error("the join token has expired: make a new one with `cdb cluster token`")]
    ExpiredToken,
    #[error("the join token was used by another node: make a new one with `cdb cluster token`")]
    UsedToken,
    #[error("node {0} is not a member")]
    UnknownNode(NodeId),
    #[error("node {0} was removed; start it with an empty data directory and a new token")]
    RemovedNode(NodeId),
    #[error("node {node} showed an older or different start: its disk is an old image")]
    OldBoot {
        node: NodeId,
        /// The latest start the catalog knows of it.
        seen: Boot,
        /// No replica with a higher id was handed out before this answer.
        born_up_to: ReplicaId,
    },
    #[error("a volume named {0} exists already")]
    VolumeExists(String),
    #[error("there is no volume named {0}")]
    UnknownVolume(String),
    #[error("there is no shard {0}")]
    UnknownShard(ShardId),
    #[error("the shard is placed already")]
    AlreadyPlaced,
    #[error("{0}")]
    Invalid(String),
}
