//! Tens of thousands of random commands, right and wrong, and after each the
//! invariants of the catalog.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    catalog::{
        record::{Loss, NodeState, VolumeKind},
        trial::{Memory, create, delete, n, node, policy},
        view::CatalogView,
    },
    ids::{BootNonce, Epoch, Incarnation, NodeId, ReplicaId, ShardId, VolumeId},
    membership::Boot,
    units::WallTime,
};

const COMMANDS: usize = 4_000;

struct Storm {
    rng: StdRng,
    memory: Memory,
}

impl Storm {
    fn up_to(&mut self, most: u64) -> u64 {
        self.rng.random_range(1..=most)
    }

    fn shard(&mut self) -> ShardId {
        let view = self.memory.view();
        let last = view.shards().last().map_or(1, |shard| shard.descriptor.shard.0);
        ShardId(self.up_to(last + 1))
    }

    fn node(&mut self) -> NodeId {
        n(self.up_to(10))
    }

    fn command(&mut self) -> CatalogCommand {
        let name = format!("v{}", self.up_to(6));
        let volume = VolumeId(self.up_to(30));
        let replica = ReplicaId(self.up_to(60));
        let hash = [u8::try_from(self.up_to(12)).unwrap(); 32];
        match self.up_to(15) {
            1 => CatalogCommand::AddToken { hash, expires: WallTime(self.up_to(100)) },
            2 => {
                let (now, number) = (WallTime(self.up_to(100)), self.up_to(10));
                CatalogCommand::AdmitNode { hash, now, node: node(number) }
            }
            3 => self.boot(),
            4 if self.up_to(20) == 1 => CatalogCommand::RemoveNode(self.node()),
            4 | 5 => {
                let kind = [VolumeKind::Hash, VolumeKind::Ordered, VolumeKind::Single]
                    [self.rng.random_range(0..3)];
                let replicas = self.rng.random_range(0..5);
                create(&name, policy(kind, replicas, self.rng.random_range(0..4)))
            }
            6 => delete(&name),
            7 => CatalogCommand::ForgetVolume(volume),
            8 => CatalogCommand::MarkReady(volume),
            9 => CatalogCommand::AllotReplica { shard: self.shard(), node: self.node() },
            10 => CatalogCommand::WithdrawReplica { shard: self.shard(), replica },
            11 => CatalogCommand::ObserveDestroyed { shard: self.shard(), replica },
            12 => self.observe(),
            13 => CatalogCommand::ReportLost { shard: self.shard(), replica, loss: Loss::Store },
            _ => {
                let nodes = (0..self.rng.random_range(0..5)).map(|_| self.node()).collect();
                CatalogCommand::PlaceShard { shard: self.shard(), nodes }
            }
        }
    }

    fn boot(&mut self) -> CatalogCommand {
        let shown = node(self.up_to(10));
        let incarnation = Incarnation(self.up_to(8));
        CatalogCommand::RegisterBoot {
            node: shown.node,
            boot: Boot { incarnation, nonce: BootNonce::line(incarnation, self.up_to(2)) },
            addresses: shown.addresses,
            http_address: shown.http_address,
            zone: shown.zone,
            capacity_bytes: shown.capacity_bytes,
        }
    }

    /// A later state of a shard: a joining replica has come, or one has gone.
    fn observe(&mut self) -> CatalogCommand {
        let shard = self.shard();
        let record = self.memory.view().shard(shard).cloned();
        let Some(record) = record else { return CatalogCommand::RemoveNode(n(99)) };
        let mut seen = record.descriptor;
        seen.epoch = Epoch(seen.epoch.0 + self.up_to(3) - 1);
        if let Some(joining) = record.joining.first() {
            seen.replicas.push(*joining);
        } else if seen.replicas.len() > 1 {
            seen.replicas.pop();
        }
        CatalogCommand::ObserveShard(seen)
    }
}

/// What must hold between one state and the next.
fn check(before: &CatalogView, after: &CatalogView) {
    let mut replicas = BTreeSet::new();
    for shard in after.shards() {
        let mut nodes = BTreeSet::new();
        for held in shard.named() {
            assert!(replicas.insert(held.replica), "{} is twice there", held.replica);
            let lost = shard.loss(held.replica).is_some();
            assert!(lost || nodes.insert(held.node), "two replicas of one shard on {}", held.node);
        }
        let old = before.shard(shard.descriptor.shard);
        for lost in old.iter().flat_map(|old| &old.lost) {
            let named = shard.named().any(|held| held.replica == lost.replica);
            assert_eq!(shard.loss(lost.replica), named.then_some(lost.loss), "moves forward only");
        }
        assert!(old.is_none_or(|old| old.descriptor.epoch <= shard.descriptor.epoch));
        assert!(old.is_none_or(|old| shard.deleting || !old.deleting));
    }
    let numbers: BTreeMap<_, _> = after.nodes().map(|node| (node.number, node.node)).collect();
    assert_eq!(numbers.len(), after.nodes().count(), "a number is twice there");
    for old in before.nodes() {
        let new = after.node(old.node).expect("nodes are never forgotten");
        assert!(old.state == NodeState::Active || new.state == NodeState::Removed);
        assert!(old.boot.incarnation <= new.boot.incarnation);
    }
    for volume in after.volumes() {
        assert!(volume.shards.iter().all(|shard| after.shard(*shard).is_some()));
    }
}

#[test]
fn a_storm_of_commands_breaks_no_invariant() {
    for seed in 0..4 {
        let mut storm = Storm { rng: StdRng::seed_from_u64(seed), memory: Memory::cluster(3) };
        let (mut done, mut refused) = (0, 0);
        for _ in 0..COMMANDS {
            let command = storm.command();
            let before = storm.memory.clone();
            if let CatalogOutcome::Refused(_) = storm.memory.apply(&command) {
                assert_eq!(storm.memory, before, "a refusal of {command:?} changed something");
                refused += 1;
            } else {
                check(&before.view(), &storm.memory.view());
                done += 1;
            }
        }
        assert!(done > COMMANDS / 10 && refused > COMMANDS / 10, "{done} done, {refused} refused");
    }
}
