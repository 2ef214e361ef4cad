//! `cdb start`: one node, in the foreground, until it is told to stop.
//!
//! An empty directory neither invents nor joins a cluster by itself: without
//! `--join` it must hold a node already. A directory that holds one ignores
//! `--join`, so the same command line may stand in a service file; only when it
//! holds a node of another cluster than the token's is it refused.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use transport::identity::{Credentials, JoinToken, TokenError};

use crate::{
    config::{EngineKind, HostPort, NodeConfig},
    data_dir::{DataDirError, is_born},
    devices::limits::raise_open_files,
    observe::logs,
};

/// Environment of a join token, so that it need not stand in the process list.
pub const TOKEN_VARIABLE: &str = "CDB_JOIN_TOKEN";

/// What `cdb start` takes.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The node's configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// A node of the cluster to join, on the first start only
    #[arg(long, value_name = "HOST:PORT", requires = "token")]
    pub join: Option<HostPort>,
    /// A join token (from `cdb cluster token`), used up by the join
    #[arg(long, env = TOKEN_VARIABLE, hide_env_values = true, requires = "join")]
    pub token: Option<TokenText>,
    /// What to log, for example debug or info,transport=debug
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Stop when this process ends (set by `cdb dev`)
    #[arg(long, value_name = "PID", hide = true)]
    pub dev_parent: Option<u32>,
}

/// A join token as it was given. It parses in any case: what the command line
/// refuses it repeats in its error, and a mistyped token is still a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(Result<JoinToken, TokenError>);

impl FromStr for TokenText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse()))
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenText").finish_non_exhaustive()
    }
}

impl TokenText {
    /// The token.
    ///
    /// # Errors
    /// If the text is none.
    pub fn token(&self) -> Result<&JoinToken, JoinRefused> {
        self.0.as_ref().map_err(|error| JoinRefused(error.to_string()))
    }
}

/// A join that will not succeed with this token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JoinRefused(pub String);

/// How a node begins.
#[derive(Clone, PartialEq, Eq)]
pub enum StartMode {
    /// From its directory. The first node of a cluster finds there what
    /// `cdb cluster init` left, and proposes it.
    Existing,
    /// By joining a cluster.
    Join {
        /// A node of it.
        addr: HostPort,
        /// What lets it in.
        token: JoinToken,
    },
}

impl fmt::Debug for StartMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Existing => f.write_str("Existing"),
            Self::Join { addr, .. } => write!(f, "Join({addr})"),
        }
    }
}

/// Runs `cdb start`: everything a process has once (logs, limits, runtime),
/// then `node` on it.
///
/// # Errors
/// If the configuration or directory is wrong, or the node's own.
pub fn run<F, Node>(args: &StartArgs, node: F) -> anyhow::Result<()>
where
    F: FnOnce(NodeConfig, StartMode) -> Node,
    Node: Future<Output = anyhow::Result<()>>,
{
    if let Some(parent) = args.dev_parent {
        die_with(parent)?;
    }
    let config = NodeConfig::load(&args.config)?;
    let mode = mode(args, &config)?;
    logs::install(&config.log, args.log.as_deref())?;
    let files = raise_open_files(config.limits.open_files).context("cannot ask for open files")?;
    if files < config.limits.open_files {
        let wanted = config.limits.open_files;
        tracing::warn!(wanted, files, "open files are limited by the system (ulimit -Hn)");
    }
    if config.engine == EngineKind::Memory {
        tracing::warn!("data is kept in memory and gone when this process ends");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name("node");
    if let Some(threads) = config.limits.task_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.build().context("cannot start the runtime")?;
    let ended = runtime.block_on(node(config, mode));
    let old_image = |error: &anyhow::Error| {
        matches!(error.downcast_ref(), Some(actors::root::Ended::OldImage(_)))
    };
    match ended {
        Err(error) if old_image(&error) => {
            tracing::warn!(%error, "starting again");
            drop(runtime);
            Err(begin_again())
        }
        ended => ended,
    }
}

/// Replaces this process by a new one of the same program and arguments: the
/// disk was found to be an old image, and that is noted. Returns only if that
/// fails; whoever starts the node again does the same then.
fn begin_again() -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    match std::env::current_exe() {
        Ok(program) => {
            let error =
                std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
            anyhow::Error::new(error).context("cannot start again; start the node anew")
        }
        Err(error) => anyhow::Error::new(error).context("cannot start again; start the node anew"),
    }
}

