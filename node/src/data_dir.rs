//! A node's data directory: whose it is, and what lies where.
//!
//! ```text
//! identity        cluster and node id; written last, so a directory with it is whole
//! incarnation     the last start: its number and its line; synced before it is shown
//! node.pem        the node's certificate and the authority's
//! node.key        the node's private key                            0600
//! cluster.key     opens the secrets sealed in the catalog           0600
//! catalog         last known voters, addresses and shard map
//! bootstrap       what the first node proposes until its cluster stands  0600
//! log/ stores/ quarantine/
//! spare           room for incarnation and node.pem on a disk that has none left
//! lock            held by the one process that uses the directory
//! ```
//!
//! Invariants: the ids are born with the directory and never change; nothing
//! is deleted when something is not understood; a file is replaced whole or
//! not at all (new file, sync, rename, sync of the directory); the directory
//! and its secrets belong to their owner alone.

mod files;
mod peek;

use std::{
    cmp::Ordering,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use cluster::{
    formats::{FrameKind, decode_frame, encode_frame},
    ids::{ClusterId, Incarnation, NodeId},
    membership::Boot,
    ports::entropy::Entropy,
};

pub use self::peek::Peek;
use crate::{
    config::EngineKind,
    devices::lock::{Lock, LockError},
};

/// Format of the directory and all that lies in it: its state files, log and stores.
/// It rises whenever one of them is written in another way, so that whoever reads it
/// says which release wrote it, and takes nothing for damaged.
pub const FORMAT_VERSION: u16 = 2;
/// Largest state file: a catalog cache of 4,096 replicas at under 1 KiB each.
pub const STATE_BYTES_MAX: usize = 16 << 20;
/// Names in a directory that do not make it somebody else's.
const HARMLESS: [&str; 2] = ["lost+found", "lock"];

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
}

/// What a node proves itself with. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeSecrets {
    /// Certificate and authority, PEM.
    pub certificates_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// Opens the secrets sealed in the catalog.
    pub cluster_key: [u8; 32],
}

impl fmt::Debug for NodeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSecrets").finish_non_exhaustive()
    }
}

/// A small state file whose content is another's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFile {
    /// Last known voters of the catalog, addresses and shard map.
    Catalog,
    /// What the first node proposes until its cluster stands. Secret.
    Bootstrap,
}

impl StateFile {
    fn name(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Bootstrap => "bootstrap",
        }
    }
}

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("{} is in use by process {}; stop it first, or use another data_dir", path.display(),
        pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, as far as it says.
        pid: Option<u32>,
    },
    /// It holds something, but no identity.
    #[error("{} holds `{entry}` but no identity: it is not a data directory, or it has lost its \
        identity; name an empty directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Something it holds.
        entry: String,
    },
    /// No node was ever born here.
    #[error("{} is empty; make the first node of a cluster with `cdb cluster init -c FILE`, or \
        join one with `cdb start -c FILE --join HOST:PORT --token T` (a token: `cdb cluster token`)",
        path.display())]
    Fresh {
        /// The directory.
        path: PathBuf,
    },
    /// A node was born here already.
    #[error("{} belongs to node {} of cluster {} already; start it with `cdb start -c FILE`, or \
        name an empty directory", path.display(), identity.node, identity.cluster)]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        identity: NodeIdentity,
    },
    /// It belongs to a node of another cluster.
    #[error("{} belongs to cluster {found}, not to {expected}; name this cluster's directory, or \
        an empty one", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: ClusterId,
        /// The one expected.
        expected: ClusterId,
    },
    /// It belongs to a node of another cluster than the one to be joined.
    #[error("{} belongs to cluster {found}, and the join token is of another cluster; name an \
        empty directory, or leave --join out to start this node in its own cluster", path.display())]
    OtherAuthority {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: ClusterId,
    },
    /// A newer release wrote it.
    #[error("{} has format {found}; this release knows formats up to {known}: start a newer \
        release", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest one known here.
        known: u16,
    },
    /// An older release wrote it.
    #[error("{} has format {found}; this release reads format {known} only: start the release \
        that wrote it", path.display())]
    OlderFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The one known here.
        known: u16,
    },
    /// A file is not what was written.
    #[error("{} is damaged ({cause}); restore the file, or remove this node from its cluster and \
        join again with an empty directory", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The node kept its data in memory and its process has ended.
    #[error("the node of {} kept its data in memory, and that is gone: join again with an empty \
        directory", path.display())]
    MemoryGone {
        /// The directory.
        path: PathBuf,
    },
}

/// A data directory, held by this process.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    identity: Option<NodeIdentity>,
    _lock: Lock,
}

