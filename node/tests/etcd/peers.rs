//! The two who are asked: a real etcd, and `cdb dev`. Each ends with its test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clusterdb::cli::dev::DevFile;
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a start.
const WAIT: Duration = Duration::from_mins(1);

/// Somebody who speaks etcd.
pub(crate) trait Peer {
    /// Where.
    fn address(&self) -> String;
}

/// Whether there is an etcd to compare with.
pub(crate) fn has_etcd() -> bool {
    ["etcd", "etcdctl"].iter().all(|program| {
        let version = if *program == "etcd" { "--version" } else { "version" };
        Command::new(program)
            .arg(version)
            .env("ETCDCTL_API", "3")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// A real etcd of one member.
pub(crate) struct Theirs {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

/// A development cluster of ours.
pub(crate) struct Ours {
    child: Child,
    pub(crate) addresses: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Theirs {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (address, peers) = (free(), free());
        let (url, peers) = (format!("http://{address}"), format!("http://{peers}"));
        let mut command = Command::new("etcd");
        command
            .args(["--name", "one", "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("one={peers}"), "--data-dir"])
            .arg(folder.path().join("data"));
        let child = spawn(command);
        await_port(address);
        Self { child, address, _folder: folder }
    }
}

impl Ours {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdb"));
        command.args(["dev", "--data"]).arg(&data).env_remove("RUST_LOG");
        let child = spawn(command);
        let begin = Instant::now();
        let addresses: Vec<SocketAddr> = loop {
            assert!(begin.elapsed() < WAIT, "`cdb dev` does not start");
            let text = fs::read(data.join("dev.json")).unwrap_or_default();
            let file: DevFile = serde_json::from_slice(&text).unwrap_or_default();
            let ready = |node: &clusterdb::cli::dev::DevNodeState| {
                node.state == clusterdb::cli::dev::ProcessState::Ready
            };
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
        loop {
            let got = Command::new("etcdctl")
                .args(["--endpoints", &self.address(), "get", "nothing"])
                .env("ETCDCTL_API", "3")
                .output()
                .unwrap();
            if got.status.success() {
                return;
            }
            assert!(begin.elapsed() < WAIT, "no volume: {got:?}");
        }
    }
}

impl Peer for Theirs {
    fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Peer for Ours {
    fn address(&self) -> String {
        self.addresses.first().unwrap().to_string()
    }
}

/// Starts a process in a group of its own: Ctrl-C at a test reaches the test.
fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().unwrap()
}

fn await_port(address: SocketAddr) {
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begin.elapsed() < WAIT, "nobody listens at {address}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn end(child: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let _ = kill_process(pid, Signal::TERM);
    let begin = Instant::now();
    while child.try_wait().is_ok_and(|ended| ended.is_none()) {
        if begin.elapsed() > Duration::from_secs(15) {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
