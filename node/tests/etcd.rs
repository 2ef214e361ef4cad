//! The same requests to a real etcd and to us, answer by answer.
//!
//! Who asks: `etcdctl`, a client generated from etcd's protocol buffers, one that
//! speaks JSON over HTTP, and libraries that others wrote (`node/tests/clients`). What names members and clusters is taken out of the answers; all
//! else must be equal, or be a row of the table in `node/docs/etcd.md` with its
//! reason. The table is made from the answers: `CDB_WRITE_DOCS=1` writes it.
//!
//! Needs Debian's `etcd-server` and `etcd-client`; without them it says so and
//! compares nothing. A library that is not here is skipped, and named. What `CDB_NEED`
//! names has to be here (`common/need.rs`).
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

#[path = "etcd/commands.rs"]
mod commands;
mod common;
#[path = "etcd/differences.rs"]
mod differences;
#[path = "common/doors.rs"]
mod doors;
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
#[path = "etcd/metrics.rs"]
mod metrics;
#[path = "common/need.rs"]
mod need;
#[path = "etcd/peers.rs"]
mod peers;
#[path = "etcd/permissions.rs"]
mod permissions;
#[path = "etcd/play.rs"]
mod play;
#[path = "common/real_etcd.rs"]
mod real_etcd;
#[path = "etcd/survival.rs"]
mod survival;
#[path = "etcd/watches.rs"]
mod watches;
#[path = "common/web.rs"]
mod web;

use std::process::Command;

use doors::Doors;
use need::missing;
use peers::{Ours, Peer};
use play::Play;
use real_etcd::{RealEtcd, has};

/// Whether there is nothing to compare with.
fn skip() -> bool {
    let (etcd, etcdctl) = (RealEtcd::is_installed(), has("etcdctl", "version"));
    if !etcd {
        missing("etcd");
    }
    if !etcdctl {
        missing("etcdctl");
    }
    !(etcd && etcdctl)
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

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_right_hears_the_same_from_etcd_and_from_us() {
    if skip() {
        return;
    }
    let (theirs, ours) = (RealEtcd::start(1), Ours::start());
    let theirs = permissions::play(&theirs.address()).await;
    let ours = permissions::play(&ours.address()).await;
    differences::check("permissions", &etcd_version(), &theirs, &ours);
}

#[test]
fn libraries_of_others_hear_the_same_from_etcd_and_from_us() {
    if skip() {
        return;
    }
    for library in libraries::all() {
        let library = match library {
            Ok(library) => library,
            Err(name) => {
                missing(name);
                continue;
            }
        };
        let (theirs, ours) = (RealEtcd::start(1), Ours::start());
        let version = etcd_version();
        differences::check(library.name, &version, &library.ask(&theirs), &library.ask(&ours));
    }
}

#[test]
fn libraries_of_others_go_on_though_each_member_dies_once() {
    for library in libraries::all() {
        match library {
            Ok(library) => survival::outlive(&library, &mut Doors::open("")),
            Err(name) => missing(name),
        }
    }
}

#[test]
fn dashboards_find_the_names_of_etcd() {
    if skip() {
        return;
    }
    let (theirs, ours) = (RealEtcd::start(1), Ours::start());
    metrics::check_datascale(&ours);
    metrics::compare(&theirs, &ours, &etcd_version());
}

fn etcd_version() -> String {
    let output = Command::new("etcd").arg("--version").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

async fn whole_play(peer: &impl Peer) -> Play {
    let mut play = Play::begin(&peer.address()).await;
    members::hash(&mut play, "hash of keys before any compaction").await;
    keys::play(&mut play).await;
    keys::transactions(&mut play).await;
    leases::play(&mut play).await;
    watches::play(&mut play).await;
    keys::compaction(&mut play).await;
    keys::large(&mut play).await;
    members::play(&mut play).await;
    play
}

#[test]
fn etcdctl_prints_the_same_of_etcd_and_of_us() {
    if skip() {
        return;
    }
    let (theirs, ours) = (RealEtcd::start(3), Ours::start());
    let (theirs, ours) = (commands::play(&theirs), commands::play(&ours));
    differences::check("etcdctl", &etcd_version(), &theirs, &ours);
}

#[test]
fn what_is_needed_is_not_skipped() {
    assert!(!need::is_needed("", "etcd"));
    assert!(!need::is_needed("etcdctl,node", "etcd"));
    assert!(need::is_needed("etcdctl,etcd", "etcd"));
    let mistaken = std::panic::catch_unwind(|| need::is_needed("etcd,pyhton", "etcd"));
    assert!(mistaken.is_err(), "a name that nobody knows would never be missed");
}
