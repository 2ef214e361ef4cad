//! What tests compare with, and is not on every machine: who misses it says so and passes.
//!
//! `CDB_NEED=etcd,etcdctl` names what has to be here: who misses that fails. CI names all
//! that it was able to get, so that none of it is skipped unseen.

/// What may be named, and how it comes.
const KNOWN: [(&str, &str); 6] = [
    ("etcd", "apt-get install etcd-server"),
    ("etcdctl", "apt-get install etcd-client"),
    ("curl", "apt-get install curl"),
    ("rust", "let `cargo fetch` reach crates.io: see node/tests/clients/README.md"),
    ("python", "install etcd3 of PyPI: see node/tests/clients/README.md"),
    ("node", "install etcd3 of npm: see node/tests/clients/README.md"),
];

/// Says that something is not here; fails if it has to be.
#[track_caller]
pub(crate) fn missing(name: &str) {
    let (_, how) = KNOWN.iter().find(|(known, _)| *known == name).expect("a known name");
    let needed = std::env::var("CDB_NEED").unwrap_or_default();
    assert!(!is_needed(&needed, name), "CDB_NEED names {name}, which is not here: {how}");
    eprintln!("SKIPPED: {name} is not here ({how})");
}

/// Whether a list names something; a name that nobody knows would never be missed.
#[track_caller]
pub(crate) fn is_needed(list: &str, name: &str) -> bool {
    let mut needed = list.split(',').filter(|needed| !needed.is_empty());
    let is_known = |needed| KNOWN.iter().any(|(known, _)| *known == needed);
    let strange = needed.clone().find(|needed| !is_known(*needed));
    assert_eq!(strange, None, "CDB_NEED names, with commas between, any of {KNOWN:?}");
    needed.any(|needed| needed == name)
}
