//! The report of a cluster's health, out of what its nodes said. Pure.

mod loss;

use std::collections::BTreeMap;

use cluster::{
    catalog::{
        record::{NodeRecord, VolumeState},
        view::CatalogView,
    },
    ids::CATALOG_VOLUME,
    units::ByteSize,
};
use serde::Serialize;

use crate::{
    cli::render::count,
    status::{NodeStatus, ReplicaSummary},
};

/// Entries a replica may be behind its leader before it counts as a finding:
/// what a busy shard applies in about a second.
const LAG_MAX: u64 = 5_000;
/// Share of a disk, in percent, from which it is a finding; writes are refused
/// from 95.
const DISK_PERCENT_MAX: u64 = 90;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Some requests fail.
    Critical,
    /// Another failure would hurt.
    Warning,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What.
    pub text: String,
    /// The command that mends it.
    pub fix: String,
}

/// One node in the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeLine {
    /// `n2`.
    pub name: String,
    /// Its id.
    pub node: String,
    /// `up`, `DOWN`, or what it says of itself.
    pub state: String,
    /// Process, where it answered.
    pub pid: Option<u32>,
    /// Failure domain.
    pub zone: String,
    /// Shards it leads.
    pub leads: usize,
    /// Replicas it hosts.
    pub replicas: usize,
    /// Used and offered bytes, for people.
    pub used: String,
    /// Bytes used.
    pub used_bytes: u64,
    /// Bytes it offers.
    pub capacity_bytes: u64,
    /// Bytes it holds in memory for data under way, and its cap.
    pub memory_bytes: u64,
    /// The cap of its memory, all told.
    pub memory_limit_bytes: u64,
    /// Entries its farthest replica is behind its leader.
    pub lag: u64,
    /// Time since its start.
    pub uptime_ms: u64,
    /// Where its QUIC port is reached.
    pub addresses: Vec<String>,
    /// Where its HTTP port is reached.
    pub http_address: String,
    /// Its release.
    pub version: String,
}

/// The cluster's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its name.
    pub cluster: String,
    /// Whether there is nothing to mend.
    pub healthy: bool,
    /// Its nodes by number.
    pub nodes: Vec<NodeLine>,
    /// Volumes of users.
    pub volumes: usize,
    /// Shards, with the catalog.
    pub shards: usize,
    /// What to mend, worst first.
    pub findings: Vec<Finding>,
}

/// A node and what it said, or why it said nothing.
pub type Said = (NodeRecord, Result<NodeStatus, String>);

/// Makes the report.
pub fn assess(name: &str, view: &CatalogView, said: &[Said]) -> Report {
    let committed = committed(said);
    let nodes: Vec<NodeLine> =
        said.iter().map(|(record, status)| node_line(record, status, &committed)).collect();
    let mut findings = Vec::new();
    for ((record, status), shown) in said.iter().zip(&nodes) {
        match status {
            Err(cause) => findings.push(down(record, cause)),
            Ok(status) => node_findings(shown, status, &mut findings),
        }
    }
    loss::findings(view, said, &mut findings);
    shard_findings(view, said, &mut findings);
    findings.sort_by_key(|finding| finding.severity);
    let cluster = view.cluster().map_or(name, |cluster| cluster.name.as_str());
    Report {
        cluster: cluster.to_owned(),
        healthy: findings.is_empty(),
        nodes,
        volumes: view.volumes().filter(|volume| volume.volume != CATALOG_VOLUME).count(),
        shards: view.shards().count(),
        findings,
    }
}

/// Highest committed position of each shard, as its leader says.
fn committed(said: &[Said]) -> BTreeMap<u64, u64> {
    let mut committed = BTreeMap::new();
    for replica in said.iter().filter_map(|(_, status)| status.as_ref().ok()).flat_map(replicas) {
        let highest = committed.entry(replica.shard).or_default();
        *highest = replica.committed.max(*highest);
    }
    committed
}

fn replicas(status: &NodeStatus) -> impl Iterator<Item = &ReplicaSummary> {
    status.replicas.iter()
}

