//! The etcd door beside a real etcd of three members: the same client program,
//! the same machine, one after the other, in turns.
//!
//!     cargo bench -p clusterdb --bench etcd -- [SECONDS] [ROUNDS]
//!
//! Each of 1, 64 and 256 clients has a connection of its own, to the members in
//! turn, and asks one thing at a time: puts of 256 bytes under 10,000 keys, then
//! linearizable gets of them. Clients and servers share the machine's cores, so
//! the figures compare the two and measure neither. CPU is that of the servers;
//! memory is anonymous, of all servers, at the end.
#![cfg_attr(not(feature = "etcd"), allow(unused, reason = "nothing to measure"))]
#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a measurement that cannot go on ends, and needs no more than a float's digits"
)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clusterdb::{
    cli::dev::{DevFile, ProcessState},
    doors::etcd::proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient},
};
use tonic::transport::{Channel, Endpoint};

const CLIENTS: [usize; 3] = [1, 64, 256];
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 256;
/// Ticks of `/proc/PID/stat` that Linux shows to programs, whatever its kernel counts.
const TICKS_PER_SECOND: f64 = 100.0;
const START_MAX: Duration = Duration::from_mins(1);

/// Somebody to measure.
struct Server {
    name: &'static str,
    addresses: Vec<SocketAddr>,
    pids: Vec<u32>,
    children: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            let _ = rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM);
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn quiet(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn await_ports(addresses: &[SocketAddr]) {
    let begin = Instant::now();
    while !addresses.iter().all(|address| TcpStream::connect(address).is_ok()) {
        assert!(begin.elapsed() < START_MAX, "no server at {addresses:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn start_etcd() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<SocketAddr> = (0..6)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect::<Vec<_>>()
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect();
    let (clients, peers) = ports.split_at(3);
    let all = peers.iter().enumerate().map(|(at, peer)| format!("m{at}=http://{peer}"));
    let all = all.collect::<Vec<_>>().join(",");
    let member = |at: usize| {
        let (client, peer) = (format!("http://{}", clients[at]), format!("http://{}", peers[at]));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{at}"), "--initial-cluster", &all])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(folder.path().join(format!("m{at}")));
        quiet(&mut command)
    };
    let children: Vec<Child> = (0..3).map(member).collect();
    let pids = children.iter().map(Child::id).collect();
    await_ports(clients);
    Server { name: "etcd", addresses: clients.to_vec(), pids, children, _folder: folder }
}

fn start_ours() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cdb"));
    command.args(["dev", "--data"]).arg(&data).env_remove("RUST_LOG");
    let child = quiet(&mut command);
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
    Server { name: "cdb", addresses, pids, children: vec![child], _folder: folder }
}

/// Seconds of CPU the servers have used.
fn cpu(server: &Server) -> f64 {
    let ticks = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    server.pids.iter().map(ticks).sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// Megabytes of anonymous memory the servers hold.
fn memory(server: &Server) -> f64 {
    let anonymous = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    server.pids.iter().map(anonymous).sum::<u64>() as f64 / 1024.0
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Put,
    Get,
}

async fn connect(address: SocketAddr) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
    KvClient::new(endpoint.connect().await.unwrap())
}

/// One client, until the time is up; microseconds of each request.
async fn ask(mut kv: KvClient<Channel>, kind: Kind, seed: u64, ends: Instant) -> Vec<u64> {
    let (mut state, mut took) = (seed.wrapping_mul(2) | 1, Vec::new());
    while Instant::now() < ends {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("key{:08}", (state >> 33) % KEYS).into_bytes();
        let begin = Instant::now();
        match kind {
            Kind::Put => {
                let value = vec![b'v'; VALUE_BYTES];
                kv.put(PutRequest { key, value, ..PutRequest::default() }).await.unwrap();
            }
            Kind::Get => {
                kv.range(RangeRequest { key, ..RangeRequest::default() }).await.unwrap();
            }
        }
        took.push(u64::try_from(begin.elapsed().as_micros()).unwrap());
    }
    took
}

async fn measure(server: &Server, kind: Kind, clients: usize, seconds: u64) -> String {
    let mut connections = Vec::new();
    for at in 0..clients {
        connections.push(connect(server.addresses[at % server.addresses.len()]).await);
    }
    let (before, begin) = (cpu(server), Instant::now());
    let ends = begin + Duration::from_secs(seconds);
    let asks =
        connections.into_iter().zip(0..).map(|(kv, seed)| tokio::spawn(ask(kv, kind, seed, ends)));
    let mut took = Vec::new();
    for asked in asks.collect::<Vec<_>>() {
        took.extend(asked.await.unwrap());
    }
    let (passed, used) = (begin.elapsed().as_secs_f64(), cpu(server) - before);
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100] as f64 / 1_000.0;
    format!(
        "{:>5} {:>4} {clients:>4} {:>9.0} {:>8.2} {:>8.2} {:>9.0}",
        server.name,
        if kind == Kind::Put { "put" } else { "get" },
        took.len() as f64 / passed,
        at(50),
        at(99),
        used / took.len() as f64 * 1e6
    )
}

/// Waits until a server answers a put.
async fn serves(server: &Server) {
    let mut kv = connect(server.addresses[0]).await;
    let begin = Instant::now();
    let put = || PutRequest { key: b"begin".to_vec(), ..PutRequest::default() };
    while kv.put(put()).await.is_err() {
        assert!(begin.elapsed() < START_MAX, "{} does not serve", server.name);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn main() {
    if !Path::new("/usr/bin/etcd").exists() {
        println!("no etcd here: nothing to compare with");
        return;
    }
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let (seconds, rounds) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let servers = [start_etcd(), start_ours()];
        for server in &servers {
            serves(server).await;
        }
        println!(" who   what  cli     ops/s   p50 ms   p99 ms  CPU s/M");
        for _ in 0..rounds {
            for (kind, clients) in
                [Kind::Put, Kind::Get].into_iter().flat_map(|kind| CLIENTS.map(|c| (kind, c)))
            {
                for server in &servers {
                    println!("{}", measure(server, kind, clients, seconds).await);
                }
            }
        }
        for server in &servers {
            println!("{:>5} anonymous memory of three: {:.0} MB", server.name, memory(server));
        }
    });
}
