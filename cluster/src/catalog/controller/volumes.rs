//! Volumes whose state follows from their shards.

use super::Plan;
use crate::{
    catalog::{
        command::CatalogCommand,
        record::{VolumeRecord, VolumeState},
        view::CatalogView,
    },
    ids::Epoch,
};

/// Marks volumes ready and forgets those that are gone.
pub(super) fn plan(view: &CatalogView, plan: &mut Plan) {
    for volume in view.volumes() {
        if plan.is_full() {
            return;
        }
        match volume.state {
            VolumeState::Creating if is_placed(view, volume) => {
                plan.propose(CatalogCommand::MarkReady(volume.volume));
            }
            VolumeState::Deleting if is_gone(view, volume) => {
                plan.propose(CatalogCommand::ForgetVolume(volume.volume));
            }
            VolumeState::Creating | VolumeState::Deleting | VolumeState::Ready => {}
        }
    }
}

fn is_placed(view: &CatalogView, volume: &VolumeRecord) -> bool {
    let placed = |shard| view.shard(shard).is_some_and(|shard| shard.descriptor.epoch > Epoch(0));
    volume.shards.iter().copied().all(placed)
}

/// No member holds a replica any more.
fn is_gone(view: &CatalogView, volume: &VolumeRecord) -> bool {
    volume.shards.iter().filter_map(|shard| view.shard(*shard)).all(|shard| {
        let mut held = shard.descriptor.replicas.iter().chain(&shard.joining);
        held.all(|replica| !view.is_active(replica.node))
    })
}