fn node_line(
    record: &NodeRecord,
    status: &Result<NodeStatus, String>,
    committed: &BTreeMap<u64, u64>,
) -> NodeLine {
    let silent = NodeStatus::default();
    let said = status.as_ref().unwrap_or(&silent);
    let used_bytes = said.disks.iter().map(|disk| disk.used_bytes).sum();
    let behind = |replica: &ReplicaSummary| {
        committed.get(&replica.shard).map_or(0, |at| at.saturating_sub(replica.applied))
    };
    NodeLine {
        name: format!("n{}", record.number),
        node: record.node.to_hex(),
        state: match status {
            Err(_) => "DOWN".into(),
            Ok(said) if said.state.is_empty() || said.state == "ready" => "up".into(),
            Ok(said) => said.state.clone(),
        },
        pid: status.as_ref().ok().map(|said| said.pid),
        zone: record.zone.clone(),
        leads: replicas(said).filter(|replica| replica.leading).count(),
        replicas: said.replicas.len(),
        used: format!("{}/{}", ByteSize(used_bytes), ByteSize(record.capacity_bytes)),
        used_bytes,
        capacity_bytes: record.capacity_bytes,
        lag: replicas(said).map(behind).max().unwrap_or(0),
        memory_bytes: said.memory.held_bytes(),
        memory_limit_bytes: said.memory.limit_bytes,
        uptime_ms: said.uptime_ms,
        addresses: record.addresses.clone(),
        http_address: record.http_address.clone(),
        version: said.version.clone(),
    }
}

fn down(record: &NodeRecord, cause: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        text: format!("n{} does not answer: {cause}", record.number),
        fix: format!("cdb node start {}", record.number),
    }
}

fn node_findings(shown: &NodeLine, status: &NodeStatus, findings: &mut Vec<Finding>) {
    let mut warn = |text: String, fix: String| {
        findings.push(Finding { severity: Severity::Warning, text, fix });
    };
    let restart = format!("cdb node stop {0} && cdb node start {0}", status.number);
    for problem in &status.problems {
        warn(format!("{}: {problem}", shown.name), format!("cdb node show {}", shown.name));
    }
    for disk in &status.disks {
        if let Some(cause) = &disk.fenced {
            warn(format!("{}: its disk is fenced: {cause}", shown.name), restart.clone());
        }
        let offered = disk.capacity_bytes.max(1);
        let percent = disk.used_bytes.saturating_mul(100) / offered;
        if disk.capacity_bytes > 0 && percent >= DISK_PERCENT_MAX {
            let text = format!("{}: {percent} % of its space is used", shown.name);
            warn(text, "cdb volume rm VOLUME, or give it a larger disk".into());
        }
    }
    for replica in replicas(status) {
        if let Some(cause) = &replica.stopped {
            let text =
                format!("{}: its replica of s{} stopped: {cause}", shown.name, replica.shard);
            warn(text, restart.clone());
        }
    }
    if shown.lag > LAG_MAX {
        let text = format!("{} is {} entries behind", shown.name, shown.lag);
        warn(text, "it catches up by itself: cdb status --wait healthy".into());
    }
}

