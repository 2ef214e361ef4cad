//! The controller against the catalog's own state machine: its plans are
//! carried out, round by round, and the transcript is compared.

use std::fmt::Write as _;

use super::*;
use crate::{
    catalog::{
        record::{Loss, ShardRecord, VolumeKind, VolumeState},
        trial::{Memory, delete, n, policy},
    },
    ids::{CATALOG_SHARD, Epoch, FIRST_TENANT},
    raft::types::ConfigurationStep,
    shard::descriptor::{ReplicaDescriptor, ReplicaRole},
};

fn observed(descriptor: ShardDescriptor) -> ObservedShard {
    ObservedShard { descriptor, changing: false, caught_up: BTreeSet::new() }
}

/// A change as the log would apply it; learners catch up by the next round.
fn take_effect(shard: &mut ObservedShard, change: ConfigurationChange) {
    let descriptor = &mut shard.descriptor;
    assert_eq!(change.epoch, Epoch(descriptor.epoch.0 + 1));
    descriptor.epoch = change.epoch;
    for step in change.steps {
        let (replica, set) = match step {
            ConfigurationStep::Voter(replica, node) => (replica, Some((node, ReplicaRole::Voter))),
            ConfigurationStep::Learner(replica, node) => {
                (replica, Some((node, ReplicaRole::Learner)))
            }
            ConfigurationStep::Remove(replica) => (replica, None),
        };
        descriptor.replicas.retain(|held| held.replica != replica);
        let held = set.map(|(node, role)| ReplicaDescriptor { replica, node, role });
        descriptor.replicas.extend(held);
        shard.caught_up.insert(replica);
    }
    descriptor.replicas.sort_unstable_by_key(|held| held.replica);
}

struct World {
    memory: Memory,
    catalog: ObservedShard,
    /// The other shards as their leaders have them.
    shards: BTreeMap<ShardId, ObservedShard>,
    live: BTreeSet<NodeId>,
    names: BTreeMap<NodeId, String>,
    text: String,
}

impl World {
    fn new(nodes: u64) -> Self {
        let memory = Memory::cluster(nodes);
        let descriptor = memory.view().shard(CATALOG_SHARD).unwrap().descriptor.clone();
        let catalog = observed(descriptor);
        let live = (1..=nodes).map(n).collect();
        let names = (1..=20).map(|number| (n(number), format!("n{number}"))).collect();
        Self { memory, catalog, shards: BTreeMap::new(), live, names, text: String::new() }
    }

    fn say(&mut self, words: &str) {
        writeln!(self.text, "-- {words}").unwrap();
    }

    /// Carries plans out until there is nothing left to do.
    fn settle(&mut self) {
        for round in 1..=60 {
            let plan = plan(&self.memory.view(), &self.catalog, &self.live);
            for (shard, why) in &plan.waiting {
                writeln!(self.text, "{round}: {shard} waits: {why}").unwrap();
            }
            let mut steps = plan.steps.len();
            let changes =
                plan.steps.iter().filter(|s| matches!(s, ControllerStep::ChangeCatalog(_)));
            assert!(changes.count() <= 1, "one change at a time");
            for step in plan.steps {
                let line = self.describe(&step);
                writeln!(self.text, "{round}: {line}").unwrap();
                self.carry_out(step);
            }
            steps += self.step_shards(round);
            if steps == 0 {
                return;
            }
        }
        panic!("the plan never ends:\n{}", self.text);
    }

    /// Every shard with a leader takes its next step; how many did.
    fn step_shards(&mut self, round: u32) -> usize {
        let view = self.memory.view();
        let placed =
            |s: &&ShardRecord| s.descriptor.epoch > Epoch(0) && s.descriptor.shard != CATALOG_SHARD;
        let mut steps = 0;
        for record in view.shards().filter(placed) {
            let shard = record.descriptor.shard;
            let fresh = || observed(record.descriptor.clone());
            let mut seen = self.shards.remove(&shard).unwrap_or_else(fresh);
            if self.has_leader(record, &seen)
                && let Some(step) = next_step(&view, &seen, &self.live)
            {
                steps += 1;
                match step {
                    ShardStep::Observe(descriptor) => {
                        let epoch = descriptor.epoch;
                        writeln!(self.text, "{round}: observe {shard} at {epoch}").unwrap();
                        self.memory.done(&CatalogCommand::ObserveShard(descriptor));
                    }
                    ShardStep::Change(change) => {
                        let words = self.words(&change);
                        writeln!(self.text, "{round}: change {shard} to {words}").unwrap();
                        take_effect(&mut seen, change);
                    }
                }
            }
            self.shards.insert(shard, seen);
        }
        steps
    }

