//! The doors of a node: which gateways it opens, where, and within what bounds.
//!
//! A door that is not named is not opened.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::{catalog::apply::check_volume_name, units::ByteSize};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{
    HostPort,
    values::{ListenAddress, Size},
};

/// etcd's own port for clients.
pub const ETCD_PORT_DEFAULT: u16 = 2379;
/// Bytes of one request, as etcd's `--max-request-bytes`.
const ETCD_REQUEST_DEFAULT: ByteSize = ByteSize(3 << 19);
/// What one transaction of the store takes.
const ETCD_REQUEST_MAX: ByteSize = ByteSize(4 << 20);
/// Compares, and steps of each branch, of one transaction: etcd's `--max-txn-ops`.
const ETCD_OPERATIONS_DEFAULT: usize = 128;
/// What one transaction of the store takes in all.
const ETCD_OPERATIONS_MAX: usize = cluster::limits::TRANSACTION_OPS_MAX;
/// Watches of one stream: each is a question that waits (about 4 KiB here and
/// 512 bytes at the replica).
const ETCD_WATCHES_DEFAULT: usize = 10_000;
/// How often a watch that asked for it is told how far nothing happened: etcd's
/// `--experimental-watch-progress-notify-interval`.
const ETCD_PROGRESS_DEFAULT: Duration = Duration::from_mins(10);
/// Connections at a time: a quarter of the files a node asks the system for.
const ETCD_CONNECTIONS_DEFAULT: usize = 8_192;
/// Bytes of requests and answers under way: an eighth of a node's memory.
const ETCD_MEMORY_DEFAULT: ByteSize = ByteSize::mib(256);
/// Least: a few of the largest requests, or a dozen answers of a megabyte.
const ETCD_MEMORY_MIN: ByteSize = ByteSize::mib(16);
/// Bytes of one file of the audit log: some hundred thousand changes.
const AUDIT_SIZE_DEFAULT: ByteSize = ByteSize::mib(64);
/// Least: one line of the most that is told has under 48 KiB; of common ones, 200 bytes
/// each, three hundred fit.
const AUDIT_SIZE_MIN: ByteSize = ByteSize(64 << 10);
/// Prefixes that have a rate, or a quota: each request is held against each, and a quota
/// is a watch.
const PREFIXES_MAX: usize = 64;
/// Requests a second, and at once, of one prefix: more is no bound.
const RATE_MAX: u32 = 1_000_000;
/// Copies of the volume a door creates.
const ETCD_REPLICAS_DEFAULT: u32 = 3;

/// The doors of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoorsConfig {
    /// Where it is told who changed what through any of them, the native one too.
    /// Default: nowhere.
    pub audit: Option<AuditConfig>,
    /// etcd v3 by gRPC; none when it is not to be opened. Default: none.
    pub etcd: Option<EtcdConfig>,
}

