//! `/metrics`: which of etcd's names are on our page, as a table of the docs; and the command
//! of etcd's that reads them.

use std::{collections::BTreeSet, net::SocketAddr, process::Command};

use crate::{
    differences::{RELEASE, compare_page},
    peers::{Ours, Peer},
    real_etcd::RealEtcd,
    web::ask,
};

/// What only programs in Go have, and what tells of the page itself.
const OF_GO: [&str; 4] = ["go_", "promhttp_", "etcd_grpc_proxy_", "etcd_debugging_store_"];

/// Names of the families on a page.
fn names(address: SocketAddr) -> BTreeSet<String> {
    let (status, page) = ask(address, "GET", "/metrics", "", "").whole();
    assert_eq!(status, 200);
    let helps = page.lines().filter_map(|line| line.strip_prefix("# HELP "));
    helps.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn cell<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Compares both pages with the table.
pub(crate) fn compare(theirs: &RealEtcd, ours: &Ours, version: &str) {
    // Some names come with the first request.
    etcdctl(theirs, &["get", "nothing"]);
    let [theirs, ours] = [theirs.addresses()[0], ours.addresses()[0]].map(names);
    let of_go = |name: &&String| OF_GO.iter().any(|of| name.starts_with(of));
    let absent = theirs.difference(&ours).filter(|name| !of_go(name));
    let table = format!(
        "| | names |\n|---|---|\n| at both | {} |\n| at etcd only | {}, and those of Go, of its proxy \
         and of its version 2 |\n| here only: etcd shows them once it has peers | {} |\n",
        cell(theirs.intersection(&ours)),
        cell(absent),
        cell(ours.difference(&theirs)),
    );
    if version.starts_with(RELEASE) {
        compare_page("metrics", &table);
    } else {
        eprintln!("the table of the docs is of etcd {RELEASE}x, this is {version}: not compared");
    }
}

/// etcd's own measurement of how memory grows with data, which reads the page.
pub(crate) fn check_datascale(ours: &Ours) {
    let said = etcdctl(ours, &["check", "datascale", "--load=s"]);
    assert!(said.contains("PASS: Approximate"), "{said}");
}

fn etcdctl(peer: &impl Peer, command: &[&str]) -> String {
    let endpoints = ["--endpoints", &peer.address()];
    let mut asked = Command::new("etcdctl");
    let done = asked.args(endpoints).args(command).env("ETCDCTL_API", "3").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}