impl DataDir {
    /// Takes the directory for this process, making it if need be.
    ///
    /// # Errors
    /// If another process has it, or what it holds is not understood.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        files::make_directory(root)?;
        let lock = Lock::take(&root.join("lock")).map_err(|error| match error {
            LockError::Held(pid) => DataDirError::InUse { path: root.to_owned(), pid },
            LockError::Io(source) => {
                DataDirError::Io { action: "lock", path: root.to_owned(), source }
            }
        })?;
        let identity = read_identity(root)?;
        if identity.is_none() {
            refuse_foreign(root)?;
        }
        Ok(Self { root: root.to_owned(), identity, _lock: lock })
    }

    /// Whose it is; `None` when no node was born here yet.
    pub fn identity(&self) -> Option<NodeIdentity> {
        self.identity
    }

    /// Whose it is.
    ///
    /// # Errors
    /// With both ways to begin, when no node was born here yet.
    pub fn existing(&self) -> Result<NodeIdentity, DataDirError> {
        self.identity.ok_or_else(|| DataDirError::Fresh { path: self.root.clone() })
    }

    /// Refuses a directory of another cluster.
    ///
    /// # Errors
    /// If it belongs to another cluster, or to nobody.
    pub fn expect_cluster(&self, expected: ClusterId) -> Result<(), DataDirError> {
        let found = self.existing()?.cluster;
        if found == expected {
            return Ok(());
        }
        Err(DataDirError::OtherCluster { path: self.root.clone(), found, expected })
    }

    /// Refuses a directory in which a node was born already.
    ///
    /// # Errors
    /// Names the node.
    pub fn expect_fresh(&self) -> Result<(), DataDirError> {
        match self.identity {
            None => Ok(()),
            Some(identity) => Err(DataDirError::Occupied { path: self.root.clone(), identity }),
        }
    }

    /// Gives birth to a node: secrets first, the identity last. Interrupted
    /// before that, the directory is as good as empty. The first node of a
    /// cluster also gets its [`StateFile::Bootstrap`].
    ///
    /// # Errors
    /// If a node was born here already, or the system refuses.
    pub fn create(
        &mut self,
        identity: NodeIdentity,
        secrets: &NodeSecrets,
        bootstrap: Option<&[u8]>,
    ) -> Result<(), DataDirError> {
        self.expect_fresh()?;
        for folder in [self.log(), self.stores(), self.quarantine()] {
            files::make_directory(&folder)?;
        }
        self.replace("node.pem", secrets.certificates_pem.as_bytes())?;
        self.replace("node.key", secrets.key_pem.as_bytes())?;
        self.replace("cluster.key", &secrets.cluster_key)?;
        self.replace("incarnation", &state_frame(&Boot::default().to_bytes()))?;
        match bootstrap {
            Some(payload) => self.save(StateFile::Bootstrap, payload)?,
            None => self.forget(StateFile::Bootstrap)?,
        }
        let mut ids = [0; 32];
        ids[..16].copy_from_slice(&identity.cluster.0.to_le_bytes());
        ids[16..].copy_from_slice(&identity.node.0.to_le_bytes());
        self.replace("identity", &state_frame(&ids))?;
        self.identity = Some(identity);
        Ok(())
    }

    /// What the node proves itself with.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn secrets(&self) -> Result<NodeSecrets, DataDirError> {
        peek::secrets_in(&self.root)
    }

    /// Replaces the node's certificate; its key stays.
    ///
    /// # Errors
    /// The operating system's.
    pub fn renew(&self, certificates_pem: &str) -> Result<(), DataDirError> {
        let renewed = self.replace("node.pem", certificates_pem.as_bytes());
        files::hold_spare(&self.root);
        renewed
    }

    /// Whether the node was started before.
    ///
    /// # Errors
    /// If its last start cannot be read.
    pub fn has_started(&self) -> Result<bool, DataDirError> {
        Ok(self.last_boot()?.incarnation > Incarnation(0))
    }

    fn last_boot(&self) -> Result<Boot, DataDirError> {
        let payload = self.read_state("incarnation")?;
        let bytes: [u8; Boot::BYTES] = payload.as_slice().try_into().map_err(|_| {
            let cause = format!("{} bytes instead of {}", payload.len(), Boot::BYTES);
            self.damaged("incarnation", cause)
        })?;
        Ok(Boot::from_bytes(bytes))
    }

    /// Begins a new start of the node: one incarnation higher, and higher than
    /// any `seen` elsewhere, on disk before it is returned. `told` is the start
    /// that this disk's copy of the catalog names.
    ///
    /// # Errors
    /// If the old incarnation cannot be read, or a node that kept its data in
    /// memory is started a second time: it has forgotten its votes.
    pub fn next_boot(
        &self,
        engine: EngineKind,
        told: Option<Boot>,
        seen: Option<Incarnation>,
        entropy: &dyn Entropy,
    ) -> Result<Boot, DataDirError> {
        let last = self.last_boot()?;
        if last.incarnation > Incarnation(0)
            && (engine == EngineKind::Memory || self.root.join("memory").exists())
        {
            return Err(DataDirError::MemoryGone { path: self.root.clone() });
        }
        if engine == EngineKind::Memory {
            self.replace("memory", b"")?;
        }
        let seen = seen.unwrap_or(Incarnation(0));
        let boot = Boot::after(last, told, seen, entropy.next_u64());
        self.replace("incarnation", &state_frame(&boot.to_bytes()))?;
        files::hold_spare(&self.root);
        Ok(boot)
    }

    /// Reads a state file; `None` when there is none.
    ///
    /// # Errors
    /// If it is damaged or of a newer format.
    pub fn load(&self, file: StateFile) -> Result<Option<Vec<u8>>, DataDirError> {
        load_from(&self.root, file)
    }

    /// Writes a state file, whole or not at all; durable when it returns.
    ///
    /// # Errors
    /// The operating system's.
    pub fn save(&self, file: StateFile, payload: &[u8]) -> Result<(), DataDirError> {
        self.replace(file.name(), &state_frame(payload))
    }

    /// Removes a state file that has done its work.
    ///
    /// # Errors
    /// The operating system's.
    pub fn forget(&self, file: StateFile) -> Result<(), DataDirError> {
        files::remove(&self.root, file.name())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the log's segments lie.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where the stores lie.
    pub fn stores(&self) -> PathBuf {
        self.root.join("stores")
    }

    /// Where things lie that no record names; nothing here is ever deleted.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        files::replace(&self.root, name, bytes)
    }

    fn read_state(&self, name: &str) -> Result<Vec<u8>, DataDirError> {
        read_state(&self.root, name)
    }

    fn damaged(&self, name: &str, cause: String) -> DataDirError {
        DataDirError::Damaged { path: self.root.join(name), cause }
    }
}