/// The etcd door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// IP address and TCP port. Default `127.0.0.1:2379`.
    pub listen: SocketAddr,
    /// Where clients reach it, as `etcdctl member list` shows it. Default:
    /// `listen`, which must then be a real address.
    pub advertise: HostPort,
    /// The volume it serves, of kind *single*; created if there is none.
    /// Default `etcd`.
    pub volume: String,
    /// Copies of that volume if it is created here. 1 to 7, default 3; it is
    /// created once the cluster has as many nodes.
    pub replicas: u32,
    /// Bytes of one request. Default 1.5 MiB, at most 4 MiB.
    pub request: ByteSize,
    /// Compares, and steps of each branch, of one transaction. Default 128.
    pub operations: usize,
    /// Watches of one stream. Default 10,000.
    pub watches: usize,
    /// Connections at a time, whoever comes beyond waits. Default 8,192; each is a
    /// file and up to a megabyte of what was not looked at yet.
    pub connections: usize,
    /// Bytes that requests under way and answers to them may hold, half of it each,
    /// and as many as one half what waits for readers of watches.
    /// 16 MiB and more, default 256 MiB. What exceeds it is refused: more means more
    /// large ranges at a time, and larger ones.
    pub memory: ByteSize,
    /// How often a quiet watch that asked for it hears of progress. Default 10 min.
    pub progress: Duration,
    /// What of the history is let go of by itself, as etcd's `--auto-compaction-mode`
    /// and `--auto-compaction-retention`. Default: nothing.
    pub auto_compaction: Option<AutoCompaction>,
    /// How often keys below a prefix may be asked for through this door. Default: at
    /// will; at most 64 of them.
    pub rates: Vec<RateConfig>,
    /// How much may lie below a prefix. Default: as much as there is room for; at
    /// most 64 of them.
    pub quotas: Vec<QuotaConfig>,
    /// Origins of pages in browsers that may ask by JSON, as etcd's `--cors`; `*` for all.
    /// Default: none.
    pub cors: Vec<String>,
    /// Whether `/metrics` is served to whoever may connect. Default: it is, as at etcd's.
    pub metrics: bool,
    /// Files of TLS; none for plain text. Default: none.
    pub tls: Option<TlsConfig>,
}

/// How much history a door keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// What is older than this goes; it is looked at ten times as often, and once an
    /// hour at least.
    Age(Duration),
    /// All but so many revisions go, every five minutes.
    Revisions(u32),
}

/// How often keys below a prefix may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateConfig {
    /// What the keys begin with; nothing means all of them.
    pub prefix: String,
    /// Requests a second. 1 to a million.
    pub requests: u32,
    /// Requests at once after a time of rest. 1 to a million, default: those of a
    /// second.
    pub burst: u32,
}

/// How much may lie below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaConfig {
    /// What the keys begin with; nothing means all of them.
    pub prefix: String,
    /// Bytes of keys and values, without their history; none for any number.
    pub size: Option<ByteSize>,
    /// Keys; none for any number.
    pub keys: Option<u64>,
}

/// The log of who changed what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file that is written; four older ones lie beside it.
    pub file: PathBuf,
    /// Bytes of one file. 64 KiB and more, default 64 MiB.
    pub size: ByteSize,
}

/// TLS of a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The door's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Who signs certificates of clients; none asks for none.
    pub client_authority: Option<PathBuf>,
    /// Whether a client may come without one all the same.
    pub client_optional: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DoorsSection {
    audit: Option<AuditSection>,
    etcd: Option<EtcdSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EtcdSection {
    listen: Option<Spanned<ListenAddress>>,
    advertise: Option<HostPort>,
    volume: Option<String>,
    replicas: Option<u32>,
    request: Option<Spanned<Size>>,
    operations: Option<Spanned<usize>>,
    watches: Option<usize>,
    connections: Option<usize>,
    memory: Option<Spanned<Size>>,
    progress_seconds: Option<u32>,
    plain_text: bool,
    auto_compaction: Option<Spanned<CompactionSection>>,
    rates: Vec<Spanned<RateSection>>,
    quotas: Vec<Spanned<QuotaSection>>,
    cors: Option<Vec<Spanned<String>>>,
    metrics: Option<bool>,
    tls: Option<TlsSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateSection {
    prefix: String,
    requests: u32,
    burst: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaSection {
    prefix: String,
    size: Option<Size>,
    keys: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditSection {
    file: PathBuf,
    size: Option<Spanned<Size>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompactionSection {
    seconds: Option<u32>,
    revisions: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: PathBuf,
    key: PathBuf,
    client_authority: Option<PathBuf>,
    #[serde(default)]
    client_optional: bool,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, ETCD_PORT_DEFAULT));
        Self {
            listen,
            advertise: HostPort::from(listen),
            volume: "etcd".to_owned(),
            replicas: ETCD_REPLICAS_DEFAULT,
            request: ETCD_REQUEST_DEFAULT,
            operations: ETCD_OPERATIONS_DEFAULT,
            watches: ETCD_WATCHES_DEFAULT,
            connections: ETCD_CONNECTIONS_DEFAULT,
            memory: ETCD_MEMORY_DEFAULT,
            progress: ETCD_PROGRESS_DEFAULT,
            auto_compaction: None,
            rates: Vec::new(),
            quotas: Vec::new(),
            cors: Vec::new(),
            metrics: true,
            tls: None,
        }
    }
}

impl DoorsConfig {
    /// Where the open ones are reached, by name.
    pub fn addresses(&self) -> BTreeMap<String, String> {
        let etcd = self.etcd.iter().map(|etcd| ("etcd".to_owned(), etcd.advertise.to_string()));
        etcd.collect()
    }

    /// Relative paths count from the file's folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Some(audit) = &mut self.audit {
            audit.file = folder.join(&audit.file);
        }
        let Some(etcd) = self.etcd.as_mut() else { return };
        let Some(tls) = etcd.tls.as_mut() else { return };
        tls.certificate = folder.join(&tls.certificate);
        tls.key = folder.join(&tls.key);
        tls.client_authority = tls.client_authority.take().map(|path| folder.join(path));
    }
}

