//! Where a development cluster lies, and what it says about itself.
//!
//! ```text
//! DIR/client.yaml   profile of the operator        DIR/lock       held by `cdb dev`
//! DIR/dev.json      nodes, ports, processes        DIR/control/   requests to `cdb dev`
//! DIR/logs/n1.log   output of node 1               DIR/n1/        node.yaml and data
//! ```
//! Ports are kept for the next start; one that is taken meanwhile is replaced
//! by the next free one.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    cli::profile::{DevCluster, DevNode, PROFILE_FILE},
    config::{ETCD_PORT_DEFAULT, HTTP_PORT_DEFAULT, QUIC_PORT_DEFAULT},
};

/// Most nodes of a development cluster: zones have letters, and a laptop ends.
pub(super) const NODES_MAX: u64 = 9;
/// Ports tried after a taken one.
const PORTS_TRIED: u16 = 1_000;

/// Paths of one development cluster.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes its folders, for the owner alone.
    pub(super) fn create(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for folder in [self.root.clone(), self.control(), self.root.join("logs")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn profile(&self) -> PathBuf {
        self.root.join(PROFILE_FILE)
    }

    pub(super) fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    pub(super) fn log(&self, number: u64) -> PathBuf {
        self.root.join(format!("logs/n{number}.log"))
    }

    pub(super) fn config(&self, number: u64) -> PathBuf {
        self.root.join(format!("n{number}/node.yaml"))
    }

    pub(super) fn data(&self, number: u64) -> PathBuf {
        self.root.join(format!("n{number}/data"))
    }

    /// What the profile says about the cluster's processes.
    pub(super) fn describe(&self, nodes: impl Iterator<Item = u64>) -> DevCluster {
        let describe = |number| DevNode {
            number,
            config: self.config(number),
            pid_file: self.data(number).join("lock"),
            log: self.log(number),
        };
        DevCluster { data_dir: self.root.clone(), nodes: nodes.map(describe).collect() }
    }

    /// Reads `dev.json`; `None` before the first start.
    pub(super) fn load(&self) -> anyhow::Result<Option<DevFile>> {
        let path = self.root.join("dev.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let file = serde_json::from_slice(&bytes);
                file.map(Some).with_context(|| format!("{} is damaged; remove it", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes `dev.json`, whole or not at all.
    pub(super) fn save(&self, file: &DevFile) -> anyhow::Result<()> {
        let (path, new) = (self.root.join("dev.json"), self.root.join("dev.json.new"));
        let text = serde_json::to_string_pretty(file)?;
        fs::write(&new, text + "\n")
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// `dev.json`: what scripts and `cdb node` read. Fields are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevFile {
    /// Process of `cdb dev`; `None` when it is not running.
    pub pid: Option<u32>,
    /// Whether data is kept in memory.
    pub memory: bool,
    /// The nodes, by number.
    pub nodes: Vec<DevNodeState>,
}

/// One node in `dev.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevNodeState {
    /// 2 for `n2`.
    pub number: u64,
    /// How it is.
    pub state: ProcessState,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// Its QUIC address.
    pub quic: SocketAddr,
    /// Its HTTP address.
    pub http: SocketAddr,
    /// Where etcd clients reach it.
    #[serde(default)]
    pub etcd: Option<SocketAddr>,
    /// Its data directory.
    pub dir: PathBuf,
    /// Its output.
    pub log: PathBuf,
    /// Why it is not running, if it should be.
    pub problem: Option<String>,
}

/// How a node's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// Started, not ready yet.
    Starting,
    /// It serves.
    Ready,
    /// It was told to stop and has.
    Stopped,
    /// It ended without being told.
    Exited,
}

/// The ports of one development cluster, as they are given out.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Wanted by some node; another gets one only if it wants the same.
    reserved: Vec<u16>,
    used: Vec<u16>,
    /// Which ports were taken by others.
    notes: Vec<String>,
}

impl Ports {
    /// Reserves what nodes `1..=count` had, or what their numbers suggest.
    pub(super) fn new(count: u64, before: &DevFile) -> Self {
        let wanted = (1..=count).flat_map(|number| {
            let Addresses { quic, http, etcd } = wanted(number, before);
            [quic, http, etcd].map(|address| address.port())
        });
        Self { reserved: wanted.collect(), ..Self::default() }
    }

    /// Gives node `number` its addresses: those it has, unless somebody took
    /// them while it was down.
    pub(super) fn choose(&mut self, number: u64, before: &DevFile) -> anyhow::Result<Addresses> {
        let Addresses { quic, http, etcd } = wanted(number, before);
        let had = [quic, http, etcd].map(|address| address.port());
        self.used.retain(|port| !had.contains(port));
        let tcp = |address| TcpListener::bind(address).is_ok();
        let quic = self.give(number, "QUIC", quic, |address| UdpSocket::bind(address).is_ok())?;
        let http = self.give(number, "HTTP", http, tcp)?;
        let etcd = self.give(number, "etcd", etcd, tcp)?;
        Ok(Addresses { quic, http, etcd })
    }

    /// Prints which ports were taken, once.
    pub(super) fn tell(&mut self) {
        self.notes.drain(..).for_each(|note| println!("{note}"));
    }

    fn give(
        &mut self,
        number: u64,
        name: &str,
        wanted: SocketAddr,
        free: fn(SocketAddr) -> bool,
    ) -> anyhow::Result<SocketAddr> {
        let wanted = wanted.port();
        let port = (0..PORTS_TRIED)
            .filter_map(|step| wanted.checked_add(step))
            .filter(|port| *port == wanted || !self.reserved.contains(port))
            .find(|port| !self.used.contains(port) && free(loopback(*port)))
            .with_context(|| format!("no free {name} port near {wanted} for n{number}"))?;
        if port != wanted {
            self.notes.push(format!("n{number}: {name} port {wanted} is taken, using {port}"));
        }
        self.used.push(port);
        Ok(loopback(port))
    }
}

/// Where one node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) quic: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) etcd: SocketAddr,
}

/// The addresses a node had, or those its number suggests.
fn wanted(number: u64, before: &DevFile) -> Addresses {
    let offset = u16::try_from(number).unwrap_or_default();
    let had = before.nodes.iter().find(|node| node.number == number);
    let etcd = loopback(etcd_port(offset));
    match had {
        Some(node) => {
            Addresses { quic: node.quic, http: node.http, etcd: node.etcd.unwrap_or(etcd) }
        }
        None => Addresses {
            quic: loopback(QUIC_PORT_DEFAULT + offset),
            http: loopback(HTTP_PORT_DEFAULT + offset),
            etcd,
        },
    }
}

/// 2379, 22379, 32379 … as in the example of three members that etcd's own
/// documentation starts; nodes whose number gives no port follow the first.
fn etcd_port(number: u16) -> u16 {
    match number {
        2..=6 => number * 10_000 + ETCD_PORT_DEFAULT,
        _ => ETCD_PORT_DEFAULT + number.saturating_sub(1),
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_the_next_free_one_and_named() {
        let holder = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let held = holder.local_addr().unwrap().port();
        let node = |number, quic| DevNodeState {
            number,
            state: ProcessState::Stopped,
            pid: None,
            quic: loopback(quic),
            http: loopback(quic - 100),
            etcd: None,
            dir: PathBuf::new(),
            log: PathBuf::new(),
            problem: None,
        };
        let nodes = vec![node(1, held), node(2, held + 1)];
        let before = DevFile { pid: None, memory: false, nodes };
        let mut ports = Ports::new(2, &before);
        let quic = ports.choose(1, &before).unwrap().quic;
        assert!(quic.port() > held + 1, "{quic} is held, or wanted by the other node");
        assert!(
            ports.notes[0].contains(&format!("QUIC port {held} is taken")),
            "{:?}",
            ports.notes
        );
    }

    #[test]
    fn what_was_written_about_a_cluster_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create().unwrap();
        assert_eq!(layout.load().unwrap(), None);
        let file = DevFile { pid: Some(3), memory: true, nodes: Vec::new() };
        layout.save(&file).unwrap();
        assert_eq!(layout.load().unwrap(), Some(file));
    }
}
