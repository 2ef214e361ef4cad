//! Shards with voters that are gone or missing: the intent to replace them.
//!
//! A few at a time: each costs a snapshot of a whole shard. What was begun is
//! looked after first; a shard without a majority in sight takes no place
//! among the few, for nothing of it can end.

use std::collections::BTreeSet;

use super::{
    Plan,
    replicas::{is_mending, plan_intent},
};
use crate::{
    catalog::{record::ShardRecord, view::CatalogView},
    ids::{CATALOG_SHARD, Epoch, NodeId},
};

/// Shards that get new replicas at a time: two snapshots under way for each
/// node of a small cluster.
pub const MENDING_MAX: usize = 8;

/// Plans replacements in the shards of volumes.
pub(super) fn plan(view: &CatalogView, live: &BTreeSet<NodeId>, plan: &mut Plan) {
    let shards = || view.shards().filter(|record| may_mend(record));
    let mut begun = shards().filter(|record| is_mending(view, record, live)).count();
    for record in shards() {
        if plan.is_full() {
            return;
        }
        let running = is_mending(view, record, live);
        let may_begin = running || begun < MENDING_MAX;
        let replicas = &record.descriptor.replicas;
        let commands = plan_intent(view, record, replicas, live, may_begin);
        begun += usize::from(!running && !commands.is_empty());
        for command in commands {
            plan.propose(command);
        }
    }
}

fn may_mend(record: &ShardRecord) -> bool {
    let descriptor = &record.descriptor;
    descriptor.shard != CATALOG_SHARD && descriptor.epoch > Epoch(0) && !record.deleting
}