impl DoorsSection {
    pub(super) fn validate(self) -> Result<DoorsConfig, String> {
        let audit = self.audit.map(audit).transpose()?;
        Ok(DoorsConfig { audit, etcd: self.etcd.map(EtcdSection::validate).transpose()? })
    }
}

impl EtcdSection {
    fn validate(self) -> Result<EtcdConfig, String> {
        let line = self.listen.as_ref().map_or(0, |listen| listen.defined.line());
        let default = EtcdConfig::default();
        let listen = self.listen.map_or(default.listen, |listen| listen.value.0);
        let advertise = match self.advertise {
            Some(advertise) => advertise,
            None if listen.ip().is_unspecified() => {
                return Err(format!(
                    "line {line}: `listen: {listen}` is every address of this machine, so clients \
                     need `advertise: HOST:{}`",
                    listen.port()
                ));
            }
            None => HostPort::from(listen),
        };
        if !listen.ip().is_loopback() && self.tls.is_none() && !self.plain_text {
            return Err(format!(
                "line {line}: `listen: {listen}` is reachable from other machines, in plain text: \
                 give the door `tls`, or say `plain_text: true`"
            ));
        }
        let volume = self.volume.unwrap_or(default.volume);
        check_volume_name(&volume).map_err(|refusal| format!("`doors.etcd.volume`: {refusal}"))?;
        if let Some(request) = self.request.as_ref().filter(|size| size.value.0 > ETCD_REQUEST_MAX)
        {
            let line = request.defined.line();
            return Err(format!("line {line}: `request` is at most {ETCD_REQUEST_MAX}"));
        }
        let wide = |number: &&Spanned<usize>| !(1..=ETCD_OPERATIONS_MAX).contains(&number.value);
        if let Some(operations) = self.operations.as_ref().filter(wide) {
            let line = operations.defined.line();
            return Err(format!("line {line}: `operations` are 1 to {ETCD_OPERATIONS_MAX}"));
        }
        let memory = super::at_least("memory", self.memory, ETCD_MEMORY_MIN)?;
        Ok(EtcdConfig {
            listen,
            advertise,
            volume,
            replicas: self.replicas.unwrap_or(default.replicas).clamp(1, 7),
            request: self.request.map_or(default.request, |size| size.value.0),
            operations: self.operations.map_or(default.operations, |number| number.value),
            watches: self.watches.unwrap_or(default.watches).max(1),
            connections: self.connections.unwrap_or(default.connections).max(1),
            memory: memory.unwrap_or(default.memory),
            progress: self
                .progress_seconds
                .filter(|seconds| *seconds > 0)
                .map_or(default.progress, |seconds| Duration::from_secs(u64::from(seconds))),
            rates: of_prefixes("rates", self.rates, rate, |rate| &rate.prefix)?,
            quotas: of_prefixes("quotas", self.quotas, quota, |quota| &quota.prefix)?,
            cors: cors(self.cors)?,
            metrics: self.metrics.unwrap_or(default.metrics),
            auto_compaction: self.auto_compaction.as_ref().map(compaction).transpose()?,
            tls: self.tls.map(|tls| TlsConfig {
                certificate: tls.certificate,
                key: tls.key,
                client_authority: tls.client_authority,
                client_optional: tls.client_optional,
            }),
        })
    }
}

