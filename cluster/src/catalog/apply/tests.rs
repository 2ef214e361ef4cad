//! The catalog as a state machine, command by command.

use super::*;
use crate::{
    catalog::{
        record::{Loss, NodeRecord, NodeState, VolumeKind, VolumePolicy, VolumeState},
        trial::{Memory, bootstrap, create, delete, n, node, policy},
    },
    ids::{
        BootNonce, CATALOG_SHARD, ClusterId, Epoch, FIRST_TENANT, Incarnation, NodeId, ReplicaId,
        ShardId, TenantId, VolumeId,
    },
    membership::Boot,
    mvcc::compaction::HistoryPolicy,
    shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    units::WallTime,
};

const HASH: [u8; 32] = [9; 32];

fn token(expires: u64) -> CatalogCommand {
    CatalogCommand::AddToken { hash: HASH, expires: WallTime(expires) }
}

fn admit(number: u64, now: u64) -> CatalogCommand {
    CatalogCommand::AdmitNode { hash: HASH, now: WallTime(now), node: node(number) }
}

fn line(begins: u64, chance: u64) -> BootNonce {
    BootNonce::line(Incarnation(begins), chance)
}

fn boot(number: u64, incarnation: u64, nonce: u64) -> CatalogCommand {
    let NodeRecord { node, addresses, http_address, zone, capacity_bytes, .. } = node(number);
    let boot = Boot { incarnation: Incarnation(incarnation), nonce: line(incarnation, nonce) };
    CatalogCommand::RegisterBoot { node, boot, addresses, http_address, zone, capacity_bytes }
}

fn place(shard: ShardId, numbers: &[u64]) -> CatalogCommand {
    CatalogCommand::PlaceShard { shard, nodes: numbers.iter().map(|number| n(*number)).collect() }
}

fn shard_of(outcome: CatalogOutcome) -> ShardDescriptor {
    let CatalogOutcome::Shard(descriptor) = outcome else { panic!("{outcome:?}") };
    descriptor
}

fn node_of(outcome: CatalogOutcome) -> NodeRecord {
    let CatalogOutcome::Node(node) = outcome else { panic!("{outcome:?}") };
    node
}

#[test]
fn a_cluster_is_born_once() {
    let mut memory = Memory::default();
    assert!(memory.refused(&create("data", policy(VolumeKind::Hash, 1, 1))).contains("bootstrap"));
    let first = node_of(memory.done(&bootstrap()));
    assert_eq!(first.number, 1);
    let before = memory.clone();
    memory.done(&bootstrap());
    assert_eq!(memory, before, "the same birth again changes nothing");
    let CatalogCommand::Bootstrap { mut cluster, node, catalog } = bootstrap() else { panic!() };
    cluster.cluster = ClusterId(6);
    let other = CatalogCommand::Bootstrap { cluster, node, catalog };
    assert_eq!(memory.refused(&other), "the cluster exists already");
    assert_eq!(memory.view().shard(CATALOG_SHARD).unwrap().descriptor.replicas.len(), 1);
}

#[test]
fn a_token_admits_one_node_and_bears_its_retries() {
    let mut memory = Memory::cluster(1);
    assert!(memory.refused(&admit(2, 0)).contains("no such join token"));
    memory.done(&token(1_000));
    let admitted = node_of(memory.done(&admit(2, 999)));
    assert_eq!((admitted.number, admitted.state), (2, NodeState::Active));
    assert_eq!(node_of(memory.done(&admit(2, 5_000))), admitted, "a retry, even a late one");
    assert!(memory.refused(&admit(3, 999)).contains("used by another node"));
}

#[test]
fn an_expired_token_admits_nobody() {
    let mut memory = Memory::cluster(1);
    memory.done(&token(1_000));
    assert!(memory.refused(&admit(2, 1_000)).contains("expired"));
    assert!(memory.view().node(n(2)).is_none());
}

