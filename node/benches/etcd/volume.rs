//! A volume of many keys: loaded in transactions, copied as a snapshot.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clusterdb::doors::etcd::proto::etcdserverpb::{
    PutRequest, RequestOp, SnapshotRequest, TxnRequest, kv_client::KvClient,
    maintenance_client::MaintenanceClient, request_op::Request,
};

use crate::{
    asks::{VALUE_BYTES, key},
    servers::Server,
};

/// Puts of a transaction: as many as etcd takes.
const BATCH: u64 = 128;
const LOADERS: usize = 16;
/// Tries of one transaction: a member may be busy for a while.
const TRIES_MAX: u32 = 50;

fn batch(first: u64, keys: u64) -> TxnRequest {
    let put = |number| {
        let (key, value) = (key(number), vec![b'v'; VALUE_BYTES]);
        let put = PutRequest { key, value, ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let success = (first..keys.min(first + BATCH)).map(put).collect();
    TxnRequest { success, ..TxnRequest::default() }
}

/// Writes so many keys; seconds it took. A transaction that failed is sent again:
/// it writes the same.
pub(crate) async fn load(server: &Server, keys: u64) -> f64 {
    let (begin, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut loaders = tokio::task::JoinSet::new();
    for number in 0..LOADERS {
        let (mut kv, next) = (KvClient::new(server.connect(number).await), next.clone());
        loaders.spawn(async move {
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= keys {
                    return;
                }
                let mut tries = 0;
                while let Err(error) = kv.txn(batch(first, keys)).await {
                    tries += 1;
                    assert!(tries < TRIES_MAX, "{error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
    }
    while let Some(loaded) = loaders.join_next().await {
        loaded.unwrap();
    }
    begin.elapsed().as_secs_f64()
}

/// Seconds and megabytes of a snapshot of all there is.
pub(crate) async fn snapshot(server: &Server) -> (f64, f64) {
    let maintenance = MaintenanceClient::new(server.connect(0).await);
    let mut maintenance = maintenance.max_decoding_message_size(64 << 20);
    let begin = Instant::now();
    let mut pieces = maintenance.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes += piece.blob.len();
    }
    (begin.elapsed().as_secs_f64(), bytes as f64 / f64::from(1 << 20))
}
