//! Volumes: create, ls, show, set, rm, snapshot, restore.

pub mod history;
pub mod restore;
pub mod snapshot;

use std::{
    io::{self, BufRead, IsTerminal},
    time::Duration,
};

use actors::client::{Client, VolumeView};
use clap::{Args, Subcommand, ValueEnum};
use cluster::{
    catalog::record::{NodeRecord, VolumeKind, VolumePolicy, VolumeState},
    codes::ErrorCode,
    ids::{NodeId, ShardId},
    mvcc::compaction::HistoryPolicy,
    request::ReplicaStatus,
    shard::descriptor::Predicate,
};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{
    Context,
    error::{CliError, Outcome},
    render::{Format, count, tell},
};

/// `cdb volume`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Creates a volume and waits until it serves: for the deadline, and 20 ms per shard
    Create(CreateArgs),
    /// Lists the volumes
    #[command(alias = "list")]
    Ls,
    /// Shows a volume and its shards
    Show {
        /// Its name
        name: String,
    },
    /// Changes what a volume keeps
    Set(history::SetArgs),
    /// Deletes a volume with all its data
    Rm(RemoveArgs),
    /// Saves all of a volume of kind single in a file
    Snapshot(snapshot::SnapshotArgs),
    /// Brings a saved snapshot into a new or empty volume of kind single
    Restore(restore::RestoreArgs),
}

/// `cdb volume create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name
    name: String,
    /// Copies of every key, each on a node of its own
    #[arg(long, default_value_t = 3)]
    replicas: u32,
    /// Parts it is spread over
    #[arg(long)]
    shards: Option<u32>,
    /// How keys are spread
    #[arg(long, value_enum, default_value_t = Kind::Hash)]
    kind: Kind,
    /// How much of its past stays readable: 1h, 10000-versions (of kind single), or usual
    #[arg(long, value_parser = history::policy, default_value = "usual")]
    history: HistoryPolicy,
}

/// `cdb volume rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
}

/// Kinds of volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// By hash of the key: plain key-value
    Hash,
    /// By ranges of keys: whatever is listed a lot
    Ordered,
    /// One shard that never splits
    Single,
}

/// Shards of a hash volume unless said otherwise: enough to spread over the
/// disks of a small cluster.
const SHARDS: u32 = 8;

#[derive(Debug, Serialize)]
struct View {
    name: String,
    id: u64,
    kind: VolumeKind,
    replicas: u32,
    state: &'static str,
    history: String,
    shards: Vec<ShardView>,
}

#[derive(Debug, Serialize)]
struct ShardView {
    shard: u64,
    epoch: u64,
    keys: String,
    nodes: Vec<String>,
    #[serde(flatten)]
    holds: Option<Holds>,
}

/// What a shard holds, as its leader says.
#[derive(Clone, Copy, Debug, Serialize)]
struct Holds {
    count: u64,
    bytes: u64,
    version: u64,
    compacted: u64,
    restoring: bool,
}

/// Runs `cdb volume`.
///
/// # Errors
/// See [`CliError`].
pub async fn run(context: &Context, command: VolumeCommand) -> Outcome {
    match command {
        VolumeCommand::Create(args) => create(context, args).await,
        VolumeCommand::Ls => ls(context).await,
        VolumeCommand::Show { name } => show(context, &name).await,
        VolumeCommand::Set(args) => history::set(context, args).await,
        VolumeCommand::Rm(args) => rm(context, args).await,
        VolumeCommand::Snapshot(args) => snapshot::run(context, args).await,
        VolumeCommand::Restore(args) => restore::run(context, args).await,
    }
}

/// What the wait for a new volume grows by with each shard: twice what the
/// founding of one takes where three nodes share two cores.
const SHARD_WAIT: Duration = Duration::from_millis(20);

async fn create(context: &Context, args: CreateArgs) -> Outcome {
    let (kind, shards) = match args.kind {
        Kind::Hash => (VolumeKind::Hash, args.shards.unwrap_or(SHARDS)),
        Kind::Ordered => (VolumeKind::Ordered, args.shards.unwrap_or(1)),
        Kind::Single => (VolumeKind::Single, args.shards.unwrap_or(1)),
    };
    let client = context.client()?;
    // A thousand shards take longer than one request may.
    let client = client.with_deadline(client.deadline() + SHARD_WAIT * shards);
    let usual = VolumePolicy::new(kind, args.replicas, shards);
    let policy = VolumePolicy { history: args.history, ..usual };
    let created = client.create_volume(&args.name, policy).await;
    client.with_deadline(super::CLOSE_WITHIN).close().await;
    let volume = created?;
    let view = view(&volume, &client.nodes().await?);
    let text = format!(
        "volume {} is ready: {}, {} each",
        view.name,
        count(view.shards.len(), "shard"),
        count(view.replicas, "replica"),
    );
    context.output.record(&view, &text)
}