/// Decides how to begin, before anything is opened.
fn mode(args: &StartArgs, config: &NodeConfig) -> anyhow::Result<StartMode> {
    if is_born(&config.data_dir) {
        if let Some(token) = &args.token {
            same_cluster(&config.data_dir, token.token()?)?;
        }
        return Ok(StartMode::Existing);
    }
    match (&args.join, &args.token) {
        (Some(addr), Some(token)) => {
            Ok(StartMode::Join { addr: addr.clone(), token: token.token()?.clone() })
        }
        (Some(_), None) | (None, Some(_) | None) => {
            Err(DataDirError::Fresh { path: config.data_dir.clone() }.into())
        }
    }
}

/// Refuses to start a node of one cluster where it was to join another.
fn same_cluster(data_dir: &Path, token: &JoinToken) -> anyhow::Result<()> {
    let read = |name: &str| {
        let path = data_dir.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let credentials = Credentials::from_pem(&read("node.pem")?, &read("node.key")?)?;
    if token.is_of(credentials.authority()) {
        return Ok(());
    }
    let (path, found) = (data_dir.to_owned(), credentials.names().cluster);
    Err(DataDirError::OtherAuthority { path, found }.into())
}

/// Resolves when the process is told to stop (SIGTERM, or Ctrl-C).
///
/// # Errors
/// If the signals cannot be listened to.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Asks the kernel for SIGTERM when the parent ends, however it ends.
fn die_with(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("cannot tie this process to its parent")?;
    // It may have ended before the kernel was asked.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    anyhow::ensure!(now == Some(parent), "the parent process {parent} has ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::create_cluster;

    fn args(join: bool) -> StartArgs {
        let entropy = crate::devices::entropy::SystemEntropy::new();
        StartArgs {
            config: "node.yaml".into(),
            join: join.then(|| "n1:7400".parse().unwrap()),
            token: join.then(|| TokenText(Ok(JoinToken::generate(b"authority", &entropy)))),
            log: None,
            dev_parent: None,
        }
    }

    #[test]
    fn an_empty_directory_neither_invents_nor_joins_a_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::parse("data_dir: n1\n").unwrap();
        config.data_dir = folder.path().join("n1");
        let error = mode(&args(false), &config).unwrap_err().to_string();
        assert!(error.contains("cdb cluster init -c FILE"), "{error}");
        assert!(error.contains("--join HOST:PORT --token T"), "{error}");
        assert!(!config.data_dir.exists(), "refusing leaves no trace");

        assert!(matches!(mode(&args(true), &config).unwrap(), StartMode::Join { .. }));
        let born =
            create_cluster(&config, "main", Some(&folder.path().join("client.yaml"))).unwrap();
        assert_eq!(mode(&args(false), &config).unwrap(), StartMode::Existing);
        let error = mode(&args(true), &config).unwrap_err().to_string();
        assert!(error.contains(&format!("belongs to cluster {}", born.cluster)), "{error}");
    }

    #[test]
    fn a_token_is_not_printed() {
        let args = args(true);
        let secret = args.token.as_ref().unwrap().token().unwrap().to_string();
        assert!(!format!("{args:?}").contains(&secret));
    }

    #[test]
    fn a_process_with_another_parent_does_not_start() {
        let error = die_with(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("has ended"), "{error}");
        rustix::process::set_parent_process_death_signal(None).unwrap();
    }
}