#[test]
fn tokens_are_bounded_and_old_ones_go() {
    let mut memory = Memory::cluster(1);
    let add = |number: usize, expires| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        CatalogCommand::AddToken { hash, expires: WallTime(expires) }
    };
    for number in 0..TOKENS_MAX {
        memory.done(&add(number, 1_000));
    }
    assert!(memory.refused(&add(TOKENS_MAX, 2_000)).contains("try again later"));
    memory.done(&add(0, 2_000));
    memory.done(&add(TOKENS_MAX, 1_000 + 24 * 60 * 60 * 1_000 + 1));
    assert_eq!(memory.list("token/").unwrap().len(), 1);
}

#[test]
fn an_old_disk_image_is_refused() {
    let mut memory = Memory::cluster(2);
    memory.done(&boot(2, 5, 50));
    memory.done(&boot(2, 5, 50));
    assert!(memory.refused(&boot(2, 4, 40)).contains("old image"));
    assert!(memory.refused(&boot(2, 5, 51)).contains("old image"));
    memory.done(&boot(2, 6, 60));
    assert_eq!(memory.view().node(n(2)).unwrap().boot.incarnation, Incarnation(6));
    assert!(memory.refused(&boot(9, 1, 1)).contains("not a member"));
}

#[test]
fn a_removed_node_never_returns() {
    let mut memory = Memory::cluster(3);
    memory.done(&CatalogCommand::RemoveNode(n(3)));
    memory.done(&CatalogCommand::RemoveNode(n(3)));
    assert!(memory.refused(&boot(3, 9, 1)).contains("was removed"));
    memory.done(&token(1_000));
    assert!(memory.refused(&admit(3, 0)).contains("was removed"));
    assert_eq!(memory.view().node(n(3)).unwrap().state, NodeState::Removed);
    let next = node_of(memory.done(&admit(4, 0)));
    assert_eq!(next.number, 4, "numbers are not reused either");
    assert!(memory.refused(&CatalogCommand::RemoveNode(n(9))).contains("not a member"));
}

#[test]
fn a_node_whose_shards_would_lose_their_majority_stays() {
    let mut memory = Memory::cluster(3);
    assert!(memory.refused(&CatalogCommand::RemoveNode(n(1))).contains("majority"));
    let volume = memory.create("data", policy(VolumeKind::Single, 3, 1));
    memory.done(&place(volume.shards[0], &[1, 2, 3]));
    memory.done(&CatalogCommand::RemoveNode(n(3)));
    assert!(memory.refused(&CatalogCommand::RemoveNode(n(2))).contains("majority"));
}

#[test]
fn addresses_and_zones_are_bounded() {
    let mut memory = Memory::cluster(2);
    let change = |edit: fn(&mut NodeRecord)| {
        let mut shown = node(2);
        edit(&mut shown);
        CatalogCommand::RegisterBoot {
            node: shown.node,
            boot: shown.boot,
            addresses: shown.addresses,
            http_address: shown.http_address,
            zone: shown.zone,
            capacity_bytes: 1,
        }
    };
    let edits: [fn(&mut NodeRecord); 4] = [
        |node| node.zone = "z".repeat(261),
        |node| node.addresses = vec!["a".repeat(261)],
        |node| node.addresses.clear(),
        |node| node.addresses = vec!["a".into(); 9],
    ];
    for edit in edits {
        memory.refused(&change(edit));
    }
}

#[test]
fn names_of_volumes_are_plain() {
    for good in ["a", "0", "data", "my.data_set-2", &"x".repeat(63)] {
        assert_eq!(check_volume_name(good), Ok(()), "{good}");
    }
    for bad in ["", "A", "-a", ".a", "_a", "a/b", "a b", "ä", "a\0", &"x".repeat(64)] {
        let refusal = check_volume_name(bad).unwrap_err().to_string();
        assert!(refusal.contains("1 to 63 characters"), "{bad}");
    }
}

#[test]
fn policies_out_of_range_are_refused() {
    let mut memory = Memory::cluster(3);
    let cases = [
        (policy(VolumeKind::Hash, 3, 0), "1 to 1024 shards"),
        (policy(VolumeKind::Hash, 3, 1_025), "1 to 1024 shards"),
        (policy(VolumeKind::Hash, 0, 1), "1 to 7 replicas"),
        (policy(VolumeKind::Hash, 8, 1), "1 to 7 replicas"),
        (policy(VolumeKind::Single, 3, 2), "has one shard"),
        (policy(VolumeKind::Hash, 5, 1), "the cluster has 3"),
    ];
    for (wrong, why) in cases {
        let refusal = memory.refused(&create("data", wrong));
        assert!(refusal.contains(why), "{refusal}");
    }
    let (tenant, name) = (TenantId(2), "data".into());
    let stranger =
        CatalogCommand::CreateVolume { tenant, name, policy: policy(VolumeKind::Hash, 1, 1) };
    assert!(memory.refused(&stranger).contains("no tenant"));
}

