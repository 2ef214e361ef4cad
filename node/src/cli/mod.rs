//! The command line: one file per noun.
//!
//! `dev` and `start` run a cluster; everything else is a client that finds its
//! profile, asks over QUIC and ends with an exit code scripts can rely on
//! (see [`error::exit_number`]).

pub mod bench;
pub mod cluster;
mod connect;
pub mod data;
pub mod dev;
pub mod error;
pub mod explain;
mod files;
pub mod init;
pub mod kv;
pub mod node;
pub mod operator;
pub mod place;
pub mod profile;
pub mod render;
pub mod start;
pub mod status;
pub mod sync;
pub mod version;
pub mod volume;
pub mod watch;

use std::{future::Future, process::ExitCode, time::Duration};

use actors::client::Client;
use clap::{Args, Parser, Subcommand};

use self::{
    error::Outcome,
    profile::Profile,
    render::{Format, Output},
};

/// How long a command that is done waits for its sessions to be closed; they
/// expire by themselves otherwise.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// A cluster that stores volumes, in one binary
#[derive(Debug, Parser)]
#[command(name = "cdb", version, disable_help_subcommand = true)]
#[command(after_help = "Start here: cdb dev    Errors: cdb explain CODE")]
pub struct Cli {
    /// What every command takes
    #[command(flatten)]
    pub globals: Globals,
    /// The command
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Globals {
    /// Form of the output [default: table on a terminal, else plain]
    #[arg(short, long, global = true, value_enum)]
    output: Option<Format>,
    /// The cluster's profile: a file, its folder, or a name in ~/.config/cdb
    #[arg(long, env = "CDB_PROFILE", global = true)]
    profile: Option<String>,
    /// How long an operation may take, as in 10s or 500ms
    #[arg(long, global = true, default_value = "10s", value_parser = duration)]
    deadline: Duration,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a whole cluster on this machine
    Dev(dev::DevArgs),
    /// Runs one node
    Start(start::StartArgs),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Shows whether the cluster is well, and what mends it
    Status(status::StatusArgs),
    /// Nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Writes a value
    Put(data::PutArgs),
    /// Reads a value
    Get(data::GetArgs),
    /// Lists keys in order
    Ls(data::LsArgs),
    /// Deletes keys
    Rm(data::RmArgs),
    /// Shows a key without its value
    Stat(data::StatArgs),
    /// Keys with their versions: ranges, the past, transactions, leases
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Shows what happens to keys, as it happens
    Watch(watch::WatchArgs),
    /// Copies a tree of files into a volume, or back
    Sync(sync::SyncArgs),
    /// Measures the cluster
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Explains an error code
    Explain {
        /// The code, as in E0412
        code: String,
    },
    /// Shows the release
    Version,
}

/// What a client command works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// How to print.
    pub output: Output,
    profile: Option<String>,
    deadline: Duration,
}

impl Context {
    fn new(globals: Globals) -> Self {
        Self {
            output: Output::new(globals.output),
            profile: globals.profile,
            deadline: globals.deadline,
        }
    }

    /// The profile.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn profile(&self) -> Outcome<Profile> {
        let folder = profile::profile_folder();
        Ok(profile::find(self.profile.as_deref(), folder.as_deref())?)
    }

    /// A client of the profile's cluster.
    ///
    /// # Errors
    /// If the profile cannot be used.
    pub fn client(&self) -> Outcome<Client> {
        Ok(connect::client(&self.profile()?)?.with_deadline(self.deadline))
    }
}

/// Runs a command and ends the process as it says.
pub fn run(globals: Globals, command: Command) -> ExitCode {
    let context = Context::new(globals);
    error::report(match command {
        Command::Dev(args) => ended(dev::run(&args)),
        Command::Start(args) => ended(start::run(&args, crate::run_node)),
        Command::Cluster(cluster::ClusterCommand::Init(args)) => ended(init::run(&args)),
        Command::Cluster(cluster::ClusterCommand::Token(args)) => {
            client(cluster::token(&context, args))
        }
        Command::Cluster(cluster::ClusterCommand::Profile(args)) => ended(operator::run(&args)),
        Command::Status(args) => client(status::run(&context, args)),
        Command::Node(command) => client(node::run(&context, command)),
        Command::Volume(command) => client(volume::run(&context, command)),
        Command::Put(args) => client(data::put(&context, args)),
        Command::Get(args) => client(data::get(&context, args)),
        Command::Ls(args) => client(data::ls(&context, args)),
        Command::Rm(args) => client(data::rm(&context, args)),
        Command::Stat(args) => client(data::stat(&context, args)),
        Command::Kv(command) => client(kv::run(&context, command)),
        Command::Watch(args) => client(watch::run(&context, args)),
        Command::Sync(args) => client(sync::run(&context, args)),
        Command::Bench(command) => client(bench::run(&context, command)),
        Command::Explain { code } => explain::run(&code),
        Command::Version => version::run(context.output),
    })
}

fn client(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(command)
}

/// The outcome of a command that runs nodes, with the code of what ended it.
fn ended(outcome: anyhow::Result<()>) -> Outcome {
    outcome.map_err(|error| error::of_node(&error).into())
}

/// Reads `10s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write it as 500ms, 10s or 2m");
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert!(duration("-1s").is_err());
        assert!(duration("soon").unwrap_err().contains("500ms"));
    }

    #[test]
    fn output_and_profile_may_follow_the_command() {
        let cli =
            Cli::try_parse_from(["cdb", "status", "-o", "json", "--profile", "x.yaml"]).unwrap();
        assert_eq!(cli.globals.output, Some(Format::Json));
        assert_eq!(cli.globals.profile.as_deref(), Some("x.yaml"));
        Cli::try_parse_from([
            "cdb",
            "volume",
            "create",
            "data",
            "--replicas",
            "3",
            "--shards",
            "8",
        ])
        .unwrap();
        Cli::try_parse_from(["cdb", "put", "data/hello", "-"]).unwrap();
        Cli::try_parse_from(["cdb", "bench", "kv", "--clients", "64", "-o", "json"]).unwrap();
    }
}
