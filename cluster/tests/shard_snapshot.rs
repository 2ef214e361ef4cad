//! Copying a replica while it is written, and going on after a kill.

mod model;

use cluster::{
    ids::{ReplicaId, StoreId},
    memory::MemoryEngine,
    mvcc::version::VersionKind,
    ports::engine::{Engine, Store, View},
    shard::{
        machine::ShardMachine,
        snapshot::{PinnedSnapshot, SnapshotError, SnapshotReceiver, snapshot_piece},
    },
};
use model::{Chance, Model, Replica, compare, ops, put};

const RECEIVED: ReplicaId = ReplicaId(77);
const OFFER: u64 = 5;

fn write(replica: &mut Replica, model: &mut Model, chance: &mut Chance) {
    let ops = ops(chance);
    replica.write(ops.clone());
    model.write(&ops, replica.machine.version());
    if chance.below(6) == 0 {
        replica.flush();
    }
}

/// Opens what was received.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn received(store: &dyn Store) -> ShardMachine {
    ShardMachine::open(RECEIVED, &*store.view().unwrap()).unwrap()
}

#[test]
fn a_snapshot_taken_while_writes_go_on_is_the_state_at_its_pin() {
    for (seed, kind) in
        [(1, VersionKind::Dense), (2, VersionKind::Hybrid), (3, VersionKind::Hybrid)]
    {
        let engine = MemoryEngine::default();
        let (mut replica, mut model) = (Replica::born(&engine, kind), Model::default());
        let mut chance = Chance(seed);
        (0..400).for_each(|_| write(&mut replica, &mut model, &mut chance));
        let pin = PinnedSnapshot::new(replica.machine.reader(), 1 << 20);
        let (pinned_hash, pinned_model) = (replica.hash(), model.clone());

        let store = engine.create(StoreId(9)).unwrap();
        let mut receiver = SnapshotReceiver::new(RECEIVED, OFFER);
        let mut pieces = 0;
        while !receiver.is_complete() {
            let view = replica.store.view().unwrap();
            let piece = snapshot_piece(&pin, &*view, receiver.position(), 900).unwrap();
            drop(view);
            assert!(
                store
                    .view()
                    .unwrap()
                    .get(
                        cluster::ports::engine::Tree::Root,
                        &cluster::mvcc::layout::root_key(RECEIVED)
                    )
                    .unwrap()
                    .is_none()
            );
            store.commit(&receiver.accept(&piece).unwrap()).unwrap();
            (0..5).for_each(|_| write(&mut replica, &mut model, &mut chance));
            pieces += 1;
        }
        assert!(pieces > 20, "{pieces} pieces");
        let machine = received(&*store);
        assert_eq!(machine.applied(), pin.applied());
        assert_eq!(machine.reader().state_hash(&*store.view().unwrap()).unwrap(), pinned_hash);
        for _ in 0..50 {
            let place = chance.index(pinned_model.changes.len());
            let at = pinned_model.changes[place].0;
            compare(&machine.reader(), &*store, &pinned_model, at, &mut chance);
        }
    }
}

/// A replica of `keys` keys, and what its snapshot takes in all.
fn filled(engine: &MemoryEngine, keys: u32) -> (Replica, PinnedSnapshot) {
    let mut replica = Replica::born(engine, VersionKind::Dense);
    for n in 0..keys {
        replica.write(vec![put(format!("key/{n:05}").as_bytes(), &[7; 100])]);
    }
    replica.flush();
    let pin = PinnedSnapshot::new(replica.machine.reader(), 0);
    (replica, pin)
}