#[test]
fn nodes_take_no_more_replicas_than_they_can_hold() {
    let mut memory = Memory::cluster(1);
    for number in 0..4 {
        let volume = memory.create(&format!("v{number}"), policy(VolumeKind::Hash, 1, 1_023));
        for shard in volume.shards {
            memory.done(&place(shard, &[1]));
        }
    }
    // 4,096 - 4 * 1,023 - the catalog
    memory.create("fits", policy(VolumeKind::Hash, 1, 3));
    assert!(memory.refused(&create("more", policy(VolumeKind::Hash, 1, 4))).contains("room for 0"));
}

#[test]
fn a_volume_is_born_with_its_shards_and_its_name_is_taken() {
    let mut memory = Memory::cluster(3);
    let first = memory.create("data", policy(VolumeKind::Hash, 3, 8));
    assert_eq!((first.volume, first.state), (VolumeId(2), VolumeState::Creating));
    assert_eq!(first.shards, (2..10).map(ShardId).collect::<Vec<_>>());
    let again = create("data", policy(VolumeKind::Hash, 3, 8));
    assert_eq!(memory.refused(&again), "a volume named data exists already");
    let second = memory.create("other", policy(VolumeKind::Single, 1, 1));
    assert_eq!((second.volume, second.shards), (VolumeId(3), vec![ShardId(10)]));
}

#[test]
fn ordered_shards_cover_every_key_once() {
    for shards in [1, 2, 3, 8, 95, 100, 1_024] {
        let mut memory = Memory::cluster(1);
        let volume = memory.create("data", policy(VolumeKind::Ordered, 1, shards));
        let view = memory.view();
        let owned = |shard: &ShardId| view.shard(*shard).unwrap().descriptor.predicate.clone();
        let parts: Vec<_> = volume.shards.iter().map(owned).collect();
        let mut next = Vec::new();
        for part in &parts {
            let Predicate::Range { from, to } = part else { panic!("{part:?}") };
            assert_eq!(*from, next);
            assert!(to.is_empty() || from < to, "{part:?}");
            next.clone_from(to);
        }
        assert!(next.is_empty(), "the last part has no end");
    }
}

#[test]
fn ordered_shards_part_plain_names() {
    let mut memory = Memory::cluster(1);
    let volume = memory.create("data", policy(VolumeKind::Ordered, 1, 4));
    let view = memory.view();
    let owner = |key: &[u8]| {
        let owns = |shard: &ShardId| view.shard(*shard).unwrap().descriptor.predicate.owns(key);
        volume.shards.iter().position(owns).unwrap()
    };
    let owners = [&b""[..], b"/etc", b"9", b"Zoe", b"alpha", b"omega", "\u{fffd}".as_bytes()];
    assert_eq!(owners.map(owner), [0, 0, 1, 2, 2, 3, 3]);
}

#[test]
fn a_shard_is_placed_once() {
    let mut memory = Memory::cluster(4);
    let shard = memory.create("data", policy(VolumeKind::Hash, 3, 1)).shards[0];
    let cases = [
        (place(shard, &[1, 2]), "3 different nodes"),
        (place(shard, &[1, 2, 2]), "3 different nodes"),
        (place(shard, &[1, 2, 9]), "not a member"),
        (place(ShardId(99), &[1, 2, 3]), "no shard s99"),
    ];
    for (wrong, why) in cases {
        assert!(memory.refused(&wrong).contains(why));
    }
    let placed = shard_of(memory.done(&place(shard, &[4, 2, 1])));
    let held: Vec<_> = placed.replicas.iter().map(|held| (held.replica.0, held.node)).collect();
    assert_eq!(held, [(2, n(4)), (3, n(2)), (4, n(1))]);
    assert_eq!(placed.epoch, Epoch(1));
    assert_eq!(shard_of(memory.done(&place(shard, &[1, 2, 4]))), placed);
    assert_eq!(memory.refused(&place(shard, &[1, 2, 3])), "the shard is placed already");
}