fn compaction(section: &Spanned<CompactionSection>) -> Result<AutoCompaction, String> {
    let line = section.defined.line();
    match section.value {
        CompactionSection { seconds: Some(seconds @ 1..), revisions: None } => {
            Ok(AutoCompaction::Age(Duration::from_secs(u64::from(seconds))))
        }
        CompactionSection { seconds: None, revisions: Some(revisions @ 1..) } => {
            Ok(AutoCompaction::Revisions(revisions))
        }
        CompactionSection { .. } => Err(format!(
            "line {line}: `auto_compaction` keeps either so many `seconds` or so many `revisions`"
        )),
    }
}

/// Origins as browsers write them: anything else would never be met.
fn cors(section: Option<Vec<Spanned<String>>>) -> Result<Vec<String>, String> {
    let is_origin = |text: &str| {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'*' | b'?' | b'#');
        host.is_some_and(|host| !host.is_empty() && host.bytes().all(fits))
    };
    let read = |origin: Spanned<String>| {
        let line = origin.defined.line();
        let origin = origin.value;
        if origin == "*" || is_origin(&origin) {
            return Ok(origin);
        }
        Err(format!(
            "line {line}: `{origin}` in `cors` is no origin: write \"*\", or a scheme and a host \
             as in https://admin.example.org"
        ))
    };
    section.unwrap_or_default().into_iter().map(read).collect()
}

fn rate(section: RateSection) -> Result<RateConfig, String> {
    let RateSection { prefix, requests, burst } = section;
    let burst = burst.unwrap_or(requests);
    if [requests, burst].iter().any(|number| !(1..=RATE_MAX).contains(number)) {
        return Err(format!("`requests` and `burst` are 1 to {RATE_MAX}"));
    }
    Ok(RateConfig { prefix, requests, burst })
}

fn quota(section: QuotaSection) -> Result<QuotaConfig, String> {
    let QuotaSection { prefix, size, keys } = section;
    if size.is_none() && keys.is_none() {
        return Err("a quota names `size`, `keys` or both".to_owned());
    }
    Ok(QuotaConfig { prefix, size: size.map(|size| size.0), keys })
}

/// What is said of prefixes under `name`: of each once, and of so many.
fn of_prefixes<S, T>(
    name: &str,
    sections: Vec<Spanned<S>>,
    read: impl Fn(S) -> Result<T, String>,
    prefix: impl Fn(&T) -> &str,
) -> Result<Vec<T>, String> {
    let mut all: Vec<T> = Vec::new();
    for section in sections {
        let line = section.defined.line();
        let one = read(section.value).map_err(|refusal| format!("line {line}: {refusal}"))?;
        if all.iter().any(|earlier| prefix(earlier) == prefix(&one)) {
            let prefix = prefix(&one);
            return Err(format!("line {line}: the prefix `{prefix}` is in `{name}` already"));
        }
        if all.len() == PREFIXES_MAX {
            return Err(format!("line {line}: there are at most {PREFIXES_MAX} `{name}`"));
        }
        all.push(one);
    }
    Ok(all)
}

fn audit(section: AuditSection) -> Result<AuditConfig, String> {
    let size = super::at_least("size", section.size, AUDIT_SIZE_MIN)?;
    Ok(AuditConfig { file: section.file, size: size.unwrap_or(AUDIT_SIZE_DEFAULT) })
}