/// Shards with replicas missing or without a leader, counted together: a node
/// that is down touches many.
fn shard_findings(view: &CatalogView, said: &[Said], findings: &mut Vec<Finding>) {
    let mut missing: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut leaderless = Vec::new();
    for record in view.shards().filter(|shard| !shard.deleting) {
        let id = record.descriptor.shard.0;
        let live: Vec<&ReplicaSummary> = said
            .iter()
            .filter_map(|(_, status)| status.as_ref().ok())
            .flat_map(replicas)
            .filter(|replica| replica.shard == id)
            .filter(|replica| replica.stopped.is_none() && replica.lost.is_none())
            .collect();
        let policy = view.volume_by_id(record.descriptor.volume).map(|v| v.policy.replicas);
        let placed = record.descriptor.replicas.len();
        let policy = policy.filter(|_| placed > 0).and_then(|wanted| usize::try_from(wanted).ok());
        let wanted = placed.max(policy.unwrap_or(0));
        if live.len() < wanted {
            *missing.entry((live.len(), wanted)).or_default() += 1;
        }
        // A sleeping group has a leader all the same; it wakes when asked.
        let led = live.iter().any(|replica| replica.leading || replica.hibernating);
        if wanted > 0 && !led {
            leaderless.push(id);
        }
    }
    let starts: Vec<String> = said
        .iter()
        .filter(|(_, status)| status.is_err())
        .map(|(record, _)| format!("cdb node start {}", record.number))
        .collect();
    let fix =
        if starts.is_empty() { "cdb status --wait healthy".into() } else { starts.join(" && ") };
    for ((have, wanted), shards) in missing {
        findings.push(Finding {
            severity: if have * 2 > wanted { Severity::Warning } else { Severity::Critical },
            text: format!("{} with {have} of {wanted} replicas", count(shards, "shard")),
            fix: fix.clone(),
        });
    }
    if let Some(first) = leaderless.first() {
        let text = format!("{} with no leader (s{first} …)", count(leaderless.len(), "shard"));
        findings.push(Finding { severity: Severity::Critical, text, fix });
    }
    for volume in view.volumes().filter(|volume| volume.state == VolumeState::Creating) {
        findings.push(Finding {
            severity: Severity::Warning,
            text: format!("volume {} is still being created", volume.name),
            fix: "cdb status --wait healthy".into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        catalog::{
            encoding,
            record::{NodeState, ShardRecord},
        },
        ids::{Epoch, NodeId, ReplicaId, ShardId, VolumeId},
        mvcc::version::Version,
        shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    };

    use super::*;

    fn record(number: u64) -> NodeRecord {
        NodeRecord {
            node: NodeId(u128::from(number)),
            number,
            addresses: vec![format!("127.0.0.1:740{number}")],
            http_address: String::new(),
            zone: "a".into(),
            capacity_bytes: 1 << 30,
            state: NodeState::Active,
            boot: cluster::membership::Boot::default(),
        }
    }

    pub(super) fn whole_shard() -> ShardRecord {
        let replica = |number: u64| ReplicaDescriptor {
            replica: ReplicaId(number),
            node: NodeId(u128::from(number)),
            role: ReplicaRole::Voter,
        };
        ShardRecord::new(ShardDescriptor {
            shard: ShardId(7),
            volume: VolumeId(2),
            epoch: Epoch(1),
            predicate: Predicate::all(),
            replicas: (1..=3).map(replica).collect(),
        })
    }

    pub(super) fn view_of(shard: &ShardRecord, version: Version) -> CatalogView {
        let mut records: Vec<_> = (1..=3)
            .map(|number| {
                let record = record(number);
                (encoding::node_key(record.node), encoding::encode_record(&record))
            })
            .collect();
        records.push((encoding::shard_key(ShardId(7)), encoding::encode_record(shard)));
        let changes = records.iter().map(|(key, bytes)| (key.as_str(), Some(bytes.as_slice())));
        CatalogView::default().updated(version, changes).unwrap()
    }

    fn view() -> CatalogView {
        view_of(&whole_shard(), Version(1))
    }

    pub(super) fn status(number: u64, leading: bool, applied: u64) -> NodeStatus {
        let replica = ReplicaSummary {
            replica: number,
            shard: 7,
            leading,
            applied,
            committed: applied,
            ..ReplicaSummary::default()
        };
        NodeStatus { number, replicas: vec![replica], ..NodeStatus::default() }
    }

    pub(super) fn said(third: Result<NodeStatus, String>) -> Vec<Said> {
        vec![
            (record(1), Ok(status(1, true, 100))),
            (record(2), Ok(status(2, false, 100))),
            (record(3), third),
        ]
    }

    #[test]
    fn a_cluster_with_everything_in_place_is_healthy() {
        let report = assess("dev", &view(), &said(Ok(status(3, false, 98))));
        assert_eq!(report.findings, []);
        assert!(report.healthy);
        assert_eq!((report.nodes[0].leads, report.nodes[2].lag), (1, 2));
    }

    #[test]
    fn a_node_that_is_down_is_named_with_the_command_that_starts_it() {
        let report = assess("dev", &view(), &said(Err("connection refused".into())));
        assert!(!report.healthy);
        assert_eq!(report.nodes[2].state, "DOWN");
        let texts: Vec<&str> = report.findings.iter().map(|f| f.text.as_str()).collect();
        assert_eq!(
            texts,
            ["n3 does not answer: connection refused", "1 shard with 2 of 3 replicas"]
        );
        assert!(report.findings.iter().all(|finding| finding.fix == "cdb node start 3"));
    }

    #[test]
    fn a_shard_without_a_majority_is_critical_and_comes_first() {
        let nodes = vec![
            (record(1), Ok(status(1, false, 100))),
            (record(2), Err("refused".into())),
            (record(3), Err("refused".into())),
        ];
        let report = assess("dev", &view(), &nodes);
        assert_eq!(report.findings[0].severity, Severity::Critical);
        assert!(report.findings.iter().any(|f| f.text.contains("no leader")));
    }

    #[test]
    fn a_stopped_replica_and_a_full_disk_are_findings() {
        let mut third = status(3, false, 100);
        third.replicas[0].stopped = Some("damaged entry".into());
        third.disks.push(crate::status::DiskStatus {
            used_bytes: 95,
            capacity_bytes: 100,
            ..Default::default()
        });
        let report = assess("dev", &view(), &said(Ok(third)));
        let all: Vec<String> = report.findings.iter().map(|f| f.text.clone()).collect();
        assert!(all.iter().any(|text| text.contains("damaged entry")), "{all:?}");
        assert!(all.iter().any(|text| text.contains("95 %")), "{all:?}");
    }
}
