//! What one node is told: a YAML file, parsed once into types that cannot
//! hold a wrong value.
//!
//! The file is local to its node. What all nodes must agree on lies in the
//! catalog, never here. Unknown keys are errors, so that a misspelt limit is
//! not a limit that silently does not hold. Every error names the file, the
//! line and what to write instead.
//!
//! `node/docs/configuration.md` tells the same per field, and a test holds the
//! two together.

mod doors;
mod values;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use cluster::units::ByteSize;
use serde::Deserialize;
use serde_saphyr::Spanned;

use doors::DoorsSection;
pub use doors::{
    AuditConfig, AutoCompaction, DoorsConfig, ETCD_PORT_DEFAULT, EtcdConfig, QuotaConfig,
    RateConfig, TlsConfig,
};
pub(crate) use values::THREADS_MAX;
pub use values::{HostPort, LogFormat, Zone};
use values::{HttpAddress, ListenAddress, Size, Threads};

/// Where a node listens for QUIC unless told otherwise.
pub const QUIC_PORT_DEFAULT: u16 = 7400;
/// Where a node serves HTTP unless told otherwise.
pub const HTTP_PORT_DEFAULT: u16 = 7480;
/// Largest configuration file; anything longer is not one.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Least memory of a node: each of its sixteen parts holds what one replica may
/// have of it (32 MiB, eight of the largest requests).
const MEMORY_MIN: ByteSize = ByteSize::mib(512);
/// Default memory of a node: a cap, not what it takes when idle.
const MEMORY_DEFAULT: ByteSize = ByteSize::gib(2);
/// Least offered capacity: the reserve for deletes must fit twice.
const CAPACITY_MIN: ByteSize = ByteSize::gib(1);
/// Default size of a segment of the log.
const LOG_SEGMENT_DEFAULT: ByteSize = ByteSize::mib(64);
/// Least size: a checkpoint of all replicas and a joined record of 8 MiB
/// beside one largest entry.
const LOG_SEGMENT_MIN: ByteSize = ByteSize::mib(16);
/// Largest size: what a disk fills with zeros in some seconds.
const LOG_SEGMENT_MAX: ByteSize = ByteSize::gib(1);
/// Default limit of a store. Not more, for all stores of a node share the addresses of its
/// process: of 47 bits (128 TiB), 64 GiB each leave room for 2,000 of them.
const STORE_DEFAULT: ByteSize = ByteSize::gib(64);
/// Least limit: what is kept of it for deletes (72 MiB) is then less than a third.
const STORE_MIN: ByteSize = ByteSize::mib(256);
/// Largest limit: stores of a hundred shards still fit into the addresses.
const STORE_MAX: ByteSize = ByteSize::gib(1024);
/// Replicas per node times three descriptors, and as much again for sockets.
const OPEN_FILES_DEFAULT: u64 = 32_768;
/// A node with a catalog replica, a few shards and a few peers.
const OPEN_FILES_MIN: u64 = 256;

/// Everything one node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Directory of all state. No default. One process at a time may use it.
    pub data_dir: PathBuf,
    /// IP address and UDP port of QUIC. Default `127.0.0.1:7400`: reachable
    /// from this machine only, until told otherwise.
    pub listen: SocketAddr,
    /// Where others reach `listen`. Default: `listen` itself, which must then
    /// be a real address and not "every address".
    pub advertise: HostPort,
    /// Where metrics and health are served in plain HTTP; `None` when off.
    /// Default `127.0.0.1:7480`.
    pub http: Option<SocketAddr>,
    /// Failure domain; copies of a shard go to different zones where there
    /// are enough. Default `default`: all nodes fail together.
    pub zone: Zone,
    /// Bytes offered to shards, the node's weight in placement. `None`: the
    /// size of the file system. At least 1 GiB.
    pub capacity: Option<ByteSize>,
    /// Where state lives. Default: on disk.
    pub engine: EngineKind,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Bounds of memory, threads and files.
    pub limits: LimitsConfig,
    /// Which doors are open beside the native one. Default: none.
    pub doors: DoorsConfig,
}

/// Where a node keeps log and stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// On disk: what is acknowledged survives the loss of power.
    #[default]
    Disk,
    /// In memory: all is lost when the process ends. For trying out and tests.
    Memory,
}

/// Logging of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Level, or a filter like `info,transport=debug`. Default `info`. The
    /// environment (`RUST_LOG`) and `--log` go before it.
    pub filter: String,
    /// Shape of a line. Default `auto`: text on a terminal, JSON otherwise.
    pub format: LogFormat,
    /// A file to append to instead of standard error.
    pub file: Option<PathBuf>,
}

/// Bounds of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Memory the node may take in all, pages of stores that the system caches
    /// not counted. 512 MiB and more, default 2 GiB. It is cut into sixteen
    /// parts (`actors::budget`): more means larger, rarer flushes, a longer
    /// replay, and more requests under way before the node says *busy*.
    pub memory: ByteSize,
    /// Threads that serve connections and run actors. 1 to 64; by default as many as
    /// the machine has cores.
    pub task_threads: Option<usize>,
    /// Threads that apply and flush. 1 to 64, default 4. More help when many
    /// shards are busy on a disk that takes parallel writes.
    pub engine_threads: usize,
    /// Threads that read stores. 1 to 64, default 4.
    pub read_threads: usize,
    /// Open files to ask the system for. 256 and more, default 32,768; three
    /// per replica are needed, one per connection.
    pub open_files: u64,
    /// Size of a new segment of the log, for experts. 16 MiB to 1 GiB, default
    /// 64 MiB. Three are made at once and kept; smaller ones suit small disks,
    /// larger ones need fewer syncs of the directory.
    pub log_segment: ByteSize,
    /// Bytes that the store of one shard may come to. 256 MiB to 1 TiB, default 64 GiB.
    /// At nine tenths of it puts to that shard are refused. It takes addresses of the
    /// process, 128 TiB in all, not memory; the same on all nodes.
    pub store: ByteSize,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far longer than any configuration.
    #[error("{} has {bytes} bytes; a configuration has at most {CONFIG_BYTES_MAX}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not a valid configuration.
    #[error("in {}: {report}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, cause, what is expected, and the lines around.
        report: String,
    },
}