    /// A majority of voters that are up and not lost.
    fn has_leader(&self, record: &ShardRecord, seen: &ObservedShard) -> bool {
        let voters = || seen.descriptor.replicas.iter().filter(|r| r.role == ReplicaRole::Voter);
        let able = |held: &&ReplicaDescriptor| {
            self.live.contains(&held.node) && record.loss(held.replica).is_none()
        };
        voters().filter(able).count() * 2 > voters().count()
    }

    fn lose(&mut self, shard: ShardId, node: NodeId, loss: Loss) {
        let record = self.memory.view().shard(shard).unwrap().clone();
        let replica = record.named().find(|held| held.node == node).unwrap().replica;
        self.memory.done(&CatalogCommand::ReportLost { shard, replica, loss });
    }

    fn carry_out_all(&mut self, steps: Vec<ControllerStep>) {
        for step in steps {
            self.carry_out(step);
        }
    }

    fn carry_out(&mut self, step: ControllerStep) {
        match step {
            ControllerStep::Propose(command) => {
                self.memory.done(&command);
            }
            ControllerStep::ChangeCatalog(change) => take_effect(&mut self.catalog, change),
        }
    }

    fn words(&self, change: &ConfigurationChange) -> String {
        let name = |node: &NodeId| self.names[node].as_str();
        let words = change.steps.iter().map(|step| match step {
            ConfigurationStep::Voter(id, node) => format!("voter {id}@{}", name(node)),
            ConfigurationStep::Learner(id, node) => format!("learner {id}@{}", name(node)),
            ConfigurationStep::Remove(id) => format!("remove {id}"),
        });
        let words: Vec<_> = words.collect();
        format!("{}: {}", change.epoch, words.join(", "))
    }

    fn describe(&self, step: &ControllerStep) -> String {
        let name = |node: &NodeId| self.names[node].as_str();
        match step {
            ControllerStep::ChangeCatalog(change) => {
                format!("change catalog to {}", self.words(change))
            }
            ControllerStep::Propose(CatalogCommand::PlaceShard { shard, nodes }) => {
                let nodes: Vec<_> = nodes.iter().map(name).collect();
                format!("place {shard} on {}", nodes.join(" "))
            }
            ControllerStep::Propose(CatalogCommand::AllotReplica { shard, node }) => {
                format!("allot a replica of {shard} on {}", name(node))
            }
            ControllerStep::Propose(CatalogCommand::WithdrawReplica { shard, replica }) => {
                format!("withdraw {shard}/{replica}")
            }
            ControllerStep::Propose(CatalogCommand::ObserveShard(seen)) => {
                format!("observe {} at {}", seen.shard, seen.epoch)
            }
            ControllerStep::Propose(CatalogCommand::MarkReady(volume)) => {
                format!("mark {volume} ready")
            }
            ControllerStep::Propose(CatalogCommand::ForgetVolume(volume)) => {
                format!("forget {volume}")
            }
            ControllerStep::Propose(other) => format!("{other:?}"),
        }
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        let held = self.catalog.descriptor.replicas.iter();
        held.filter(|held| held.role == ReplicaRole::Voter).map(|held| held.node).collect()
    }
}

#[test]
fn the_catalog_grows_with_its_cluster() {
    let mut world = World::new(1);
    world.say("one node");
    world.settle();
    world.say("n2 joins");
    world.memory.join(2);
    world.live.insert(n(2));
    world.settle();
    world.say("n3 joins");
    world.memory.join(3);
    world.live.insert(n(3));
    world.settle();
    world.say("n4 and n5 join; n5 is not seen yet");
    world.memory.join(4);
    world.memory.join(5);
    world.live.insert(n(4));
    world.settle();
    world.say("n5 is seen");
    world.live.insert(n(5));
    world.settle();
    world.say("n6 joins");
    world.memory.join(6);
    world.live.insert(n(6));
    world.settle();
    assert_eq!(world.voters().len(), 5);
    world.say("n5 is removed");
    world.live.remove(&n(5));
    world.memory.done(&CatalogCommand::RemoveNode(n(5)));
    world.settle();
    let text = &world.text;
    assert_eq!(text, include_str!("../testdata/catalog_grows.txt"), "got:\n{text}");
}

