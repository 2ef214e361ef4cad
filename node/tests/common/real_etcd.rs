//! A real etcd to compare with (Debian's `etcd-server`): one process per member
//! on free ports of loopback, in a temporary directory, ended when it is dropped.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]
#![allow(dead_code, reason = "each test binary uses its share")]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a start.
const START_MAX: Duration = Duration::from_mins(1);
/// Longest wait for an end in order (`cdb dev` gives its nodes 20 s).
const END_MAX: Duration = Duration::from_secs(25);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A cluster of etcd.
#[derive(Debug)]
pub(crate) struct RealEtcd {
    children: Vec<Child>,
    /// Where each member serves clients.
    pub(crate) addresses: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

/// Whether a program is there.
pub(crate) fn has(program: &str, version: &str) -> bool {
    Command::new(program)
        .arg(version)
        .env("ETCDCTL_API", "3")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl RealEtcd {
    /// Whether there is one.
    pub(crate) fn is_installed() -> bool {
        has("etcd", "--version")
    }

    /// Starts so many members, and waits until all listen.
    pub(crate) fn start(members: usize) -> Self {
        Self::start_with(members, "http", &[])
    }

    /// The same with more arguments, and clients by this scheme.
    pub(crate) fn start_with(members: usize, scheme: &str, arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // All are held until all are known: no two alike.
        let free: Vec<TcpListener> = (0..2 * members)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .collect();
        let ports: Vec<SocketAddr> = free.iter().map(|held| held.local_addr().unwrap()).collect();
        drop(free);
        let (clients, peers) = ports.split_at(members);
        let all = peers.iter().enumerate().map(|(at, peer)| format!("m{at}=http://{peer}"));
        let all = all.collect::<Vec<_>>().join(",");
        let member = |at: usize| {
            let client = format!("{scheme}://{}", clients[at]);
            let peer = format!("http://{}", peers[at]);
            let mut command = Command::new("etcd");
            command
                .args(["--name", &format!("m{at}"), "--initial-cluster", &all])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(arguments)
                .arg("--data-dir")
                .arg(folder.path().join(format!("m{at}")));
            spawn(&mut command)
        };
        let children = (0..members).map(member).collect();
        for address in clients {
            await_port(*address);
        }
        Self { children, addresses: clients.to_vec(), _folder: folder }
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for RealEtcd {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(end);
    }
}

/// Starts a process in a group of its own: Ctrl-C at a test reaches the test.
pub(crate) fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().unwrap()
}

fn await_port(address: SocketAddr) {
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begin.elapsed() < START_MAX, "nobody listens at {address}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Ends a process in order, or else by force.
pub(crate) fn end(child: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let _ = kill_process(pid, Signal::TERM);
    let begin = Instant::now();
    while child.try_wait().is_ok_and(|ended| ended.is_none()) {
        if begin.elapsed() > END_MAX {
            let _ = child.kill();
        }
        thread::sleep(LOOK_EVERY);
    }
}
