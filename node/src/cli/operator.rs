//! The operator's profile: born with the cluster, and made anew by whoever may read the
//! data directory of one of its nodes (`cdb cluster profile`).
//!
//! A node's directory holds what opens the cluster's authority. So a profile that was lost,
//! or whose certificate has ended, is no lost cluster, and no node needs to run for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use cluster::{
    catalog::{record::ClusterRecord, view::CatalogView},
    formats,
    ids::FIRST_TENANT,
    ports::clock::Clock,
};
use transport::identity::{Authority, ClusterKey, Credentials};

use super::profile::{PROFILE_FILE, Profile};
use crate::{
    config::NodeConfig,
    data_dir::Peek,
    devices::{clock::SystemClock, entropy::SystemEntropy},
};

/// The principal whose credential a cluster hands out.
pub(super) const OPERATOR: &str = "admin";

/// What `cdb cluster profile` takes.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// The configuration of a node on this machine
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Where to write the profile [default: client.yaml beside FILE]
    #[arg(long, value_name = "FILE")]
    write_profile: Option<PathBuf>,
}

/// Runs `cdb cluster profile`.
///
/// # Errors
/// If the node's directory cannot be read, or the file is the profile of another cluster.
pub fn run(args: &ProfileArgs) -> anyhow::Result<()> {
    let config = NodeConfig::load(&args.config)?;
    let beside = || args.config.with_file_name(PROFILE_FILE);
    let mut path = args.write_profile.clone().unwrap_or_else(beside);
    if path.is_dir() {
        path.push(PROFILE_FILE);
    }
    let profile = write(&config, &path)?;
    println!("profile of cluster {}   {} (a private key: keep it)", profile.name, path.display());
    println!("its certificate ends on {}", end_of(&profile.credentials()?));
    Ok(())
}

/// Writes a new profile to `path`; of an older one there everything else stays.
///
/// # Errors
/// As [`run`].
pub(super) fn write(config: &NodeConfig, path: &Path) -> anyhow::Result<Profile> {
    let root = &config.data_dir;
    let peek = Peek::at(root)?;
    let cluster = record_of(&peek)?.with_context(|| {
        format!("the node of {} has not heard of its cluster yet: start it once", root.display())
    })?;
    let key = ClusterKey(peek.secrets.cluster_key);
    let authority = Authority::open(&cluster.authority, &cluster.authority_key_sealed, &key)?;
    let now = SystemClock::new().wall();
    let operator = authority.issue_client(OPERATOR, FIRST_TENANT, &SystemEntropy::new(), now)?;
    let mut profile = profile_of(&cluster.name, endpoints(&peek.catalog, config), &operator)?;
    if path.exists() {
        let old = Profile::load(path)?;
        ensure!(
            old.cluster == profile.cluster,
            "{} is the key to another cluster; name another file with --write-profile",
            path.display()
        );
        (profile.endpoints, profile.dev) = (old.endpoints, old.dev);
    }
    let fault = || format!("cannot write the profile {}", path.display());
    profile.save(path).with_context(fault)?;
    Ok(profile)
}

fn record_of(peek: &Peek) -> anyhow::Result<Option<ClusterRecord>> {
    if let Some(record) = peek.catalog.cluster() {
        return Ok(Some(record.clone()));
    }
    let waiting = peek.bootstrap.as_deref().map(formats::from_bytes).transpose();
    waiting.context("the bootstrap record is damaged")
}

/// Where the cluster is reached, as far as the node knows: itself first.
fn endpoints(catalog: &CatalogView, config: &NodeConfig) -> Vec<String> {
    let mut endpoints = vec![config.advertise.to_string()];
    for address in catalog.active_nodes().flat_map(|node| &node.addresses) {
        if !endpoints.contains(address) {
            endpoints.push(address.clone());
        }
    }
    endpoints
}

/// The profile of whom the certificate names.
///
/// # Errors
/// If the certificate comes without its authority's.
pub(super) fn profile_of(
    name: &str,
    endpoints: Vec<String>,
    operator: &Credentials,
) -> anyhow::Result<Profile> {
    let pem = operator.certificates_pem();
    let Some(at) = pem.rfind("-----BEGIN").filter(|at| *at > 0) else { bail!("one certificate") };
    let (certificate, authority) = pem.split_at(at);
    Ok(Profile {
        cluster: operator.names().cluster.to_hex(),
        name: name.to_owned(),
        endpoints,
        ca: authority.to_owned(),
        certificate: certificate.to_owned(),
        key: operator.key_pem(),
        dev: None,
    })
}

/// The day on which a certificate ends, in UTC.
pub(super) fn end_of(credentials: &Credentials) -> String {
    let ends_ms = i64::try_from(credentials.ends().0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ends_ms)
        .map_or_else(|_| "an unknown day".to_owned(), |end| end.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::create_cluster;

    #[test]
    fn a_profile_is_made_anew_and_keeps_what_its_user_wrote_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (config, path) = (NodeConfig::below(folder.path()), folder.path().join(PROFILE_FILE));
        create_cluster(&config, "main", Some(&path)).unwrap();
        let mut old = Profile::load(&path).unwrap();
        old.endpoints = vec!["cdb.example.org:7400".to_owned()];
        old.save(&path).unwrap();
        write(&config, &path).unwrap();
        let new = Profile::load(&path).unwrap();
        assert_eq!((&new.endpoints, &new.ca), (&old.endpoints, &old.ca));
        assert_ne!(new.key, old.key);
        let credentials = new.credentials().unwrap();
        assert_eq!(credentials.names(), old.credentials().unwrap().names());

        std::fs::remove_file(&path).unwrap();
        assert_eq!(write(&config, &path).unwrap().endpoints, ["127.0.0.1:7400"]);
        assert_eq!(Profile::load(&path).unwrap().name, "main");
    }

    #[test]
    fn the_profile_of_another_cluster_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, path) = (NodeConfig::below(folder.path()), folder.path().join(PROFILE_FILE));
        create_cluster(&ours, "main", None).unwrap();
        let other = NodeConfig::below(&folder.path().join("other"));
        create_cluster(&other, "main", Some(&path)).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = write(&ours, &path).unwrap_err().to_string();
        assert!(error.contains("another cluster") && error.contains("--write-profile"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