#[test]
fn a_volume_is_ready_when_all_its_shards_are_placed() {
    let mut memory = Memory::cluster(1);
    let volume = memory.create("data", policy(VolumeKind::Hash, 1, 2));
    let ready = CatalogCommand::MarkReady(volume.volume);
    memory.done(&place(volume.shards[0], &[1]));
    assert!(memory.refused(&ready).contains("waits for placement"));
    memory.done(&place(volume.shards[1], &[1]));
    memory.done(&ready);
    memory.done(&ready);
    let state = memory.view().volume(FIRST_TENANT, "data").unwrap().state;
    assert_eq!(state, VolumeState::Ready);
    assert!(memory.refused(&CatalogCommand::MarkReady(VolumeId(77))).contains("no volume"));
}

fn keep(name: &str, history: HistoryPolicy) -> CatalogCommand {
    CatalogCommand::SetHistory { tenant: FIRST_TENANT, name: name.into(), history }
}

#[test]
fn what_a_volume_keeps_of_its_past_can_be_changed_within_bounds() {
    let mut memory = Memory::cluster(1);
    memory.create("counted", policy(VolumeKind::Single, 1, 1));
    memory.create("data", policy(VolumeKind::Hash, 1, 1));
    let year = HistoryPolicy::Age(365 * 86_400_000);
    for (name, history) in [
        ("data", year),
        ("data", HistoryPolicy::Age(30_000)),
        ("counted", HistoryPolicy::Versions(1)),
        ("counted", year),
        ("counted", HistoryPolicy::Usual),
    ] {
        let CatalogOutcome::Volume(volume) = memory.done(&keep(name, history)) else { panic!() };
        assert_eq!(volume.policy.history, history);
        assert_eq!(memory.view().volume(FIRST_TENANT, name), Some(&volume));
    }
    for (name, history, why) in [
        ("data", HistoryPolicy::Versions(10), "only a volume of kind single"),
        ("data", HistoryPolicy::Age(29_999), "30 seconds to 3650 days"),
        ("data", HistoryPolicy::Age(u64::MAX), "30 seconds to 3650 days"),
        ("counted", HistoryPolicy::Versions(0), "1 to 1000000000000 versions"),
        ("counted", HistoryPolicy::Versions(u64::MAX), "1 to 1000000000000 versions"),
        ("none", year, "no volume named none"),
    ] {
        let refusal = memory.refused(&keep(name, history));
        assert!(refusal.contains(why), "{refusal}");
    }
    let born = |kind, history| VolumePolicy { history, ..policy(kind, 1, 1) };
    memory.create("born", born(VolumeKind::Single, HistoryPolicy::Versions(7)));
    let wrong = create("wrong", born(VolumeKind::Ordered, HistoryPolicy::Versions(7)));
    assert!(memory.refused(&wrong).contains("only a volume of kind single"));
    memory.done(&delete("data"));
    assert!(memory.refused(&keep("data", year)).contains("is being deleted"));
}

fn observed(memory: &Memory, shard: ShardId, epoch: u64) -> ShardDescriptor {
    let descriptor = memory.view().shard(shard).unwrap().descriptor.clone();
    ShardDescriptor { epoch: Epoch(epoch), ..descriptor }
}

#[test]
fn observations_only_move_forward() {
    let mut memory = Memory::cluster(3);
    let shard = memory.create("data", policy(VolumeKind::Hash, 2, 1)).shards[0];
    memory.done(&place(shard, &[1, 2]));
    let mut newer = observed(&memory, shard, 3);
    newer.replicas.pop();
    memory.done(&CatalogCommand::ObserveShard(newer.clone()));
    for older in [1, 2, 3] {
        let older = observed(&memory, shard, older);
        let known = shard_of(memory.done(&CatalogCommand::ObserveShard(older)));
        assert_eq!(known, newer, "what is known comes back");
    }
    let mut forged = observed(&memory, shard, 4);
    forged.replicas[0].replica = ReplicaId(1_000);
    assert!(memory.refused(&CatalogCommand::ObserveShard(forged)).contains("does not fit"));
    let mut emptied = observed(&memory, shard, 4);
    emptied.replicas.clear();
    memory.refused(&CatalogCommand::ObserveShard(emptied));
}

