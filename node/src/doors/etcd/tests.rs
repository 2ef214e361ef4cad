//! What the door does by itself, on a node inside the test.

use actors::client::ClientError;
use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::{Fault, ReadLevel},
    shard::{range::Range, transaction::Put},
    units::ByteSize,
};
use tokio::time::{sleep, timeout};

use super::*;
use crate::assemble::{Embedded, embedded_config};

/// A node of its own.
async fn node() -> (Embedded, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = embedded_config(&folder.path().join("node"), ByteSize::mib(256)).unwrap();
    (Embedded::open(&config).await.unwrap(), folder)
}

fn policy(kind: VolumeKind) -> VolumePolicy {
    VolumePolicy::new(kind, 1, 1)
}

/// A section of the door.
fn config(volume: &str) -> EtcdConfig {
    EtcdConfig { volume: volume.to_owned(), replicas: 1, ..EtcdConfig::default() }
}

/// A door onto a node of its own that nobody connects to: services are asked as they
/// are.
pub(super) struct Door {
    pub(super) gateway: Arc<Gateway>,
    _node: Embedded,
    _folder: tempfile::TempDir,
}

impl Door {
    pub(super) async fn open() -> Self {
        let (node, folder) = node().await;
        let client = node.client.clone();
        // The least there is.
        let config = EtcdConfig { memory: ByteSize::mib(16), ..config("etcd") };
        client.create_volume(&config.volume, policy(VolumeKind::Single)).await.unwrap();
        Self { gateway: Arc::new(node.etcd_gateway(config)), _node: node, _folder: folder }
    }

    /// A lease of a minute.
    pub(super) async fn lease(&self) -> LeaseId {
        self.gateway.lease_of(&self.gateway.client, 0).await.unwrap()
    }
}

/// Changes a key twice; the version of the first change.
async fn change(client: &Client, volume: &str) -> Version {
    let put = |value: &str| client.put_as(volume, Put::new("k", value));
    let (first, _): (Version, _) = put("1").await.unwrap();
    put("2").await.unwrap();
    first
}

/// Lets the door keep a volume as long as something else goes on.
async fn beside_upkeep<T>(client: &Client, volume: &str, other: impl Future<Output = T>) -> T {
    let auto_compaction = Some(AutoCompaction::Age(Duration::from_millis(100)));
    let keep = keep_volume(client.clone(), EtcdConfig { auto_compaction, ..config(volume) });
    tokio::select! {
        _ = keep => panic!("it goes on"),
        done = other => done,
    }
}

/// What is read of a key at a version.
async fn value_at(client: &Client, volume: &str, at: Version) -> Result<Vec<u8>, ClientError> {
    let then = client.range(volume, Range::of("k").at(at), ReadLevel::Strong).await?;
    Ok(then.result.items[0].value.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_another_kind_is_not_compacted() {
    let (node, _folder) = node().await;
    for (name, kind) in [("spread", VolumeKind::Hash), ("listed", VolumeKind::Ordered)] {
        node.client.create_volume(name, policy(kind)).await.unwrap();
        let first = change(&node.client, name).await;
        beside_upkeep(&node.client, name, sleep(Duration::from_secs(2))).await;
        assert_eq!(value_at(&node.client, name, first).await.unwrap(), b"1", "{name}");
    }
    node.client.create_volume("own", policy(VolumeKind::Single)).await.unwrap();
    let first = change(&node.client, "own").await;
    let own = async {
        loop {
            match value_at(&node.client, "own", first).await {
                Ok(_) => sleep(Duration::from_millis(100)).await,
                Err(error) => return error,
            }
        }
    };
    let own = timeout(Duration::from_secs(30), beside_upkeep(&node.client, "own", own)).await;
    let own = own.expect("a compaction");
    let ClientError::Fault { fault: Fault::Compacted { .. }, .. } = own else { panic!("{own}") };
    node.stop().await;
}