#[test]
fn volumes_are_placed_made_ready_and_forgotten() {
    let mut world = World::new(3);
    world.settle();
    world.text.clear();
    world.say("a volume of four shards on three nodes");
    let volume = world.memory.create("data", policy(VolumeKind::Hash, 3, 4));
    world.settle();
    let state = |world: &World| world.memory.view().volume(FIRST_TENANT, "data").map(|v| v.state);
    assert_eq!(state(&world), Some(VolumeState::Ready));
    world.say("n3 is not seen; a volume of three replicas, one of two");
    world.live.remove(&n(3));
    world.memory.create("three", policy(VolumeKind::Single, 3, 1));
    world.memory.create("two", policy(VolumeKind::Single, 2, 1));
    world.settle();
    world.say("only n1 is seen; a volume of three replicas");
    world.live.remove(&n(2));
    world.memory.create("waits", policy(VolumeKind::Single, 3, 1));
    world.settle();
    world.say("n2 is seen again");
    world.live.insert(n(2));
    world.settle();
    world.say("the first volume is deleted");
    world.memory.done(&delete("data"));
    world.settle();
    world.say("its replicas are destroyed");
    for shard in &volume.shards {
        let held = world.memory.view().shard(*shard).unwrap().descriptor.replicas.clone();
        for replica in held.iter().map(|held| held.replica) {
            world.memory.done(&CatalogCommand::ObserveDestroyed { shard: *shard, replica });
        }
    }
    world.settle();
    assert_eq!(state(&world), None);
    let text = &world.text;
    assert_eq!(text, include_str!("../testdata/volumes.txt"), "got:\n{text}");
}

#[test]
fn nothing_changes_while_a_change_is_under_way() {
    let mut world = World::new(3);
    world.catalog.changing = true;
    let steps = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    assert!(!steps.iter().any(|step| matches!(step, ControllerStep::ChangeCatalog(_))));
    assert_eq!(steps.len(), 2, "ids may be allotted meanwhile: {steps:?}");
}

#[test]
fn learners_that_lag_are_not_promoted() {
    let mut world = World::new(3);
    let allotted = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    world.carry_out_all(allotted);
    let learners = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    world.carry_out_all(learners);
    let observed = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    assert!(
        matches!(observed[..], [ControllerStep::Propose(CatalogCommand::ObserveShard(_))]),
        "nothing is decided on an older intent: {observed:?}"
    );
    world.carry_out_all(observed);
    world.catalog.caught_up.pop_last();
    // One of two has caught up: two voters would bear less than one.
    let steps = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    assert_eq!(steps, []);
    world.catalog.caught_up.insert(world.catalog.descriptor.replicas[2].replica);
    let steps = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    assert!(matches!(steps[..], [ControllerStep::ChangeCatalog(_)]), "{steps:?}");
}

#[test]
fn a_replica_allotted_to_a_node_that_went_is_withdrawn() {
    let mut world = World::new(4);
    let first = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    world.carry_out_all(first);
    let joining = world.memory.view().shard(CATALOG_SHARD).unwrap().joining.clone();
    world.live.remove(&joining[0].node);
    world.settle();
    assert_eq!(world.voters().len(), 3);
    assert!(!world.voters().contains(&joining[0].node));
    assert!(world.memory.view().shard(CATALOG_SHARD).unwrap().joining.is_empty());
}

#[test]
fn a_plan_is_bounded_and_the_next_goes_on() {
    let mut world = World::new(3);
    world.settle();
    world.memory.create("data", policy(VolumeKind::Hash, 3, 300));
    let steps = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    assert_eq!(steps.len(), PLAN_STEPS_MAX);
    world.settle();
    let view = world.memory.view();
    assert_eq!(view.volume(FIRST_TENANT, "data").unwrap().state, VolumeState::Ready);
    let mut first = BTreeMap::new();
    for shard in view.shards().filter(|shard| shard.descriptor.shard != CATALOG_SHARD) {
        *first.entry(shard.descriptor.replicas[0].node).or_insert(0) += 1;
    }
    assert!(first.values().all(|leads| (95..=105).contains(leads)), "{first:?}");
}

