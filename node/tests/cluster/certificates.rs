//! Certificates that ended while nobody was there to renew them.

use std::{fs, path::Path};

use cluster::{ports::clock::Clock, units::WallTime};
use clusterdb::{
    cli::profile::Profile,
    data_dir::Peek,
    devices::{clock::SystemClock, entropy::SystemEntropy},
};
use transport::identity::{Authority, ClusterKey, Credentials};

use super::common::{Cluster, LONG, run, until};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The authority, as a node's directory tells it.
fn authority(root: &Path) -> Option<Authority> {
    let peek = Peek::at(root).unwrap();
    let record = peek.catalog.cluster()?;
    let key = ClusterKey(peek.secrets.cluster_key);
    Some(Authority::open(&record.authority, &record.authority_key_sealed, &key).unwrap())
}

/// What the node of a directory proves itself with.
fn written(root: &Path) -> Credentials {
    let secrets = Peek::at(root).unwrap().secrets;
    Credentials::from_pem(&secrets.certificates_pem, &secrets.key_pem).unwrap()
}

/// Makes the certificate of a profile as many days old, by a node's directory.
pub(crate) fn age(path: &Path, root: &Path, days: u64) {
    let mut profile = Profile::load(path).unwrap();
    let begins = WallTime(SystemClock::new().wall().0 - days * DAY_MS);
    let (authority, old) = (authority(root).unwrap(), profile.credentials().unwrap());
    let aged = authority.renew(&old, &SystemEntropy::new(), begins).unwrap();
    profile.certificate = aged.certificates_pem();
    let second = profile.certificate.rfind("-----BEGIN").unwrap();
    profile.certificate.truncate(second);
    profile.save(path).unwrap();
}

/// When the certificate of a profile ends, in days.
pub(crate) fn days_left(path: &Path) -> u64 {
    let ends = Profile::load(path).unwrap().credentials().unwrap().ends();
    ends.0.saturating_sub(SystemClock::new().wall().0).div_ceil(DAY_MS)
}

#[test]
fn a_cluster_that_was_off_for_over_a_year_comes_back_and_its_operator_too() {
    let mut cluster = Cluster::start(3);
    cluster.volume("data", 2);
    cluster.put("data/kept", b"kept");
    let now = SystemClock::new().wall();
    let long_ago = WallTime(now.0 - 400 * DAY_MS);
    let entropy = SystemEntropy::new();
    let mut roots = Vec::new();
    for node in &mut cluster.nodes {
        let root = node.config.with_file_name("data");
        let authority = until("the catalog on disk", LONG, || authority(&root));
        node.kill();
        let ended = authority.renew(&written(&root), &entropy, long_ago).unwrap();
        fs::write(root.join("node.pem"), ended.certificates_pem()).unwrap();
        roots.push(root);
    }
    age(&cluster.profile, &roots[0], 400);

    for node in &mut cluster.nodes {
        node.start(&[]);
    }
    for (node, root) in cluster.nodes.iter_mut().zip(&roots) {
        node.wait_ready();
        assert!(written(root).ends().0 > now.0 + 364 * DAY_MS);
    }
    let hints = ["has ended", "cdb cluster profile -c"];
    cluster.cdb(&["get", "data/kept"]).fails(1, &hints);
    let (config, path) = (cluster.nodes[1].config.clone(), cluster.profile.clone());
    let words = ["cluster", "profile", "-c", &config.display().to_string()];
    run(&[&words[..], &["--write-profile", &path.display().to_string()]].concat()).ok();
    cluster.holds("data/kept", b"kept");
    cluster.wait_healthy();
    age(&cluster.profile, &roots[0], 300);
    let told = cluster.cdb(&["get", "data/kept"]).ok().stderr;
    assert!(told.contains("certificate ends on") && told.contains(hints[1]), "{told}");
}
