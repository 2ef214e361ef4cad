//! `cdb cluster init`: the birth of a cluster, in the first node's directory.
//!
//! Needs no network and no running node: it draws the ids, makes the
//! authority, the node's and the operator's certificates and the key that
//! opens sealed secrets. What the catalog must learn of it waits in the
//! directory as [`StateFile::Bootstrap`]; the node's first start proposes it.
//! An empty directory never becomes a cluster in any other way.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use cluster::{
    catalog::record::ClusterRecord,
    formats,
    ids::{ClusterId, FIRST_TENANT, NodeId},
    ports::{clock::Clock, entropy::Entropy},
};
use transport::identity::{Authority, ClusterKey};

use super::{
    operator::{OPERATOR, profile_of},
    profile::PROFILE_FILE,
};
use crate::{
    config::NodeConfig,
    data_dir::{DataDir, NodeIdentity, NodeSecrets, StateFile},
    devices::{clock::SystemClock, entropy::SystemEntropy},
};

/// Longest name of a cluster; it stands in every status line.
const NAME_CHARS_MAX: usize = 64;
/// Feature level of a new cluster: the kinds of entries of this release.
const FEATURE_LEVEL: u16 = 1;

/// What `cdb cluster init` takes.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The first node's configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// The cluster's name, for people
    #[arg(long, default_value = "main", value_parser = parse_name)]
    pub name: String,
    /// Where to write the operator's profile [default: client.yaml beside FILE]
    #[arg(long, value_name = "FILE")]
    pub write_profile: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if text.is_empty() || text.len() > NAME_CHARS_MAX || !plain {
        return Err(format!("a name has 1 to {NAME_CHARS_MAX} letters, digits and - . _"));
    }
    Ok(text.to_owned())
}

/// Runs `cdb cluster init`.
///
/// # Errors
/// If the configuration is wrong, or the directory is not empty.
pub fn run(args: &InitArgs) -> anyhow::Result<()> {
    let config = NodeConfig::load(&args.config)?;
    let beside = || args.config.with_file_name(PROFILE_FILE);
    let profile = args.write_profile.clone().unwrap_or_else(beside);
    anyhow::ensure!(
        !profile.exists(),
        "{} exists and may be the key to another cluster; name another file with --write-profile",
        profile.display()
    );
    let identity = create_cluster(&config, &args.name, Some(&profile))?;
    let file = args.config.display();
    println!("cluster {} is born; its first node is {}", args.name, identity.node);
    println!("  profile of the operator   {} (a private key: keep it)", profile.display());
    println!("next:");
    println!("  cdb start -c {file}");
    println!("  cdb --profile {} status --wait healthy", profile.display());
    Ok(())
}

/// Makes a cluster in the empty data directory of `config` and writes its
/// operator's profile, if somebody shall reach it from outside.
///
/// # Errors
/// If the directory is in use or not empty, or cannot be written.
pub fn create_cluster(
    config: &NodeConfig,
    name: &str,
    profile: Option<&Path>,
) -> anyhow::Result<NodeIdentity> {
    let (entropy, clock) = (SystemEntropy::new(), SystemClock::new());
    let mut dir = DataDir::open(&config.data_dir)?;
    dir.expect_fresh()?;
    let identity =
        NodeIdentity { cluster: ClusterId(entropy.next_u128()), node: NodeId(entropy.next_u128()) };
    let now = clock.wall();
    let authority = Authority::create(identity.cluster, &entropy, now)?;
    let node = authority.issue_node(identity.node, &entropy, now)?;
    let operator = authority.issue_client(OPERATOR, FIRST_TENANT, &entropy, now)?;
    let cluster_key = ClusterKey::generate(&entropy);
    let record = ClusterRecord {
        cluster: identity.cluster,
        name: name.to_owned(),
        authority: authority.certificate().to_vec(),
        authority_key_sealed: authority.seal(&cluster_key, &entropy),
        feature_level: FEATURE_LEVEL,
    };
    // The profile comes first: without it a cluster that stands is out of reach.
    if let Some(profile) = profile {
        profile_of(name, vec![config.advertise.to_string()], &operator)?
            .save(profile)
            .with_context(|| format!("cannot write the profile {}", profile.display()))?;
    }
    dir.create(
        identity,
        &NodeSecrets {
            certificates_pem: node.certificates_pem(),
            key_pem: node.key_pem(),
            cluster_key: cluster_key.0,
        },
        Some(&formats::to_bytes(&record)),
    )?;
    Ok(identity)
}

/// Reads what the first start must propose; `None` once the cluster stands.
///
/// # Errors
/// If the file is damaged.
pub fn waiting_cluster(dir: &DataDir) -> anyhow::Result<Option<ClusterRecord>> {
    let Some(bytes) = dir.load(StateFile::Bootstrap)? else { return Ok(None) };
    let record = formats::from_bytes(&bytes).context("the bootstrap record is damaged")?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use transport::identity::Credentials;

    use super::*;
    use crate::cli::profile::Profile;

    #[test]
    fn a_cluster_is_born_with_keys_that_fit_and_a_record_that_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROFILE_FILE);
        let identity =
            create_cluster(&NodeConfig::below(folder.path()), "main", Some(&path)).unwrap();

        let dir = DataDir::open(&folder.path().join("n1")).unwrap();
        let secrets = dir.secrets().unwrap();
        let node = Credentials::from_pem(&secrets.certificates_pem, &secrets.key_pem).unwrap();
        assert_eq!(node.names().cluster, identity.cluster);
        let record = waiting_cluster(&dir).unwrap().unwrap();
        let key = ClusterKey(secrets.cluster_key);
        Authority::open(&record.authority, &record.authority_key_sealed, &key).unwrap();

        let profile = Profile::load(&path).unwrap();
        assert_eq!(profile.endpoints, ["127.0.0.1:7400"]);
        let certificates = format!("{}{}", profile.certificate, profile.ca);
        let operator = Credentials::from_pem(&certificates, &profile.key).unwrap();
        assert_eq!(operator.authority(), record.authority);
        assert_eq!(operator.names().cluster, identity.cluster);
    }

    #[test]
    fn a_second_birth_in_one_directory_is_refused_and_leaves_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROFILE_FILE);
        create_cluster(&NodeConfig::below(folder.path()), "main", Some(&path)).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error =
            create_cluster(&NodeConfig::below(folder.path()), "main", Some(&path)).unwrap_err();
        assert!(error.to_string().contains("belongs to node"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