/// The file as written, before defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    data_dir: PathBuf,
    listen: Option<Spanned<ListenAddress>>,
    advertise: Option<HostPort>,
    http: Option<HttpAddress>,
    #[serde(default)]
    zone: Zone,
    capacity: Option<Spanned<Size>>,
    #[serde(default)]
    engine: EngineKind,
    #[serde(default)]
    log: LogSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    doors: DoorsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogSection {
    level: Option<values::Filter>,
    #[serde(default)]
    format: LogFormat,
    file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    memory: Option<Spanned<Size>>,
    task_threads: Option<Threads>,
    engine_threads: Option<Threads>,
    read_threads: Option<Threads>,
    open_files: Option<Spanned<u64>>,
    log_segment: Option<Spanned<Size>>,
    store: Option<Spanned<Size>>,
}

impl NodeConfig {
    /// Of tests: as it comes, with the directory `n1` below a folder.
    #[cfg(test)]
    pub(crate) fn below(folder: &Path) -> Self {
        let mut config = Self::parse("data_dir: n1\n").expect("a configuration");
        config.data_dir = folder.join("n1");
        config
    }

    /// Reads a file. Relative paths in it count from the file's own folder.
    ///
    /// # Errors
    /// If it cannot be read or does not say something valid.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong { path: path.to_owned(), bytes });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut config = Self::parse(&text)
            .map_err(|report| ConfigError::Invalid { path: path.to_owned(), report })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        config.data_dir = folder.join(config.data_dir);
        config.log.file = config.log.file.map(|file| folder.join(file));
        config.doors.resolve(folder);
        Ok(config)
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// A report for people: line, cause, what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: ConfigFile = serde_saphyr::from_str(text).map_err(|error| {
            let report = error.to_string();
            report.trim_start_matches("error: ").trim_end().to_owned()
        })?;
        file.validate()
    }
}

impl ConfigFile {
    fn validate(self) -> Result<NodeConfig, String> {
        if self.data_dir.as_os_str().is_empty() {
            return Err("`data_dir` is empty: name a directory".to_owned());
        }
        let listen_line = self.listen.as_ref().map_or(0, |listen| listen.defined.line());
        let listen = self.listen.map_or_else(ListenAddress::default, |listen| listen.value).0;
        let advertise = match self.advertise {
            Some(advertise) => advertise,
            None if listen.ip().is_unspecified() => {
                return Err(format!(
                    "line {listen_line}: `listen: {listen}` is every address of this machine, so \
                     others need `advertise: HOST:{}`",
                    listen.port()
                ));
            }
            None => HostPort::from(listen),
        };
        Ok(NodeConfig {
            data_dir: self.data_dir,
            listen,
            advertise,
            http: self.http.unwrap_or_default().0,
            zone: self.zone,
            capacity: at_least("capacity", self.capacity, CAPACITY_MIN)?,
            engine: self.engine,
            log: self.log.validate(),
            limits: self.limits.validate()?,
            doors: self.doors.validate()?,
        })
    }
}

impl LogSection {
    fn validate(self) -> LogConfig {
        let filter = self.level.map_or_else(|| "info".to_owned(), |level| level.0);
        LogConfig { filter, format: self.format, file: self.file }
    }
}

impl LimitsSection {
    fn validate(self) -> Result<LimitsConfig, String> {
        if let Some(files) = self.open_files.as_ref().filter(|files| files.value < OPEN_FILES_MIN) {
            let line = files.defined.line();
            return Err(format!("line {line}: `open_files` is at least {OPEN_FILES_MIN}"));
        }
        at_most("log_segment", self.log_segment.as_ref(), LOG_SEGMENT_MAX)?;
        at_most("store", self.store.as_ref(), STORE_MAX)?;
        Ok(LimitsConfig {
            log_segment: at_least("log_segment", self.log_segment, LOG_SEGMENT_MIN)?
                .unwrap_or(LOG_SEGMENT_DEFAULT),
            store: at_least("store", self.store, STORE_MIN)?.unwrap_or(STORE_DEFAULT),
            memory: at_least("memory", self.memory, MEMORY_MIN)?.unwrap_or(MEMORY_DEFAULT),
            task_threads: self.task_threads.map(|threads| threads.0),
            engine_threads: self.engine_threads.unwrap_or_default().0,
            read_threads: self.read_threads.unwrap_or_default().0,
            open_files: self.open_files.map_or(OPEN_FILES_DEFAULT, |files| files.value),
        })
    }
}

fn at_most(field: &str, size: Option<&Spanned<Size>>, max: ByteSize) -> Result<(), String> {
    match size {
        Some(size) if size.value.0 > max => {
            Err(format!("line {}: `{field}` is at most {max}", size.defined.line()))
        }
        Some(_) | None => Ok(()),
    }
}

fn at_least(
    field: &str,
    size: Option<Spanned<Size>>,
    min: ByteSize,
) -> Result<Option<ByteSize>, String> {
    match size {
        Some(size) if size.value.0 < min => {
            Err(format!("line {}: `{field}` is at least {min}", size.defined.line()))
        }
        Some(size) => Ok(Some(size.value.0)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
