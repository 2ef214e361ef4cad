//! The view follows the records, shares nothing wrong and survives the disk.

use super::*;
use crate::catalog::{
    command::CatalogCommand,
    record::VolumeKind,
    trial::{Memory, delete, n, policy},
};

fn world() -> (Memory, VolumeRecord) {
    let mut memory = Memory::cluster(3);
    let volume = memory.create("data", policy(VolumeKind::Ordered, 3, 4));
    memory.done(&CatalogCommand::PlaceShard {
        shard: volume.shards[0],
        nodes: vec![n(1), n(2), n(3)],
    });
    (memory, volume)
}

/// What changed from one state of the records to another.
fn changes<'a>(before: &'a Memory, after: &'a Memory) -> Vec<(&'a str, Option<&'a [u8]>)> {
    let gone = before.records.keys().filter(|key| !after.records.contains_key(*key));
    let gone = gone.map(|key| (key.as_str(), None));
    let new = after.records.iter().filter(|(key, value)| before.records.get(*key) != Some(*value));
    gone.chain(new.map(|(key, value)| (key.as_str(), Some(&value[..])))).collect()
}

#[test]
fn a_view_finds_what_the_catalog_holds() {
    let (memory, volume) = world();
    let view = memory.view();
    assert_eq!(view.cluster().unwrap().name, "test");
    assert_eq!(view.active_nodes().count(), 3);
    assert!(view.is_active(n(2)) && !view.is_active(n(9)));
    assert_eq!(view.volume(volume.tenant, "data"), Some(&volume));
    assert_eq!(view.volume_by_id(volume.volume), Some(&volume));
    assert_eq!(view.shard(volume.shards[0]).unwrap().descriptor.replicas.len(), 3);
    assert_eq!(view.shards().count(), 5);
}

#[test]
fn an_update_changes_the_new_view_only() {
    let (before, volume) = world();
    let mut after = before.clone();
    after.done(&delete("data"));
    after.done(&CatalogCommand::RemoveNode(n(3)));
    for held in before.view().shard(volume.shards[0]).unwrap().descriptor.replicas.clone() {
        let (shard, replica) = (volume.shards[0], held.replica);
        after.done(&CatalogCommand::ObserveDestroyed { shard, replica });
    }
    after.done(&CatalogCommand::ForgetVolume(volume.volume));
    let old = before.view();
    let new = old.updated(Version(2), changes(&before, &after)).unwrap();
    assert_eq!(old, before.view());
    assert_eq!(new.records(), after.view().records());
    assert_eq!(new.version(), Version(2));
    assert_eq!(new.volume_by_id(volume.volume), None);
    assert!(new.node(n(3)).is_some() && !new.is_active(n(3)));
}

#[test]
fn changes_of_an_older_version_are_ignored() {
    let (memory, volume) = world();
    let view = memory.view().updated(Version(9), []).unwrap();
    let key = shard_key(volume.shards[0]);
    let late = view.updated(Version(8), [(key.as_str(), None)]).unwrap();
    assert_eq!(late, view);
}

#[test]
fn a_broken_record_leaves_the_old_view() {
    let (memory, _) = world();
    let view = memory.view();
    assert!(view.updated(Version(2), [("cluster", Some(&[1, 0, 1][..]))]).is_err());
    assert!(view.updated(Version(2), [("node/zz", None)]).is_err());
    assert!(view.updated(Version(2), [("shard/x", None)]).is_err());
    assert!(view.updated(Version(2), [("volume/1", None)]).is_err());
    assert_eq!(view.updated(Version(1), [("later/kind", Some(&[7][..]))]).unwrap(), view);
}

#[test]
fn a_stored_view_reads_back_and_damage_is_found() {
    let view = world().0.view();
    let bytes = view.encode();
    assert_eq!(CatalogView::decode(&bytes), Ok(view));
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(CatalogView::decode(&damaged).is_err(), "byte {at}");
    }
    assert!(CatalogView::decode(&bytes[..bytes.len() - 1]).is_err());
    let newer = encode_frame(FrameKind::NodeState, 2, b"whatever");
    assert_eq!(CatalogView::decode(&newer), Err(ViewError::NewerFormat { found: 2 }));
    let other = encode_frame(FrameKind::Gossip, 1, b"whatever");
    assert!(CatalogView::decode(&other).is_err());
    assert_eq!(CatalogView::decode(&CatalogView::default().encode()), Ok(CatalogView::default()));
}

#[test]
fn secrets_of_tokens_stay_out_of_the_view() {
    let (memory, _) = world();
    assert!(memory.records.keys().any(|key| key.starts_with("token/")));
    assert!(memory.view().records().iter().all(|(key, _)| !key.starts_with("token/")));
}
