//! A profile: how a client finds a cluster and proves who it is (`client.yaml`).
//!
//! ```yaml
//! cluster: 0123…                 # cluster id, 32 hexadecimal digits
//! name: dev                      # its name, for people
//! endpoints: ["127.0.0.1:7401"]  # any of its nodes
//! ca: |                          # authority, client certificate and key: PEM
//!   -----BEGIN CERTIFICATE-----
//! certificate: | …
//! key: | …
//! dev:                           # only for clusters of `cdb dev`
//!   data_dir: ./cdb-data
//!   nodes: [{ number: 1, config: …, pid_file: …, log: … }]
//! ```
//!
//! It holds a private key, so it is written for its owner alone (0600), and a
//! profile others may read is refused.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use transport::identity::{Credentials, IdentityError};

/// Largest profile read: ten nodes and three certificates take 20 KiB.
const PROFILE_BYTES_MAX: u64 = 1 << 20;
/// Name of the file a cluster writes beside its data.
pub const PROFILE_FILE: &str = "client.yaml";

/// What a client needs to know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: String,
    /// The cluster's name, for people.
    #[serde(default)]
    pub name: String,
    /// Nodes to begin with (`host:port`).
    pub endpoints: Vec<String>,
    /// Certificate of the authority (PEM).
    pub ca: String,
    /// The client's certificate (PEM).
    pub certificate: String,
    /// The client's private key (PEM).
    pub key: String,
    /// For clusters of `cdb dev` on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<DevCluster>,
}

/// A development cluster on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevCluster {
    /// Where all its nodes lie.
    pub data_dir: PathBuf,
    /// Its nodes.
    pub nodes: Vec<DevNode>,
}

/// One node of a development cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevNode {
    /// 2 for `n2`.
    pub number: u64,
    /// Its `node.yaml`, for `cdb start -c`.
    pub config: PathBuf,
    /// Where its running process leaves its id.
    pub pid_file: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("cluster", &self.cluster)
            .field("name", &self.name)
            .field("endpoints", &self.endpoints)
            .field("dev", &self.dev)
            .finish_non_exhaustive()
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// None was named and none is where one would lie.
    #[error("no profile found (looked at {0})")]
    Missing(String),
    /// The file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a profile.
    #[error("{path} is not a profile: {cause}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: String,
    },
    /// Others may read the private key.
    #[error("{path} can be read by others and holds a private key: run `chmod 600 {path}`", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

impl Profile {
    /// Reads and checks a profile. `path` may be a folder that holds one.
    ///
    /// # Errors
    /// If it is missing, readable by others or not a profile.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let path = if path.is_dir() { path.join(PROFILE_FILE) } else { path.to_path_buf() };
        let fault = |source| ProfileError::Io { path: path.clone(), source };
        let malformed = |cause: String| ProfileError::Malformed { path: path.clone(), cause };
        let meta = fs::metadata(&path).map_err(fault)?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(ProfileError::Exposed { path: path.clone() });
        }
        if meta.len() > PROFILE_BYTES_MAX {
            return Err(malformed(format!("larger than {PROFILE_BYTES_MAX} bytes")));
        }
        let text = fs::read_to_string(&path).map_err(fault)?;
        let profile: Self =
            serde_saphyr::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if profile.endpoints.is_empty() {
            return Err(malformed("`endpoints` is empty: name at least one node".into()));
        }
        if cluster::ids::ClusterId::from_hex(&profile.cluster).is_none() {
            return Err(malformed("`cluster` is not 32 hexadecimal digits".into()));
        }
        Ok(profile)
    }

    /// What the client proves itself with.
    ///
    /// # Errors
    /// If certificate, key or authority are not what they were.
    pub fn credentials(&self) -> Result<Credentials, IdentityError> {
        let chain = [self.certificate.trim_end(), "\n", self.ca.as_str()].concat();
        Credentials::from_pem(&chain, &self.key)
    }

    /// Writes the profile for its owner alone, whole or not at all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn save(&self, path: &Path) -> Result<(), ProfileError> {
        let fault = |source| ProfileError::Io { path: path.to_path_buf(), source };
        let malformed = |cause: String| ProfileError::Malformed { path: path.to_path_buf(), cause };
        let text = serde_saphyr::to_string(self).map_err(|error| malformed(error.to_string()))?;
        let part = path.with_extension("yaml.part");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fault)?;
        }
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(fault)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let replaced = written.and_then(|()| keep_owner(path, &file));
        replaced.and_then(|()| fs::rename(&part, path)).map_err(|error| {
            // It holds a private key.
            drop(fs::remove_file(&part));
            fault(error)
        })
    }
}