fn load_from(root: &Path, file: StateFile) -> Result<Option<Vec<u8>>, DataDirError> {
    if !root.join(file.name()).exists() {
        return Ok(None);
    }
    read_state(root, file.name()).map(Some)
}

fn read_state(root: &Path, name: &str) -> Result<Vec<u8>, DataDirError> {
    let path = root.join(name);
    open_state(&path, &files::read(&path, STATE_BYTES_MAX)?)
}

fn state_frame(payload: &[u8]) -> Vec<u8> {
    encode_frame(FrameKind::NodeState, FORMAT_VERSION, payload)
}

fn open_state(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, DataDirError> {
    let damaged = |cause: String| DataDirError::Damaged { path: path.to_owned(), cause };
    let (header, payload) =
        decode_frame(bytes, STATE_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
    if header.kind != FrameKind::NodeState {
        return Err(damaged(format!("it is a {:?}, not a node's state", header.kind)));
    }
    let (path, found, known) = (path.to_owned(), header.version, FORMAT_VERSION);
    match found.cmp(&known) {
        Ordering::Less => Err(DataDirError::OlderFormat { path, found, known }),
        Ordering::Equal => Ok(payload.to_vec()),
        Ordering::Greater => Err(DataDirError::NewerFormat { path, found, known }),
    }
}

fn read_identity(root: &Path) -> Result<Option<NodeIdentity>, DataDirError> {
    let path = root.join("identity");
    if !path.exists() {
        return Ok(None);
    }
    let payload = open_state(&path, &files::read(&path, STATE_BYTES_MAX)?)?;
    let (cluster, rest) = payload.split_first_chunk().unzip();
    let node = rest.and_then(|rest| <[u8; 16]>::try_from(rest).ok());
    let (Some(cluster), Some(node)) = (cluster, node) else {
        let cause = format!("{} bytes instead of 32", payload.len());
        return Err(DataDirError::Damaged { path, cause });
    };
    Ok(Some(NodeIdentity {
        cluster: ClusterId(u128::from_le_bytes(*cluster)),
        node: NodeId(u128::from_le_bytes(node)),
    }))
}

/// A directory without identity must be empty, or an interrupted birth: its
/// files may be there, but nothing in its folders.
fn refuse_foreign(root: &Path) -> Result<(), DataDirError> {
    const BORN: [&str; 5] = ["node.pem", "node.key", "cluster.key", "incarnation", "bootstrap"];
    const FOLDERS: [&str; 3] = ["log", "stores", "quarantine"];
    for entry in files::names(root)? {
        let folder = FOLDERS.contains(&entry.as_str());
        let known = HARMLESS.contains(&entry.as_str()) || BORN.contains(&entry.as_str());
        let empty = folder && files::names(&root.join(&entry))?.is_empty();
        if !(known || empty || files::is_temporary(&entry)) {
            return Err(DataDirError::Foreign { path: root.to_owned(), entry });
        }
    }
    Ok(())
}

/// Whether a node was born in `root`, without taking it.
pub fn is_born(root: &Path) -> bool {
    fs::exists(root.join("identity")).unwrap_or(false)
}

#[cfg(test)]
mod tests;