#[test]
fn an_allotted_replica_joins_once_and_can_be_taken_back() {
    let mut memory = Memory::cluster(3);
    let shard = CATALOG_SHARD;
    let allot = |number| CatalogCommand::AllotReplica { shard, node: n(number) };
    let first = memory.done(&allot(2));
    let CatalogOutcome::Replica(replica) = first else { panic!("{first:?}") };
    assert_eq!(memory.done(&allot(2)), first);
    memory.done(&allot(3));
    let joining = |memory: &Memory| memory.view().shard(shard).unwrap().joining.clone();
    assert_eq!(joining(&memory).len(), 2);
    let mut seen = observed(&memory, shard, 2);
    seen.replicas.push(replica);
    memory.done(&CatalogCommand::ObserveShard(seen));
    assert_eq!(joining(&memory).len(), 1);
    let withdraw = CatalogCommand::WithdrawReplica { shard, replica: joining(&memory)[0].replica };
    memory.done(&withdraw);
    memory.done(&withdraw);
    assert!(joining(&memory).is_empty());
    let CatalogOutcome::Replica(again) = memory.done(&allot(3)) else { panic!() };
    assert!(again.replica > ReplicaId(3), "ids are not reused");
    memory.done(&CatalogCommand::RemoveNode(n(3)));
    assert!(joining(&memory).is_empty(), "a removed node joins nothing");
    assert!(memory.refused(&allot(3)).contains("was removed"));
}

#[test]
fn an_observation_that_skips_a_state_takes_allotted_replicas_back() {
    let mut memory = Memory::cluster(3);
    let allot = CatalogCommand::AllotReplica { shard: CATALOG_SHARD, node: n(2) };
    let CatalogOutcome::Replica(first) = memory.done(&allot) else { panic!() };
    memory.done(&CatalogCommand::ObserveShard(observed(&memory, CATALOG_SHARD, 3)));
    assert!(memory.view().shard(CATALOG_SHARD).unwrap().joining.is_empty());
    let CatalogOutcome::Replica(second) = memory.done(&allot) else { panic!() };
    assert!(second.replica > first.replica);
}

#[test]
fn a_deleted_volume_goes_when_its_replicas_are_gone() {
    let mut memory = Memory::cluster(3);
    let volume = memory.create("data", policy(VolumeKind::Hash, 2, 2));
    let destroyed = |shard, replica| CatalogCommand::ObserveDestroyed { shard, replica };
    memory.done(&place(volume.shards[0], &[2, 3]));
    assert!(memory.refused(&destroyed(volume.shards[0], ReplicaId(2))).contains("not being"));
    assert!(memory.refused(&CatalogCommand::ForgetVolume(volume.volume)).contains("not deleted"));
    memory.done(&delete("data"));
    memory.done(&delete("data"));
    assert!(memory.refused(&place(volume.shards[1], &[1, 2])).contains("being deleted"));
    let again = create("data", policy(VolumeKind::Hash, 1, 1));
    assert!(memory.refused(&again).contains("still being deleted"));
    memory.done(&destroyed(volume.shards[0], ReplicaId(2)));
    let forget = CatalogCommand::ForgetVolume(volume.volume);
    assert!(memory.refused(&forget).contains("still has a replica"));
    memory.done(&CatalogCommand::RemoveNode(n(3)));
    memory.done(&forget);
    memory.done(&forget);
    memory.done(&destroyed(volume.shards[0], ReplicaId(3)));
    assert!(memory.list("shard/").unwrap().len() == 1, "the catalog's own is left");
    memory.done(&again);
    assert_eq!(memory.refused(&delete("none")), "there is no volume named none");
}

#[test]
fn a_record_that_is_none_stops_apply() {
    let mut memory = Memory::cluster(1);
    memory.records.insert("ids".into(), vec![1, 0, 3]);
    let fault = apply(&mut memory, &create("data", policy(VolumeKind::Hash, 1, 1)));
    assert!(matches!(fault, Err(EngineError::Damaged { .. })), "{fault:?}");
}

