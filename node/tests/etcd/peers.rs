//! The two who are asked: a real etcd, and `cdb dev`. Each ends with its test.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use clusterdb::cli::dev::{DevFile, DevNodeState, ProcessState};

use crate::real_etcd::{RealEtcd, end, spawn};

/// Longest wait for a start.
const WAIT: Duration = Duration::from_mins(1);

/// Somebody who speaks etcd.
pub(crate) trait Peer {
    /// Where each of its members is reached.
    fn addresses(&self) -> &[SocketAddr];

    /// Where one is.
    fn address(&self) -> String {
        self.addresses().first().unwrap().to_string()
    }
}

/// A development cluster of ours.
pub(crate) struct Ours {
    child: Child,
    pub(crate) addresses: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Ours {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdb"));
        command.args(["dev", "--data"]).arg(&data).env_remove("RUST_LOG");
        let child = spawn(&mut command);
        let begin = Instant::now();
        let addresses: Vec<SocketAddr> = loop {
            assert!(begin.elapsed() < WAIT, "`cdb dev` does not start");
            let text = fs::read(data.join("dev.json")).unwrap_or_default();
            let file: DevFile = serde_json::from_slice(&text).unwrap_or_default();
            let ready = |node: &DevNodeState| node.state == ProcessState::Ready;
            if file.nodes.len() == 3 && file.nodes.iter().all(ready) {
                break file.nodes.iter().filter_map(|node| node.etcd).collect();
            }
            thread::sleep(Duration::from_millis(50));
        };
        let ours = Self { child, addresses, _folder: folder };
        ours.await_volume();
        ours
    }

    /// The door creates its volume once there are three nodes.
    fn await_volume(&self) {
        let begin = Instant::now();
        // A door remembers where each member is reached once it was told, which may take
        // longer than it waits.
        while self.asks("get nothing").is_none() || !self.knows_its_members() {
            assert!(begin.elapsed() < WAIT, "no volume, or members that nobody reaches");
        }
    }

    /// What etcdctl prints, unless it fails.
    fn asks(&self, words: &str) -> Option<String> {
        let mut command = Command::new("etcdctl");
        command.args(["--endpoints", &self.address()]).args(words.split(' '));
        let output = command.env("ETCDCTL_API", "3").output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether its first door knows where each member is reached.
    fn knows_its_members(&self) -> bool {
        let list = self.asks("member list").unwrap_or_default();
        self.addresses.iter().all(|address| list.contains(&format!("http://{address}")))
    }
}

impl Peer for RealEtcd {
    fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Peer for Ours {
    fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
