//! The etcd door beside a real etcd of three members: the same client program,
//! the same machine, in turns.
//!
//!     cargo bench -p clusterdb --bench etcd -- [SECONDS] [ROUNDS] [KEYS] [WHAT@CLIENTS]...
//!
//! Each of 1, 64 and 256 clients has a connection of its own, to the members in
//! turn, and asks one thing at a time: puts of 256 bytes under 10,000 keys,
//! linearizable gets of them, ranges of 1,000 of them. A put is told to 1,000
//! watchers, and the next is sent when all have heard of it. At the end KEYS (a
//! million) keys are loaded: the servers' anonymous memory, and the time and size
//! of a snapshot.
//!
//! `CDB_OTHER=PATH` measures another build of `cdb` beside them, in the same turns:
//! whether a change helped.
//!
//! `train` asks that other build alone, compares nothing and needs no etcd: what
//! `.ci/release` builds by is seen there.
//!
//! *Ceiling* are three processes that answer puts and gets at once and store nothing:
//! what this library and this client reach on this machine at best, in the same turns.
//!
//! Clients and servers share the machine's cores, so the figures compare the two
//! and measure neither. CPU is that of the servers. The floor is the median
//! `fdatasync` of the disk before and after: where the two differ much, the
//! machine was not quiet.
#![cfg_attr(not(feature = "etcd"), allow(unused, reason = "nothing to measure"))]
#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a measurement that cannot go on ends, and needs no more than a float's digits"
)]

#[path = "etcd/asks.rs"]
mod asks;
#[path = "etcd/ceiling.rs"]
mod ceiling;
#[path = "etcd/fanout.rs"]
mod fanout;
#[path = "../tests/common/real_etcd.rs"]
mod real_etcd;
#[path = "etcd/report.rs"]
mod report;
#[path = "etcd/servers.rs"]
mod servers;
#[path = "etcd/volume.rs"]
mod volume;

use clusterdb::devices::floor::Floor;

use asks::Kind;
use real_etcd::RealEtcd;
use report::Report;
use servers::Server;

const CLIENTS: [usize; 3] = [1, 64, 256];
const WATCHERS: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if ceiling::is_asked_for() {
        return runtime.block_on(ceiling::serve());
    }
    if !is_training() && !RealEtcd::is_installed() {
        println!("no etcd here: nothing to compare with");
        return;
    }
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let (seconds, rounds) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(3));
    let keys = numbers.next().unwrap_or(1_000_000);
    runtime.block_on(Box::pin(compare(seconds, rounds, keys)));
}

/// Whether this is to be measured: one of the words given, or none was.
fn is_wanted(what: &str, clients: usize) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| word.contains('@')).peekable();
    words.peek().is_none() || words.any(|word| word == format!("{what}@{clients}"))
}

/// Whether the other build is to run for its profile only.
fn is_training() -> bool {
    std::env::args().any(|word| word == "train")
}

/// Who is asked, and the ceiling beside them.
fn whom() -> (Vec<Server>, Option<Server>) {
    let other = std::env::var_os("CDB_OTHER").map(|path| Server::other(path.as_ref()));
    if is_training() {
        return (vec![other.expect("the build to run: set CDB_OTHER")], None);
    }
    let servers = [Server::etcd(), Server::ours()].into_iter().chain(other).collect();
    (servers, Some(Server::ceiling()))
}

/// What answers at once has no range to show.
fn ceiling_of(kind: Kind, ceiling: Option<&Server>) -> Option<&Server> {
    ceiling.filter(|_| kind != Kind::Range)
}

async fn compare(seconds: u64, rounds: u64, keys: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let before = Floor::measure(scratch.path()).await;
    let (servers, ceiling) = whom();
    for server in &servers {
        server.serves().await;
        asks::fill(server).await;
    }
    let mut report = Report::begin();
    for _ in 0..rounds {
        for kind in [Kind::Put, Kind::Get, Kind::Range] {
            for clients in CLIENTS.into_iter().filter(|count| is_wanted(kind.name(), *count)) {
                let answers = ceiling_of(kind, ceiling.as_ref());
                for server in servers.iter().chain(answers) {
                    let figures = asks::measure(server, kind, clients, seconds).await;
                    report.note(server.name, kind.name(), clients, figures);
                }
            }
        }
        for server in servers.iter().filter(|_| is_wanted("event", WATCHERS)) {
            let figures = fanout::measure(server, WATCHERS, seconds).await;
            report.note(server.name, "event", WATCHERS, figures);
        }
    }
    report.medians();
    for server in servers.iter().filter(|server| is_wanted("volume", server.addresses.len())) {
        let empty = server.memory();
        let took = volume::load(server, keys).await;
        let (snapshot, bytes) = volume::snapshot(server).await;
        println!(
            "{:>5} {keys} keys loaded in {took:.0} s; anonymous memory of three {empty:.0} MB \
             before, {:.0} MB after; snapshot of {bytes:.0} MB in {snapshot:.1} s",
            server.name,
            server.memory()
        );
    }
    let after = Floor::measure(scratch.path()).await;
    let micros = |floor: Option<Floor>| floor.map_or(0, |floor| floor.median_us);
    println!("fdatasync floor {} µs before, {} µs after", micros(before), micros(after));
}
