//! What one node says about itself: the JSON behind the node-status request.
//!
//! The node assembles it, `cdb status`, `cdb node show` and scripts read it.
//! Fields are only ever added; a reader ignores what it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One node's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its id, 32 hexadecimal digits.
    pub node: String,
    /// Its number for people: 2 for `n2`.
    pub number: u64,
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Its process.
    pub pid: u32,
    /// Name of the machine it runs on (`sysinfo::System::host_name`); a process
    /// id means something only there.
    pub host: String,
    /// Failure domain.
    pub zone: String,
    /// Where its QUIC port is reached.
    pub addresses: Vec<String>,
    /// Where its HTTP port is reached; empty if it has none.
    pub http_address: String,
    /// Where the doors it has opened are reached, by name.
    pub doors: BTreeMap<String, String>,
    /// How often it has started.
    pub incarnation: u64,
    /// Time since it started.
    pub uptime_ms: u64,
    /// `starting`, `ready`, `degraded` or `stopping`.
    pub state: String,
    /// Why it is not ready; one sentence each.
    pub problems: Vec<String>,
    /// Other nodes it sees up, as 32 hexadecimal digits.
    pub peers_up: Vec<String>,
    /// What it holds in memory.
    pub memory: MemoryStatus,
    /// Its disks.
    pub disks: Vec<DiskStatus>,
    /// Its replicas.
    pub replicas: Vec<ReplicaSummary>,
    /// Release and commit it was built from.
    pub version: String,
}

/// What a node holds in memory, by part, and the cap of all parts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStatus {
    /// `limits.memory`.
    pub limit_bytes: u64,
    /// Applied and not yet in stores.
    pub overlay_bytes: u64,
    /// In Raft's logs in memory.
    pub entries_bytes: u64,
    /// Of requests under way.
    pub requests_bytes: u64,
    /// Of Raft messages that wait.
    pub inbox_bytes: u64,
}

impl MemoryStatus {
    /// All parts together.
    pub fn held_bytes(&self) -> u64 {
        self.overlay_bytes + self.entries_bytes + self.requests_bytes + self.inbox_bytes
    }
}

/// One disk of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskStatus {
    /// Its data directory.
    pub directory: String,
    /// Bytes used by this node on it.
    pub used_bytes: u64,
    /// Bytes the file system still has.
    pub free_bytes: u64,
    /// Bytes the node offers.
    pub capacity_bytes: u64,
    /// Syncs of the log since the start (one fdatasync each).
    pub log_syncs: u64,
    /// Records appended to the log since the start.
    pub log_records: u64,
    /// Bytes appended to the log since the start.
    pub log_bytes: u64,
    /// How much of its limit (`limits.store`) the fullest store uses, in percent.
    pub fullest_store_percent: u64,
    /// Why the disk is fenced, if it is.
    pub fenced: Option<String>,
}

/// One replica in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaSummary {
    /// Its id.
    pub replica: u64,
    /// Its shard.
    pub shard: u64,
    /// Its volume.
    pub volume: u64,
    /// Whether it leads.
    pub leading: bool,
    /// Whether it has a vote.
    pub voter: bool,
    /// Where it sees the leader, 32 hexadecimal digits.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// Applied position.
    pub applied: u64,
    /// Committed position.
    pub committed: u64,
    /// Last position.
    pub last: u64,
    /// Whether it sleeps.
    pub hibernating: bool,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
    /// Why it is lost, if it is: the cluster replaces it.
    pub lost: Option<String>,
    /// How much of the snapshot that fills it has come, in percent.
    pub filled_percent: u64,
}