#[test]
fn two_replicas_come_to_the_same_bytes() {
    let script = |memory: &mut Memory| {
        let volume = memory.create("data", policy(VolumeKind::Ordered, 3, 16));
        for shard in volume.shards {
            memory.done(&place(shard, &[3, 1, 2]));
        }
        memory.done(&CatalogCommand::MarkReady(volume.volume));
        memory.apply(&create("data", policy(VolumeKind::Hash, 3, 1)));
    };
    let (mut one, mut other) = (Memory::cluster(3), Memory::cluster(3));
    script(&mut one);
    script(&mut other);
    assert_eq!(one, other);
}

#[test]
fn a_learner_counts_for_no_majority() {
    let mut memory = Memory::cluster(2);
    let mut seen = observed(&memory, CATALOG_SHARD, 2);
    let CatalogOutcome::Replica(joining) =
        memory.done(&CatalogCommand::AllotReplica { shard: CATALOG_SHARD, node: n(2) })
    else {
        panic!()
    };
    seen.replicas.push(ReplicaDescriptor { role: ReplicaRole::Learner, ..joining });
    memory.done(&CatalogCommand::ObserveShard(seen));
    let first: NodeId = n(1);
    assert!(memory.refused(&CatalogCommand::RemoveNode(first)).contains("majority"));
}

#[test]
fn a_lost_replica_stays_lost_and_makes_room_on_its_own_node() {
    let mut memory = Memory::cluster(3);
    let volume = memory.create("data", policy(VolumeKind::Single, 3, 1));
    let shard = volume.shards[0];
    let CatalogOutcome::Shard(placed) = memory.done(&place(shard, &[1, 2, 3])) else { panic!() };
    let [first, second] = [placed.replicas[0].replica, placed.replicas[1].replica];
    let report = |replica, loss| CatalogCommand::ReportLost { shard, replica, loss };
    let record = |memory: &Memory| memory.view().shard(shard).unwrap().clone();
    memory.done(&report(second, Loss::Store));
    memory.done(&report(second, Loss::Log));
    assert_eq!(record(&memory).loss(second), Some(Loss::Store), "what was said first stands");
    memory.done(&report(ReplicaId(999), Loss::Log));
    memory.done(&CatalogCommand::ReportLost {
        shard: ShardId(99),
        replica: first,
        loss: Loss::Log,
    });
    assert_eq!(record(&memory).lost.len(), 1);
    // Two of three must stay whole: n3 cannot go while n2's replica is lost.
    assert!(memory.refused(&CatalogCommand::RemoveNode(n(3))).contains("majority"));
    let allot = CatalogCommand::AllotReplica { shard, node: n(2) };
    let CatalogOutcome::Replica(fresh) = memory.done(&allot) else { panic!() };
    assert!(fresh.replica > second);
    assert_eq!(memory.done(&allot), CatalogOutcome::Replica(fresh), "once");
    let mut after = record(&memory).descriptor;
    after.epoch = Epoch(3);
    after.replicas.retain(|held| held.replica != second);
    after.replicas.push(ReplicaDescriptor { role: ReplicaRole::Voter, ..fresh });
    memory.done(&CatalogCommand::ObserveShard(after));
    assert!(record(&memory).lost.is_empty(), "forgotten with the replica");
    memory.done(&CatalogCommand::RemoveNode(n(3)));
}

#[test]
fn a_node_that_shows_an_older_start_hears_what_it_must_not_bear_again() {
    let mut memory = Memory::cluster(2);
    memory.done(&boot(2, 5, 50));
    memory.done(&CatalogCommand::AllotReplica { shard: CATALOG_SHARD, node: n(2) });
    let seen = Boot { incarnation: Incarnation(5), nonce: line(5, 50) };
    for old in [boot(2, 4, 40), boot(2, 5, 51)] {
        let CatalogOutcome::Refused(refusal) = memory.apply(&old) else { panic!() };
        let born_up_to = ReplicaId(2);
        assert_eq!(refusal, CatalogRefusal::OldBoot { node: n(2), seen, born_up_to });
    }
}
