//! The same requests to a real etcd and to us, answer by answer.
//!
//! Who asks: `etcdctl`, a client generated from etcd's protocol buffers, one that
//! speaks JSON over HTTP, and libraries that others wrote (`node/tests/clients`). What names members and clusters is taken out of the answers; all
//! else must be equal, or be a row of the table in `node/docs/etcd.md` with its
//! reason. The table is made from the answers: `CDB_WRITE_DOCS=1` writes it.
//!
//! Needs Debian's `etcd-server` and `etcd-client`; without them it says so and
//! compares nothing. A library that is not here is skipped, and named.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

#[path = "etcd/differences.rs"]
mod differences;
#[path = "etcd/json.rs"]
mod json;
#[path = "etcd/keys.rs"]
mod keys;
#[path = "etcd/leases.rs"]
mod leases;
#[path = "etcd/libraries.rs"]
mod libraries;
#[path = "etcd/members.rs"]
mod members;
#[path = "etcd/peers.rs"]
mod peers;
#[path = "etcd/play.rs"]
mod play;
#[path = "common/real_etcd.rs"]
mod real_etcd;
#[path = "etcd/watches.rs"]
mod watches;
#[path = "common/web.rs"]
mod web;

use std::process::Command;

use peers::{Ours, Peer, has_etcd};
use play::Play;
use real_etcd::RealEtcd;

fn skip() -> bool {
    if has_etcd() {
        return false;
    }
    eprintln!("SKIPPED: no etcd or etcdctl here (apt-get install etcd-server etcd-client)");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_client_hears_the_same_from_etcd_and_from_us() {
    if skip() {
        return;
    }
    let (theirs, ours) = (RealEtcd::start(1), Ours::start());
    let theirs = whole_play(&theirs).await;
    let ours = whole_play(&ours).await;
    assert_eq!(ours.version, "3.5.33", "new enough that clients request progress");
    differences::check("generated client", &theirs.version, &theirs.answers, &ours.answers);
}

#[test]
fn whoever_speaks_json_hears_the_same_from_etcd_and_from_us() {
    if skip() {
        return;
    }
    let (theirs, ours) = (RealEtcd::start(1), Ours::start());
    let [theirs, ours] = [theirs.addresses[0], ours.addresses[0]].map(json::play);
    differences::check("JSON over HTTP", &etcd_version(), &theirs, &ours);
}

#[test]
fn libraries_of_others_hear_the_same_from_etcd_and_from_us() {
    if skip() {
        return;
    }
    for library in libraries::all() {
        let library = match library {
            Ok(library) => library,
            Err(why) => {
                eprintln!("SKIPPED: {why}");
                continue;
            }
        };
        let (theirs, ours) = (RealEtcd::start(1), Ours::start());
        let version = etcd_version();
        differences::check(library.name, &version, &library.ask(&theirs), &library.ask(&ours));
    }
}

fn etcd_version() -> String {
    let output = Command::new("etcd").arg("--version").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

async fn whole_play(peer: &impl Peer) -> Play {
    let mut play = Play::begin(&peer.address()).await;
    keys::play(&mut play).await;
    keys::transactions(&mut play).await;
    leases::play(&mut play).await;
    watches::play(&mut play).await;
    keys::compaction(&mut play).await;
    members::play(&mut play).await;
    play
}

/// Commands of `etcdctl`, on a fresh store.
const COMMANDS: [&str; 27] = [
    "get nothing",
    "put a 1",
    "put a 2 --prev-kv",
    "put b 3",
    "put c 4",
    "get a",
    "get a --rev=2",
    "get a --rev=99",
    "get --prefix= a -w fields",
    "get a c",
    "get --from-key b --order=DESCEND",
    "get a z --limit=2 -w json",
    "get a z --keys-only --sort-by=MODIFY",
    "get a z --print-value-only --consistency=s",
    "del nothing",
    "del a --prev-kv",
    "del --prefix b",
    "put \"\" empty",
    "put d 5 --lease=7b",
    "lease grant 0",
    "lease revoke 7b",
    "lease timetolive 7b",
    "watch c --rev=2",
    "compaction 5",
    "compaction 5",
    "get c --rev=4",
    "alarm list",
];

#[test]
fn etcdctl_prints_the_same_of_etcd_and_of_us() {
    if skip() {
        return;
    }
    let (theirs, ours) = (RealEtcd::start(1), Ours::start());
    for command in COMMANDS {
        let (theirs, ours) = (etcdctl(&theirs, command), etcdctl(&ours, command));
        assert_eq!(theirs, ours, "etcdctl {command}");
    }
}

/// Runs a command; its output without what names members, leases and clusters.
fn etcdctl(peer: &impl Peer, command: &str) -> String {
    let words: Vec<&str> =
        command.split(' ').map(|word| if word == "\"\"" { "" } else { word }).collect();
    let timeout = if words.contains(&"watch") { "2" } else { "20" };
    let output = Command::new("timeout")
        .args([timeout, "etcdctl", "--endpoints"])
        .arg(peer.address())
        .args(words)
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    // Its log lines carry times and ports.
    let error = complained.lines().filter(|line| line.starts_with("Error")).collect::<String>();
    let granted = printed.starts_with("lease") && printed.contains("granted");
    let printed = if granted { printed.split(' ').skip(2).collect() } else { printed };
    play::anonymous(&format!("{}{printed}{error}", output.status.code().unwrap_or(-1)))
}
