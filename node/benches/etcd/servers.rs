//! Who is measured: three members of etcd, `cdb dev` of three nodes, and the ceiling.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use clusterdb::{
    cli::dev::{DevFile, ProcessState},
    devices::floor::cpu_seconds,
    doors::etcd::proto::etcdserverpb::{PutRequest, kv_client::KvClient},
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    ceiling::Ceiling,
    real_etcd::{RealEtcd, end, spawn},
};

const START_MAX: Duration = Duration::from_mins(1);

/// Somebody to measure; ends when it is dropped.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) addresses: Vec<SocketAddr>,
    pids: Vec<u32>,
    _runs: Runs,
}

/// What runs it.
#[expect(dead_code, reason = "held until it is dropped")]
enum Runs {
    Etcd(RealEtcd),
    Ours(Dev),
    Ceiling(Ceiling),
}

/// A development cluster of ours.
struct Dev {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Dev {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Server {
    pub(crate) fn etcd() -> Self {
        let etcd = RealEtcd::start(3);
        let (addresses, pids) = (etcd.addresses.clone(), etcd.pids());
        Self { name: "etcd", addresses, pids, _runs: Runs::Etcd(etcd) }
    }

    pub(crate) fn ours() -> Self {
        Self::dev("cdb", Path::new(env!("CARGO_BIN_EXE_cdb")))
    }

    /// What answers at once and stores nothing.
    pub(crate) fn ceiling() -> Self {
        let ceiling = Ceiling::start(3);
        let (addresses, pids) = (ceiling.addresses.clone(), ceiling.pids());
        Self { name: "ceil", addresses, pids, _runs: Runs::Ceiling(ceiling) }
    }

    /// Another build of ours.
    pub(crate) fn other(binary: &Path) -> Self {
        Self::dev("other", binary)
    }

    fn dev(name: &'static str, binary: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut command = Command::new(binary);
        command.args(["dev", "--data"]).arg(&data).env_remove("RUST_LOG");
        let dev = Dev { child: spawn(&mut command), _folder: folder };
        let begin = Instant::now();
        let nodes = loop {
            assert!(begin.elapsed() < START_MAX, "`cdb dev` does not start");
            let file = fs::read(data.join("dev.json")).unwrap_or_default();
            let file: DevFile = serde_json::from_slice(&file).unwrap_or_default();
            let ready = file.nodes.iter().filter(|node| node.state == ProcessState::Ready).count();
            if ready == 3 {
                break file.nodes;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let addresses = nodes.iter().filter_map(|node| node.etcd).collect();
        let pids = nodes.iter().filter_map(|node| node.pid).collect();
        Self { name, addresses, pids, _runs: Runs::Ours(dev) }
    }

    /// A connection of its own to one of the members.
    pub(crate) async fn connect(&self, number: usize) -> Channel {
        let address = self.addresses[number % self.addresses.len()];
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.tcp_nodelay(true).connect().await.unwrap()
    }

    /// Waits until it answers a put.
    pub(crate) async fn serves(&self) {
        let mut kv = KvClient::new(self.connect(0).await);
        let begin = Instant::now();
        let put = || PutRequest { key: b"begin".to_vec(), ..PutRequest::default() };
        while kv.put(put()).await.is_err() {
            assert!(begin.elapsed() < START_MAX, "{} does not serve", self.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Seconds of CPU the servers have used.
    pub(crate) fn cpu(&self) -> f64 {
        self.pids.iter().filter_map(|pid| cpu_seconds(*pid)).sum()
    }

    /// Megabytes of anonymous memory the servers hold.
    pub(crate) fn memory(&self) -> f64 {
        let anonymous = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        self.pids.iter().map(anonymous).sum::<u64>() as f64 / 1024.0
    }
}
