//! Nodes with open etcd doors, three if nothing else is said, and requests for them.
#![allow(dead_code, reason = "each test binary uses its share")]

use std::{net::SocketAddr, time::Duration};

use clusterdb::doors::etcd::proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::common::{Cluster, LONG, Node, Ports};

/// Nodes whose doors are open.
pub(crate) struct Doors {
    /// Its nodes.
    pub(crate) cluster: Cluster,
    /// Where each serves etcd's clients.
    pub(crate) addresses: Vec<SocketAddr>,
    _ports: Ports,
    /// Dropped last.
    _folder: tempfile::TempDir,
}

impl Doors {
    /// Starts them; `extra` stands in the section of each door. From the test's own
    /// thread: a node ends with the thread that started it.
    pub(crate) fn open(extra: &str) -> Self {
        Self::open_of(3, extra)
    }

    /// The same of so many nodes.
    pub(crate) fn open_of(count: u16, extra: &str) -> Self {
        let (ports, folder) = (Ports::take(), tempfile::tempdir().unwrap());
        let cluster = Cluster::prepare(folder.path(), count, "");
        let addresses = (1..=count).map(|number| ports.of(number).0).collect();
        let mut doors = Self { cluster, addresses, _ports: ports, _folder: folder };
        doors.tell(extra);
        doors.cluster.found();
        doors
    }

    /// Writes the section of each door, in place of an earlier one.
    fn tell(&self, extra: &str) {
        for (node, address) in self.cluster.nodes.iter().zip(&self.addresses) {
            let text = std::fs::read_to_string(&node.config).unwrap();
            let before = text.split("doors:\n").next().unwrap();
            let section = format!("doors:\n  etcd:\n    listen: {address}\n{extra}");
            std::fs::write(&node.config, [before, &section].concat()).unwrap();
        }
    }

    /// A connection to the door of a node.
    pub(crate) async fn channel(&self, number: usize) -> Channel {
        let address = self.addresses[number - 1];
        connect(Endpoint::from_shared(format!("http://{address}")).unwrap()).await
    }

    /// Waits until the volume serves.
    pub(crate) async fn serve(self) -> Self {
        let mut kv = KvClient::new(self.channel(1).await);
        await_volume(&mut kv).await;
        self
    }

    /// Starts all nodes again with other settings.
    pub(crate) async fn reopen(mut self, extra: &str) -> Self {
        self.cluster.nodes.iter_mut().for_each(Node::stop);
        self.tell(extra);
        self.cluster.nodes.iter_mut().for_each(|node| node.start(&[]));
        self.cluster.nodes.iter_mut().for_each(Node::wait_ready);
        self.serve().await
    }
}

/// Connects, or fails the test.
pub(crate) async fn connect(endpoint: Endpoint) -> Channel {
    endpoint.timeout(Duration::from_secs(20)).connect().await.unwrap()
}

/// Waits until the volume serves.
pub(crate) async fn await_volume(kv: &mut KvClient<Channel>) {
    let serves = async {
        while kv.range(get("none", "")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, serves).await.expect("the volume serves");
}

/// A request.
pub(crate) fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.into(), value, ..PutRequest::default() }
}

/// A request; an empty end is that of one key.
pub(crate) fn get(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() }
}
