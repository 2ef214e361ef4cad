//! A store at its limit, while the disk has room.

use std::{fs, io::Write as _, net::SocketAddr, time::Duration};

use clusterdb::doors::etcd::proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest,
    kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, transport::Channel};

use super::{
    VALUE,
    common::{Cluster, LONG, Ports, http_get},
};

/// The least there is.
const LIMIT: &str = "  store: 256MiB\n";
/// As much as fits below what a store of that limit keeps, in MiB.
const ROOM_MIB: usize = 184;
/// More than fits below it.
const LARGER_MIB: usize = 232;

/// More than the seconds in which what waits for a store goes there.
const SETTLED: Duration = Duration::from_secs(3);

struct Door {
    kv: KvClient<Channel>,
    /// Of all members: each tells the alarms of its own store, and whichever leads refuses.
    maintenance: Vec<MaintenanceClient<Channel>>,
}

impl Door {
    async fn open(addresses: &[SocketAddr]) -> Self {
        let mut channels = Vec::new();
        for address in addresses {
            channels.push(connect(address).await);
        }
        let kv = KvClient::new(channels[0].clone());
        Self { kv, maintenance: channels.into_iter().map(MaintenanceClient::new).collect() }
    }

    async fn put(&mut self, key: &str, value: &[u8]) -> Result<i64, Status> {
        let put = PutRequest { key: key.into(), value: value.to_vec(), ..PutRequest::default() };
        Ok(self.kv.put(put).await?.into_inner().header.unwrap().revision)
    }

    /// Puts once there is a leader, and room.
    async fn put_at_last(&mut self, key: &str, value: &[u8]) -> i64 {
        let begun = Instant::now();
        loop {
            match self.put(key, value).await {
                Ok(revision) => return revision,
                Err(refused) => assert!(begun.elapsed() < LONG * 2, "{key}: {refused}"),
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Puts values until they are refused for want of space, and stay refused: a
    /// store makes room for a moment by writing what waits for it; how many there are.
    async fn fill(&mut self) -> usize {
        let (mut written, mut refused_since, begun) = (0, None, Instant::now());
        loop {
            match self.put(&format!("k/{written}"), &VALUE).await {
                Ok(_) => (written, refused_since) = (written + 1, None),
                // Nothing of space: it is busy, or its leader goes.
                Err(refused)
                    if refused.message().contains("too many requests")
                        || refused.code() == Code::Unavailable =>
                {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(refused) => {
                    let told = (refused.code(), refused.message());
                    let space = "etcdserver: mvcc: database space exceeded";
                    assert_eq!(told, (Code::ResourceExhausted, space), "after {written} MiB");
                    if refused_since.get_or_insert_with(Instant::now).elapsed() > SETTLED {
                        return written;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
            assert!(begun.elapsed() < LONG * 4, "{written} MiB, and it never fills");
        }
    }

    async fn holds(&mut self, key: &str, value: &[u8]) {
        let get = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let found = self.kv.range(get).await.unwrap().into_inner();
        assert!(found.kvs.iter().any(|it| it.value == value), "{key}: {} found", found.count);
    }

    /// Waits until some member has an alarm, or none.
    async fn alarms(&mut self, wanted: bool) {
        let begun = Instant::now();
        loop {
            let mut some = false;
            for member in &mut self.maintenance {
                let alarms = member.alarm(AlarmRequest::default()).await.unwrap();
                some |= !alarms.into_inner().alarms.is_empty();
            }
            if some == wanted {
                return;
            }
            assert!(begun.elapsed() < LONG, "an alarm: {}", !wanted);
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Connects once the door is open.
async fn connect(address: &SocketAddr) -> Channel {
    let begun = Instant::now();
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return channel;
        }
        assert!(begun.elapsed() < LONG, "the door stays closed");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Kills all nodes and starts them again with another limit.
fn restart(cluster: &mut Cluster, (before, after): (&str, &str)) {
    for node in &mut cluster.nodes {
        node.kill();
        let text = fs::read_to_string(&node.config).unwrap();
        fs::write(&node.config, text.replace(before, after)).unwrap();
    }
    cluster.nodes.iter_mut().for_each(|node| node.start(&[]));
    cluster.nodes.iter_mut().for_each(super::common::Node::wait_ready);
}

#[tokio::test]
async fn a_store_at_its_limit_refuses_puts_until_keys_are_gone_or_the_limit_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let ports = Ports::take();
    let addresses = [1, 2, 3].map(|number| ports.of(number).0);
    let mut cluster = Cluster::prepare(folder.path(), 3, LIMIT);
    for (node, address) in cluster.nodes.iter().zip(&addresses) {
        let config = fs::OpenOptions::new().append(true).open(&node.config);
        write!(config.unwrap(), "doors:\n  etcd:\n    listen: {address}\n").unwrap();
    }
    cluster.found();
    let mut door = Door::open(&addresses).await;
    door.put_at_last("kept", b"kept").await;

    let written = door.fill().await;
    assert!((ROOM_MIB / 2..=ROOM_MIB).contains(&written), "{written} MiB of {ROOM_MIB}");
    door.alarms(true).await;
    let findings = cluster.status()["findings"].to_string();
    assert!(findings.contains("raise limits.store"), "{findings}");
    let page = http_get(cluster.nodes[0].http, "/metrics").unwrap().1;
    assert!(page.contains("cdb_store_fullest_ratio 0."), "{page}");
    door.holds("kept", b"kept").await;
    for number in 0..written {
        door.holds(&format!("k/{number}"), &VALUE).await;
    }

    let mut revision = 0;
    for number in 0..written {
        let key = format!("k/{number}").into_bytes();
        let gone = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let gone = door.kv.delete_range(gone).await.unwrap().into_inner();
        assert_eq!(gone.deleted, 1);
        revision = gone.header.unwrap().revision;
    }
    let compaction = CompactionRequest { revision, physical: false };
    door.kv.compact(compaction).await.unwrap();
    door.put_at_last("again", &VALUE).await;
    door.alarms(false).await;

    // What is full stays whole, and a larger limit is room.
    let written = door.fill().await;
    assert!(written >= ROOM_MIB / 2, "{written} MiB fit again");
    restart(&mut cluster, ("store: 256MiB", "store: 512MiB"));
    let mut door = Door::open(&addresses).await;
    for number in written..LARGER_MIB {
        door.put_at_last(&format!("k/{number}"), &VALUE).await;
    }
    // A smaller one than is used lets nobody put, and everybody read and delete.
    restart(&mut cluster, ("store: 512MiB", "store: 256MiB"));
    let mut door = Door::open(&addresses).await;
    door.alarms(true).await;
    let first = DeleteRangeRequest { key: "k/0".into(), ..DeleteRangeRequest::default() };
    assert_eq!(door.kv.delete_range(first).await.unwrap().into_inner().deleted, 1);
    for number in 1..LARGER_MIB {
        door.holds(&format!("k/{number}"), &VALUE).await;
    }
    for (key, value) in [("kept", &b"kept"[..]), ("again", &VALUE)] {
        door.holds(key, value).await;
    }
    cluster.all_run();
    for node in &cluster.nodes {
        assert!(!node.log_text().contains("a flush failed"), "n{}", node.number);
    }
}