#[test]
fn lost_replicas_are_replaced_under_new_ids() {
    let mut world = World::new(4);
    world.memory.create("data", policy(VolumeKind::Ordered, 3, 2));
    world.settle();
    let [first, second] = [ShardId(2), ShardId(3)];
    let on = |world: &World, shard| -> Vec<NodeId> {
        let view = world.memory.view();
        view.shard(shard).unwrap().descriptor.replicas.iter().map(|held| held.node).collect()
    };
    world.text.clear();
    world.say("one store is damaged: its own node takes the new replica");
    let hit = on(&world, first)[1];
    world.lose(first, hit, Loss::Store);
    world.settle();
    world.say("one disk fails: another node takes it");
    let hit = on(&world, first)[0];
    world.lose(first, hit, Loss::Device);
    world.settle();
    world.say("two of three are lost: nothing can be done");
    let hit = on(&world, second);
    world.lose(second, hit[0], Loss::Log);
    world.lose(second, hit[1], Loss::Log);
    world.settle();
    let lost = world.memory.view().shard(second).unwrap().lost.len();
    assert_eq!(lost, 2, "they are not forgotten");
    let text = &world.text;
    assert_eq!(text, include_str!("../testdata/heal.txt"), "got:\n{text}");
}

#[test]
fn replicas_of_a_removed_node_are_replaced_where_there_is_room() {
    let mut world = World::new(4);
    world.memory.create("data", policy(VolumeKind::Ordered, 3, 3));
    world.settle();
    world.text.clear();
    world.say("n2 of four is removed");
    world.live.remove(&n(2));
    world.memory.done(&CatalogCommand::RemoveNode(n(2)));
    world.settle();
    world.say("n3 of three is removed: there is no place for a third");
    world.live.remove(&n(3));
    world.memory.done(&CatalogCommand::RemoveNode(n(3)));
    world.settle();
    world.say("n5 joins");
    world.memory.join(5);
    world.live.insert(n(5));
    world.settle();
    let view = world.memory.view();
    for record in view.shards() {
        let nodes: BTreeSet<_> = record.descriptor.replicas.iter().map(|r| r.node).collect();
        assert_eq!(nodes, BTreeSet::from([n(1), n(4), n(5)]), "{}", record.descriptor.shard);
    }
    let text = &world.text;
    assert_eq!(text, include_str!("../testdata/removed.txt"), "got:\n{text}");
}

#[test]
fn a_replacement_whose_node_dies_half_way_is_made_anew_elsewhere() {
    let mut world = World::new(5);
    world.memory.create("data", policy(VolumeKind::Single, 3, 1));
    world.settle();
    let shard = ShardId(2);
    let record = |world: &World| world.memory.view().shard(shard).unwrap().clone();
    let hit = record(&world).descriptor.replicas[0].node;
    world.lose(shard, hit, Loss::Store);
    let steps = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    world.carry_out_all(steps);
    assert_eq!(record(&world).joining.len(), 1);
    // It dies before it came: the intent is withdrawn, and another node chosen.
    world.live.remove(&hit);
    world.settle();
    let after = record(&world);
    assert!(after.lost.is_empty() && after.joining.is_empty(), "{after:?}");
    assert!(after.descriptor.replicas.iter().all(|held| held.node != hit));
    // The same with a learner that never catches up.
    let hit = after.descriptor.replicas[0].node;
    world.lose(shard, hit, Loss::Store);
    let steps = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    world.carry_out_all(steps);
    world.step_shards(1);
    let seen = world.shards.get_mut(&shard).unwrap();
    assert_eq!(seen.descriptor.replicas.len(), 4);
    seen.caught_up.clear();
    world.live.remove(&hit);
    world.settle();
    let after = record(&world);
    assert!(after.descriptor.replicas.iter().all(|held| held.node != hit), "{after:?}");
    assert_eq!(after.descriptor.replicas.len(), 3);
}

#[test]
fn few_shards_are_mended_at_a_time_and_all_in_the_end() {
    let mut world = World::new(3);
    world.memory.create("data", policy(VolumeKind::Hash, 3, 40));
    world.settle();
    for shard in 2..42 {
        world.lose(ShardId(shard), n(2), Loss::Log);
    }
    let steps = plan(&world.memory.view(), &world.catalog, &world.live).steps;
    assert_eq!(steps.len(), MENDING_MAX, "{steps:?}");
    world.settle();
    let view = world.memory.view();
    assert!(view.shards().all(|shard| shard.lost.is_empty() && shard.joining.is_empty()));
}

#[test]
fn a_lost_voter_of_the_catalog_is_replaced_on_its_own_node() {
    let mut world = World::new(3);
    world.settle();
    world.lose(CATALOG_SHARD, n(3), Loss::Log);
    world.settle();
    let replicas = &world.catalog.descriptor.replicas;
    assert_eq!(replicas.len(), 3);
    assert!(world.voters().contains(&n(3)));
    let ids: Vec<_> = replicas.iter().map(|held| held.replica.0).collect();
    assert_eq!(ids.last(), Some(&4), "{ids:?}");
}
