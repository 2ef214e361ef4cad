//! The etcd door while the disk is full.

use std::{fs, time::Duration};

use clusterdb::doors::etcd::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    StatusRequest, TxnRequest, kv_client::KvClient, maintenance_client::MaintenanceClient,
    request_op::Request,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, transport::Channel};

use super::{
    Disk,
    common::{Cluster, LONG, Ports},
};

/// What an operator asks.
struct Operator {
    maintenance: MaintenanceClient<Channel>,
    member: u64,
}

impl Operator {
    async fn alarms(&mut self) -> Vec<AlarmMember> {
        self.maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms
    }

    /// What is wrong with the member, once that is as wanted.
    async fn errors(&mut self, wanted: bool) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let alarms = self.alarms().await;
            let status = self.maintenance.status(StatusRequest {}).await.unwrap().into_inner();
            let all = (!alarms.is_empty(), !status.errors.is_empty());
            if all == (wanted, wanted) {
                let alarm = AlarmType::Nospace as i32;
                assert!(alarms.iter().all(|at| (at.member_id, at.alarm) == (self.member, alarm)));
                return status.errors;
            }
            assert!(begun.elapsed() < LONG, "{alarms:?} {status:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn etcds_clients_hear_that_the_disk_is_full_and_that_it_is_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("n1")) else { return };
    let ports = Ports::take();
    let address = ports.of(1).0;
    let door = format!("doors:\n  etcd:\n    listen: {address}\n    replicas: 1\n");
    let mut cluster = Cluster::prepare(folder.path(), 1, &door);
    cluster.found();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut kv = KvClient::new(channel.clone());
    let put = |key: &str, bytes: usize| PutRequest {
        key: key.into(),
        value: vec![7; bytes],
        ..PutRequest::default()
    };
    let begun = Instant::now();
    while kv.put(put("kept", 100)).await.is_err() {
        assert!(begun.elapsed() < LONG, "the volume does not serve");
    }
    kv.put(put("gone", 100)).await.unwrap();
    let mut maintenance = MaintenanceClient::new(channel);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    let member = status.header.unwrap().member_id;
    let mut operator = Operator { maintenance, member };
    assert_eq!(operator.errors(false).await, Vec::<String>::new());

    let ballast = disk.fill();
    assert_eq!(operator.errors(true).await, [format!("memberID:{member} alarm:NOSPACE")]);
    let full = |status: Status| {
        let told = (status.code(), status.message().to_owned());
        let space = "etcdserver: mvcc: database space exceeded";
        assert_eq!(told, (Code::ResourceExhausted, space.to_owned()));
    };
    full(kv.put(put("more", 100)).await.unwrap_err());
    let success = vec![RequestOp { request: Some(Request::RequestPut(put("more", 100))) }];
    full(kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap_err());
    let delete = DeleteRangeRequest { key: "gone".into(), ..DeleteRangeRequest::default() };
    assert_eq!(kv.delete_range(delete).await.unwrap().into_inner().deleted, 1);
    let get = |key: &str| RangeRequest { key: key.into(), ..RangeRequest::default() };
    assert_eq!(kv.range(get("kept")).await.unwrap().into_inner().count, 1);
    assert_eq!(kv.range(get("more")).await.unwrap().into_inner().count, 0);

    fs::remove_file(ballast).unwrap();
    assert_eq!(operator.errors(false).await, Vec::<String>::new());
    kv.put(put("more", 1 << 20)).await.unwrap();
    drop(cluster);
}
