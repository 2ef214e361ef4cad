//! Lost replicas in the report: what is done about them, and how far it is.

use cluster::{
    catalog::{record::ShardRecord, view::CatalogView},
    shard::descriptor::{ReplicaDescriptor, ReplicaRole},
};

use super::{Finding, Said, Severity, replicas};

/// Lost replicas named one by one; a whole node has too many of them.
const NAMED_MAX: usize = 8;

/// Adds what is lost to the findings.
pub(super) fn findings(view: &CatalogView, said: &[Said], findings: &mut Vec<Finding>) {
    let shards = || view.shards().filter(|shard| !shard.deleting && !shard.lost.is_empty());
    for record in shards().take(NAMED_MAX) {
        findings.extend(of_shard(view, said, record));
    }
    let more: usize = shards().skip(NAMED_MAX).map(|shard| shard.lost.len()).sum();
    if more > 0 {
        findings.push(Finding {
            severity: Severity::Warning,
            text: format!("{more} more replicas are lost and wait to be replaced"),
            fix: HEALS.into(),
        });
    }
}

const HEALS: &str = "it heals by itself: cdb status --wait healthy";

fn of_shard(view: &CatalogView, said: &[Said], record: &ShardRecord) -> Vec<Finding> {
    let shard = record.descriptor.shard.0;
    let voter = |held: &&ReplicaDescriptor| held.role == ReplicaRole::Voter;
    let voters = record.descriptor.replicas.iter().filter(voter).count();
    let whole = |held: &&ReplicaDescriptor| voter(held) && record.loss(held.replica).is_none();
    let whole = record.descriptor.replicas.iter().filter(whole).count();
    if whole * 2 <= voters {
        return vec![Finding {
            severity: Severity::Critical,
            text: format!(
                "s{shard} has {whole} whole replicas of {voters}: too few to replace the lost ones"
            ),
            fix: "copy the data directories first, then see node/docs/damage.md".into(),
        }];
    }
    let named = |lost: &cluster::catalog::record::LostReplica| {
        let held = record.named().find(|held| held.replica == lost.replica)?;
        let node = view.node(held.node).map_or(0, |node| node.number);
        let (replica, loss) = (lost.replica.0, lost.loss);
        Some(Finding {
            severity: Severity::Warning,
            text: format!(
                "replica r{replica} of s{shard} on n{node} is lost ({loss}), {}",
                progress(said, record)
            ),
            fix: HEALS.into(),
        })
    };
    record.lost.iter().filter_map(named).collect()
}

/// How far the replacement is, as the node says that receives it.
fn progress(said: &[Said], record: &ShardRecord) -> String {
    let coming = |held: &&ReplicaDescriptor| {
        held.role == ReplicaRole::Learner && record.loss(held.replica).is_none()
    };
    let Some(coming) = record.named().find(coming) else {
        return "waiting for a place".into();
    };
    let statuses = said.iter().filter_map(|(_, status)| status.as_ref().ok());
    let found = statuses.flat_map(replicas).find(|replica| replica.replica == coming.replica.0);
    let percent = found.map_or(0, |replica| replica.filled_percent);
    format!("being replaced: {percent} %")
}

#[cfg(test)]
mod tests {
    use cluster::{
        catalog::record::{Loss, LostReplica},
        ids::{NodeId, ReplicaId},
        mvcc::version::Version,
    };

    use super::*;
    use crate::{
        cli::status::assess::{
            assess,
            tests::{said, status, view_of, whole_shard},
        },
        status::ReplicaSummary,
    };

    fn lost(replica: u64) -> LostReplica {
        LostReplica { replica: ReplicaId(replica), loss: Loss::Store }
    }

    #[test]
    fn a_lost_replica_is_named_with_how_far_its_replacement_is() {
        let mut shard = whole_shard();
        shard.lost.push(lost(3));
        let mut third = status(3, false, 100);
        third.replicas[0].lost = Some("a page is damaged".into());
        let text = |shard: &ShardRecord, third: &crate::status::NodeStatus| {
            let report = assess("dev", &view_of(shard, Version(1)), &said(Ok(third.clone())));
            assert!(!report.healthy);
            report.findings[0].text.clone()
        };
        let waits = "replica r3 of s7 on n3 is lost (its store is damaged), waiting for a place";
        assert_eq!(text(&shard, &third), waits);
        let role = ReplicaRole::Learner;
        shard.joining.push(ReplicaDescriptor { replica: ReplicaId(9), node: NodeId(3), role });
        let coming =
            ReplicaSummary { replica: 9, shard: 7, filled_percent: 40, ..Default::default() };
        third.replicas.push(coming);
        assert!(text(&shard, &third).ends_with("being replaced: 40 %"));
    }

    #[test]
    fn a_lost_majority_is_critical_and_says_what_to_do() {
        let mut shard = whole_shard();
        shard.lost.extend([lost(2), lost(3)]);
        let view = view_of(&shard, Version(1));
        let report = assess("dev", &view, &said(Ok(status(3, false, 100))));
        assert_eq!(report.findings[0].severity, Severity::Critical);
        assert!(report.findings[0].text.contains("1 whole replicas of 3"));
    }
}