async fn ls(context: &Context) -> Outcome {
    let client = context.client()?;
    let volumes = client.volumes().await?;
    let nodes = client.nodes().await?;
    let views: Vec<View> = volumes.iter().map(|volume| view(volume, &nodes)).collect();
    let row = |view: &View| {
        vec![
            view.name.clone(),
            format!("{:?}", view.kind).to_lowercase(),
            view.replicas.to_string(),
            view.shards.len().to_string(),
            view.state.into(),
            view.history.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = views.iter().map(row).collect();
    context.output.rows(
        &views,
        &["VOLUME", "KIND", "REPLICAS", "SHARDS", "STATE", "HISTORY"],
        &rows,
    )
}

/// Shards asked at a time what they hold.
const SHARDS_AT_ONCE: usize = 32;
const HEADER: [&str; 8] =
    ["SHARD", "EPOCH", "KEYS", "NODES", "COUNT", "BYTES", "VERSION", "COMPACTED"];

fn row(shard: &ShardView) -> Vec<String> {
    let known = |of: fn(&Holds) -> u64| {
        shard.holds.as_ref().map_or_else(|| "-".to_owned(), |holds| of(holds).to_string())
    };
    let restoring = shard.holds.as_ref().is_some_and(|holds| holds.restoring);
    let version = known(|holds| holds.version);
    vec![
        format!("s{}", shard.shard),
        shard.epoch.to_string(),
        shard.keys.clone(),
        shard.nodes.join(" "),
        known(|holds| holds.count),
        known(|holds| holds.bytes),
        if restoring { format!("{version} (being restored)") } else { version },
        known(|holds| holds.compacted),
    ]
}

impl From<&ReplicaStatus> for Holds {
    fn from(status: &ReplicaStatus) -> Self {
        Self {
            count: status.tally.keys,
            bytes: status.tally.bytes,
            version: status.version.0,
            compacted: status.compacted.0,
            restoring: status.restoring,
        }
    }
}

async fn show(context: &Context, name: &str) -> Outcome {
    let client = context.client()?;
    let mut view = view(&client.show_volume(name).await?, &client.nodes().await?);
    let asked = view.shards.iter().map(|shard| client.inspect_shard(ShardId(shard.shard)));
    let held: Vec<_> = stream::iter(asked).buffered(SHARDS_AT_ONCE).collect().await;
    for (shard, held) in view.shards.iter_mut().zip(held) {
        // A shard that does not answer is a shard of which nothing is known.
        shard.holds = held.ok().map(|held| Holds::from(&held));
    }
    let rows: Vec<Vec<String>> = view.shards.iter().map(row).collect();
    if context.output.format() == Format::Table {
        let View { name, replicas, history, .. } = &view;
        super::render::line(&format!(
            "{name}: {}, history {history}",
            count(*replicas, "replica")
        ))?;
    }
    context.output.rows(&view, &HEADER, &rows)
}

async fn rm(context: &Context, args: RemoveArgs) -> Outcome {
    let client = context.client()?;
    let volume = client.show_volume(&args.name).await?;
    if args.dry_run {
        let shards = count(volume.record.shards.len(), "shard");
        return super::render::line(&format!("{}: {shards} would go", args.name));
    }
    let what = format!("delete volume {} and all its data", args.name);
    if !args.yes && !confirmed(&args.name, &what)? {
        tell("nothing was deleted");
        return Ok(());
    }
    let deleted = client.delete_volume(&args.name).await;
    client.with_deadline(super::CLOSE_WITHIN).close().await;
    deleted?;
    let view = serde_json::json!({ "deleted": args.name });
    context.output.record(&view, &format!("volume {} is deleted", args.name))
}

fn confirmed(name: &str, what: &str) -> Outcome<bool> {
    if !io::stdin().is_terminal() {
        let headline = format!("to {what} needs a confirmation");
        return Err(CliError::usage(headline, "say --yes, or look first with --dry-run").into());
    }
    tell(&format!("{what}? type the name of the volume to confirm:"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == name)
}

/// Refuses a volume that is not of kind *single*.
async fn single(client: &Client, name: &str) -> Outcome {
    let volume = client.show_volume(name).await?;
    if volume.record.policy.kind == VolumeKind::Single {
        return Ok(());
    }
    Err(CliError::new(
        ErrorCode::InvalidRequest,
        format!("volume {name} is not of kind single"),
        "only a volume of one shard has one version at which all of it can be saved",
        "create one: cdb volume create NAME --kind single",
    )
    .into())
}

fn view(volume: &VolumeView, nodes: &[NodeRecord]) -> View {
    let name = |node: NodeId| {
        let known = nodes.iter().find(|known| known.node == node);
        known.map_or_else(|| node.to_string(), |known| format!("n{}", known.number))
    };
    let shard = |(shard, leader): (&_, &Option<NodeId>)| {
        let shard: &cluster::shard::descriptor::ShardDescriptor = shard;
        let mark = |node| if *leader == Some(node) { "*" } else { "" };
        let replicas = shard.replicas.iter();
        ShardView {
            shard: shard.shard.0,
            epoch: shard.epoch.0,
            keys: keys(&shard.predicate),
            nodes: replicas.map(|r| format!("{}{}", name(r.node), mark(r.node))).collect(),
            holds: None,
        }
    };
    View {
        name: volume.record.name.clone(),
        id: volume.record.volume.0,
        kind: volume.record.policy.kind,
        replicas: volume.record.policy.replicas,
        history: history::text(volume.record.policy.history),
        state: match volume.record.state {
            VolumeState::Creating => "creating",
            VolumeState::Ready => "ready",
            VolumeState::Deleting => "deleting",
        },
        shards: volume.shards.iter().zip(&volume.leaders).map(shard).collect(),
    }
}

fn keys(predicate: &Predicate) -> String {
    match predicate {
        Predicate::Hash { from, to } => format!("hash {:04x}..={:04x}", from >> 48, to >> 48),
        Predicate::Range { from, to } if from.is_empty() && to.is_empty() => "all".into(),
        Predicate::Range { from, to } => format!(
            "{}..{}",
            String::from_utf8_lossy(from).escape_debug(),
            String::from_utf8_lossy(to).escape_debug()
        ),
    }
}
