//! The controller against the catalog's own state machine: its plans are
//! carried out, round by round, and the transcript is compared.

use std::fmt::Write as _;

use super::*;
use crate::{
    catalog::{
        record::{VolumeKind, VolumeState},
        trial::{Memory, delete, n, policy},
    },
    ids::{CATALOG_SHARD, Epoch, FIRST_TENANT},
    raft::types::ConfigurationStep,
    shard::descriptor::{ReplicaDescriptor, ReplicaRole},
};

struct World {
    memory: Memory,
    catalog: ObservedCatalog,
    live: BTreeSet<NodeId>,
    names: BTreeMap<NodeId, String>,
    text: String,
}

impl World {
    fn new(nodes: u64) -> Self {
        let memory = Memory::cluster(nodes);
        let descriptor = memory.view().shard(CATALOG_SHARD).unwrap().descriptor.clone();
        let catalog = ObservedCatalog { descriptor, changing: false, caught_up: BTreeSet::new() };
        let live = (1..=nodes).map(n).collect();
        let names = (1..=20).map(|number| (n(number), format!("n{number}"))).collect();
        Self { memory, catalog, live, names, text: String::new() }
    }

    fn say(&mut self, words: &str) {
        writeln!(self.text, "-- {words}").unwrap();
    }

    /// Carries plans out until there is nothing left to do.
    fn settle(&mut self) {
        for round in 1..=20 {
            let plan = plan(&self.memory.view(), &self.catalog, &self.live);
            for (shard, why) in &plan.waiting {
                writeln!(self.text, "{round}: {shard} waits: {why}").unwrap();
            }
            if plan.steps.is_empty() {
                return;
            }
            let changes =
                plan.steps.iter().filter(|s| matches!(s, ControllerStep::ChangeCatalog(_)));
            assert!(changes.count() <= 1, "one change at a time");
            for step in plan.steps {
                let line = self.describe(&step);
                writeln!(self.text, "{round}: {line}").unwrap();
                self.carry_out(step);
            }
        }
        panic!("the plan never ends:\n{}", self.text);
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
            ControllerStep::ChangeCatalog(change) => {
                let descriptor = &mut self.catalog.descriptor;
                assert_eq!(change.epoch, Epoch(descriptor.epoch.0 + 1));
                descriptor.epoch = change.epoch;
                for step in change.steps {
                    let (replica, set) = match step {
                        ConfigurationStep::Voter(replica, node) => {
                            (replica, Some((node, ReplicaRole::Voter)))
                        }
                        ConfigurationStep::Learner(replica, node) => {
                            (replica, Some((node, ReplicaRole::Learner)))
                        }
                        ConfigurationStep::Remove(replica) => (replica, None),
                    };
                    descriptor.replicas.retain(|held| held.replica != replica);
                    let held = set.map(|(node, role)| ReplicaDescriptor { replica, node, role });
                    descriptor.replicas.extend(held);
                    // Learners catch up by the next round.
                    self.catalog.caught_up.insert(replica);
                }
                descriptor.replicas.sort_unstable_by_key(|held| held.replica);
            }
        }
    }

    fn describe(&self, step: &ControllerStep) -> String {
        let name = |node: &NodeId| self.names[node].as_str();
        match step {
            ControllerStep::ChangeCatalog(change) => {
                let words = change.steps.iter().map(|step| match step {
                    ConfigurationStep::Voter(id, node) => format!("voter {id}@{}", name(node)),
                    ConfigurationStep::Learner(id, node) => format!("learner {id}@{}", name(node)),
                    ConfigurationStep::Remove(id) => format!("remove {id}"),
                });
                let words: Vec<_> = words.collect();
                format!("change catalog to {}: {}", change.epoch, words.join(", "))
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
