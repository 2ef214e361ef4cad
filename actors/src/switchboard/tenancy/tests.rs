//! What a client of one tenant may reach and see, and what stays hidden.

use cluster::{
    auth::Principal,
    catalog::{
        encoding::{IDS_KEY, shard_key, token_key, volume_key},
        record::{VolumeKind, VolumePolicy, VolumeRecord, VolumeState},
    },
    ids::{ClusterId, Epoch},
    mvcc::version::Version,
    ports::network::{Peer, RequestClass},
    request::{Request, ShardBody, ShardRequest},
    shard::descriptor::{Predicate, ShardDescriptor},
};

use super::*;
use crate::switchboard::authorise;

const ANN: TenantId = TenantId(1);
const BOB: TenantId = TenantId(2);

fn volume(id: u64, tenant: TenantId, shard: u64) -> [Change; 2] {
    let record = VolumeRecord {
        volume: VolumeId(id),
        tenant,
        name: format!("v{id}"),
        policy: VolumePolicy::new(VolumeKind::Hash, 3, 1),
        shards: vec![ShardId(shard)],
        state: VolumeState::Ready,
    };
    let descriptor = ShardDescriptor {
        shard: ShardId(shard),
        volume: VolumeId(id),
        epoch: Epoch(1),
        predicate: Predicate::all(),
        replicas: Vec::new(),
    };
    let placed = ShardRecord::new(descriptor);
    [
        (volume_key(tenant, &record.name), Some(encode_record(&record))),
        (shard_key(ShardId(shard)), Some(encode_record(&placed))),
    ]
}

fn records() -> Vec<Change> {
    let cluster = ClusterRecord {
        cluster: ClusterId(7),
        name: "c".into(),
        authority: vec![1],
        authority_key_sealed: vec![2; 64],
        feature_level: 1,
    };
    let mut records = vec![(CLUSTER_KEY.to_owned(), Some(encode_record(&cluster)))];
    records.extend(volume(2, ANN, 10));
    records.extend(volume(3, BOB, 20));
    records.push((token_key(&[9; 32]), Some(vec![0; 8])));
    records
}

fn view() -> CatalogView {
    let records = records();
    let changes = records.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
    CatalogView::default().updated(Version(1), changes).unwrap()
}

#[test]
fn a_client_reaches_no_shard_of_another_tenant_nor_learns_that_it_is_there() {
    let view = view();
    assert_eq!(check_shard(&view, ANN, ShardId(10)), Ok(()));
    assert_eq!(check_shard(&view, BOB, ShardId(20)), Ok(()));
    let foreign = check_shard(&view, ANN, ShardId(20));
    assert_eq!(foreign, Err(Fault::NoReplica(ShardId(20))));
    assert_eq!(check_shard(&view, ANN, ShardId(99)), Err(Fault::NoReplica(ShardId(99))));
}

#[test]
fn a_client_sees_its_own_part_of_the_catalog_and_no_secret() {
    let view = view();
    let seen = visible(&view, ANN, records());
    let keys: Vec<_> = seen.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, [CLUSTER_KEY, "volume/1/v2", "shard/00000000000000000010"]);
    let cluster: ClusterRecord = decode_record(seen[0].1.as_deref().unwrap()).unwrap();
    assert!(cluster.authority_key_sealed.is_empty(), "the sealed key stays with the nodes");
    assert!(visible(&view, ANN, vec![(IDS_KEY.to_owned(), Some(vec![1]))]).is_empty());
}

#[test]
fn a_shard_whose_volume_is_not_known_here_yet_is_not_kept_from_its_client() {
    let seen = visible(&CatalogView::default(), BOB, volume(3, BOB, 20).to_vec());
    assert_eq!(seen.len(), 2);
}

#[test]
fn only_the_first_tenant_lets_nodes_in_and_nobody_reads_catalog_records_as_data() {
    let client = |tenant| Peer::Client { principal: "p".into(), tenant };
    let ask = |tenant, request: &Request| authorise(&client(tenant), request.class(), request);
    assert_eq!(ask(ANN, &Request::NewToken { lifetime_ms: 1 }), Ok(()));
    assert!(matches!(ask(BOB, &Request::NewToken { lifetime_ms: 1 }), Err(Fault::NotAllowed(_))));
    let body = ShardBody::Get {
        key: b"cluster".to_vec(),
        level: cluster::request::ReadLevel::Eventual,
        at: None,
        head_only: false,
    };
    let request = ShardRequest {
        shard: CATALOG_SHARD,
        epoch: Epoch(0),
        clock: cluster::mvcc::version::Hlc(0),
        timeout_ms: 1,
        forwarded: false,
        principal: Principal::Trusted,
        body,
    };
    let request = Request::Shard(request);
    assert!(matches!(ask(ANN, &request), Err(Fault::NotAllowed(_))));
    let wrong_class = authorise(&client(ANN), RequestClass::Data, &request);
    assert!(matches!(wrong_class, Err(Fault::NotAllowed(_))));
}