/// Whoever had the older file has the new one too, though root writes it.
fn keep_owner(path: &Path, file: &fs::File) -> io::Result<()> {
    let Ok(old) = fs::metadata(path) else { return Ok(()) };
    if old.uid() == file.metadata()?.uid() {
        return Ok(());
    }
    fchown(file, Some(old.uid()), Some(old.gid()))
}

/// Where profiles of this user lie: `$XDG_CONFIG_HOME/cdb` or `~/.config/cdb`.
pub fn profile_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")))
        .map(|folder| folder.join("cdb"))
}

/// Finds a profile: what was named (a path, or a name in `folder`), else the
/// default one in `folder`.
///
/// # Errors
/// If there is none, or it cannot be used.
pub fn find(named: Option<&str>, folder: Option<&Path>) -> Result<Profile, ProfileError> {
    let mut candidates = Vec::new();
    match named {
        Some(name) => {
            candidates.push(PathBuf::from(name));
            if !name.contains('/') {
                candidates.extend(folder.map(|folder| folder.join(format!("{name}.yaml"))));
            }
        }
        None => candidates.extend(folder.map(|folder| folder.join(PROFILE_FILE))),
    }
    if let Some(path) = candidates.iter().find(|path| path.exists()) {
        return Profile::load(path);
    }
    let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(ProfileError::Missing(looked.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            cluster: "0123456789abcdef0123456789abcdef".into(),
            name: "dev".into(),
            endpoints: vec!["127.0.0.1:7401".into()],
            ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            certificate: "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n".into(),
            key: "-----BEGIN PRIVATE KEY-----\nCCCC\n-----END PRIVATE KEY-----\n".into(),
            dev: Some(DevCluster {
                data_dir: "/data".into(),
                nodes: vec![DevNode {
                    number: 1,
                    config: "/data/n1/node.yaml".into(),
                    pid_file: "/data/n1/pid".into(),
                    log: "/data/logs/n1.log".into(),
                }],
            }),
        }
    }

    #[test]
    fn a_profile_reads_back_and_belongs_to_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/client.yaml");
        profile().save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Profile::load(&path).unwrap(), profile());
        assert_eq!(find(path.to_str(), None).unwrap(), profile());
        assert_eq!(find(None, path.parent()).unwrap(), profile());
        profile().save(&folder.path().join("staging.yaml")).unwrap();
        assert_eq!(find(Some("staging"), Some(folder.path())).unwrap(), profile());
    }

    #[test]
    fn a_profile_that_root_writes_anew_stays_its_owners() {
        const OWNER: u32 = 65_534;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.yaml");
        profile().save(&path).unwrap();
        if std::os::unix::fs::chown(&path, Some(OWNER), Some(OWNER)).is_err() {
            eprintln!("skipped: giving a file away needs root");
            return;
        }
        profile().save(&path).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (OWNER, OWNER, 0o600));
    }

    #[test]
    fn a_key_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.yaml");
        profile().save(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Profile::load(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_misspelt_field_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.yaml");
        profile().save(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("endpoints:", "endpoint:");
        fs::write(&path, text).unwrap();
        let error = Profile::load(&path).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
    }

    #[test]
    fn a_missing_profile_says_where_it_was_sought() {
        let error = find(Some("nowhere"), Some(Path::new("/none"))).unwrap_err();
        assert!(error.to_string().contains("/none/nowhere.yaml"), "{error}");
    }

    #[test]
    fn the_private_key_is_not_in_the_debug_text() {
        assert!(!format!("{:?}", profile()).contains("CCCC"));
    }
}