#[test]
fn a_receiver_killed_half_way_keeps_what_it_had() {
    let engine = MemoryEngine::default();
    let (replica, pin) = filled(&engine, 2_000);
    let pieces_of = |position: &[u8]| {
        snapshot_piece(&pin, &*replica.store.view().unwrap(), position, 4_000).unwrap()
    };
    let store = engine.create(StoreId(9)).unwrap();
    let mut receiver = SnapshotReceiver::new(RECEIVED, OFFER);
    while receiver.received_bytes() < 165_000 {
        store.commit(&receiver.accept(&pieces_of(receiver.position())).unwrap()).unwrap();
    }
    // A piece that was taken in but never committed is as if it never came.
    receiver.accept(&pieces_of(receiver.position())).unwrap();
    drop((receiver, store));
    engine.crash();

    let sender = engine.open(model::STORE).unwrap();
    let store = engine.open(StoreId(9)).unwrap();
    let view =
        |store: &dyn Store| SnapshotReceiver::resume(&*store.view().unwrap(), RECEIVED, OFFER);
    let mut receiver = view(&*store).unwrap().unwrap();
    let kept = receiver.received_bytes();
    let mut last = (0, 0);
    while !receiver.is_complete() {
        let view = sender.view().unwrap();
        let piece = snapshot_piece(&pin, &*view, receiver.position(), 4_000).unwrap();
        last = piece.progress;
        store.commit(&receiver.accept(&piece).unwrap()).unwrap();
    }
    let total = last.0;
    assert_eq!(total, 330_000);
    println!("{kept} of {total} bytes were kept");
    assert!(kept * 100 >= total * 45, "{kept} of {total} bytes were kept");
    let hash = |machine: &ShardMachine, view: &dyn View| machine.reader().state_hash(view).unwrap();
    let machine = received(&*store);
    assert_eq!(
        hash(&machine, &*store.view().unwrap()),
        hash(&replica.machine, &*sender.view().unwrap())
    );
    // Killed after the last piece: nothing is left to do.
    assert!(view(&*store).unwrap().unwrap().is_complete());
}

#[test]
fn pieces_that_cannot_follow_are_refused() {
    let engine = MemoryEngine::default();
    let (mut replica, pin) = filled(&engine, 50);
    let piece = |pin: &PinnedSnapshot, replica: &Replica, position: &[u8]| {
        snapshot_piece(pin, &*replica.store.view().unwrap(), position, 1_000).unwrap()
    };
    let mut receiver = SnapshotReceiver::new(RECEIVED, OFFER);
    let first = piece(&pin, &replica, &[]);
    receiver.accept(&first).unwrap();
    assert!(matches!(receiver.clone().accept(&first), Err(SnapshotError::Invalid(_))));
    let second = piece(&pin, &replica, receiver.position());
    let mut bent = second.clone();
    *bent.records[0].record.last_mut().unwrap() ^= 1;
    assert!(matches!(receiver.clone().accept(&bent), Err(SnapshotError::Invalid(_))));
    let mut lying = second.clone();
    lying.records[0].version.0 += 1;
    assert!(matches!(receiver.clone().accept(&lying), Err(SnapshotError::Invalid(_))));
    let mut cut = second.clone();
    cut.records.pop();
    assert!(matches!(receiver.clone().accept(&cut), Err(SnapshotError::Invalid(_))));
    replica.write(vec![put(b"more", b"")]);
    let other = PinnedSnapshot::new(replica.machine.reader(), 0);
    let other = piece(&other, &replica, receiver.position());
    assert_eq!(receiver.clone().accept(&other), Err(SnapshotError::OtherSnapshot));
    receiver.accept(&second).unwrap();
    let nonsense = snapshot_piece(&pin, &*replica.store.view().unwrap(), b"nonsense", 10);
    assert!(matches!(nonsense, Err(SnapshotError::Invalid(_))), "{nonsense:?}");
}

#[test]
fn another_offer_begins_again() {
    let engine = MemoryEngine::default();
    let (replica, pin) = filled(&engine, 10);
    let store = engine.create(StoreId(9)).unwrap();
    let mut receiver = SnapshotReceiver::new(RECEIVED, OFFER);
    let piece = snapshot_piece(&pin, &*replica.store.view().unwrap(), &[], 100).unwrap();
    store.commit(&receiver.accept(&piece).unwrap()).unwrap();
    let view = store.view().unwrap();
    assert!(SnapshotReceiver::resume(&*view, RECEIVED, OFFER).unwrap().is_some());
    assert!(SnapshotReceiver::resume(&*view, RECEIVED, OFFER + 1).unwrap().is_none());
    assert!(SnapshotReceiver::resume(&*view, ReplicaId(1), OFFER).unwrap().is_none());
}
