//! `cdb bench kv`: what the cluster does for so many clients at once.
//!
//! Writes of one size to random keys of a volume, each acknowledged at the
//! strong level before its client sends the next. Beside the rate stand what a
//! rate alone hides: the floor the disk sets (median of real `fdatasync` calls
//! before and after), syncs per operation, and the servers' CPU time.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use actors::client::{Client, ClientError};
use clap::{Args, Subcommand};
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    ports::entropy::Entropy,
};
use serde::Serialize;
use tokio::time::Instant;

use super::{Context, error::Outcome, node::hostname, render::tell, status};
use crate::{
    devices::{
        entropy::SystemEntropy,
        floor::{Floor, cpu_seconds},
    },
    status::NodeStatus,
};

/// `cdb bench`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Writes keys of one size as fast as they are acknowledged
    Kv(KvArgs),
}

/// `cdb bench kv`
#[derive(Debug, Args)]
pub struct KvArgs {
    /// Clients at once, each with one write under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Size of a value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Where; created if it is not there
    #[arg(long, default_value = "bench")]
    volume: String,
    /// Keys written, chosen at random
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Share of reads, in percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,
    /// Where the fdatasync floor is measured [default: the data directory of a
    /// development cluster, else here]
    #[arg(long)]
    floor_dir: Option<PathBuf>,
}

/// What a run came to. Times in microseconds.
#[derive(Debug, Serialize)]
struct Report {
    clients: u32,
    seconds: f64,
    value_bytes: usize,
    reads_percent: u8,
    operations: u64,
    errors: u64,
    first_error: Option<String>,
    operations_per_second: f64,
    p50_us: u32,
    p99_us: u32,
    max_us: u32,
    /// None when no server runs on this machine.
    server_cpu_seconds_per_million: Option<f64>,
    /// None when the nodes do not report their log's syncs.
    fsyncs_per_operation: Option<f64>,
    fdatasync_floor_before_us: Option<u32>,
    fdatasync_floor_after_us: Option<u32>,
}

/// Runs `cdb bench`.
///
/// # Errors
/// See [`super::error::CliError`].
pub async fn run(context: &Context, command: BenchCommand) -> Outcome {
    let BenchCommand::Kv(args) = command;
    let client = context.client()?;
    prepare(&client, &args).await?;
    let dev = context.profile()?.dev.map(|dev| dev.data_dir);
    let folder = args.floor_dir.clone().or(dev).unwrap_or_else(|| ".".into());
    let before = Floor::measure(&folder).await;
    let servers = Servers::look(&client).await;
    let began = Instant::now();
    let runs = (0..args.clients).map(|number| {
        let run = Load { client: client.clone(), args: load_args(&args), number };
        tokio::spawn(run.until(began + Duration::from_secs(args.seconds)))
    });
    let joined = futures_util::future::join_all(runs).await;
    let seconds = began.elapsed().as_secs_f64();
    let spent = Servers::look(&client).await.since(&servers);
    let after = Floor::measure(&folder).await;
    client.with_deadline(super::CLOSE_WITHIN).close().await;
    let mut tally = Tally::default();
    for run in joined {
        tally.add(run.map_err(std::io::Error::other)?);
    }
    show(context, &tally.report(&args, seconds, &spent, (before, after)))
}

async fn prepare(client: &Client, args: &KvArgs) -> Outcome {
    match client.show_volume(&args.volume).await {
        Ok(_) => Ok(()),
        Err(ClientError::UnknownVolume { .. }) => {
            let nodes = client.nodes().await?.len();
            let replicas = if nodes >= 3 { 3 } else { 1 };
            let policy = VolumePolicy::new(VolumeKind::Hash, replicas, 8);
            client.create_volume(&args.volume, policy).await?;
            tell(&format!("volume {} created: {replicas} replicas, 8 shards", args.volume));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// What one client of the load does.
#[derive(Clone, Debug)]
struct LoadArgs {
    volume: Arc<str>,
    value_bytes: usize,
    keys: u64,
    reads: u8,
}

fn load_args(args: &KvArgs) -> LoadArgs {
    LoadArgs {
        volume: args.volume.as_str().into(),
        value_bytes: args.value_bytes,
        keys: args.keys.max(1),
        reads: args.reads,
    }
}

struct Load {
    client: Client,
    args: LoadArgs,
    number: u32,
}

/// Latencies one client keeps; at 4 bytes each, 4,096 clients stay below 1 GiB
/// and 64 clients keep every operation of an hour at 1,000 a second each.
const LATENCIES_MAX: usize = 4_000_000 / 64;

#[derive(Debug, Default)]
struct Tally {
    operations: u64,
    errors: u64,
    first_error: Option<String>,
    latencies_us: Vec<u32>,
}

impl Load {
    async fn until(self, ends: Instant) -> Tally {
        let entropy = SystemEntropy::new();
        let mut tally = Tally::default();
        // Compressible values would flatter a store that compresses.
        let mut value = vec![0; self.args.value_bytes];
        entropy.fill(&mut value);
        let mut chance = entropy.next_u64() ^ u64::from(self.number);
        while Instant::now() < ends {
            chance = cluster::shard::descriptor::key_hash(&chance.to_le_bytes());
            let key = format!("bench/{:012}", chance % self.args.keys);
            let began = Instant::now();
            let done = if (chance >> 32) % 100 < u64::from(self.args.reads) {
                self.client.get(&self.args.volume, &key).await.map(drop)
            } else {
                self.client.put(&self.args.volume, &key, value.clone()).await.map(drop)
            };
            tally.note(began.elapsed(), done.err());
        }
        tally
    }
}

impl Tally {
    fn note(&mut self, took: Duration, error: Option<ClientError>) {
        if let Some(error) = error {
            self.errors += 1;
            self.first_error.get_or_insert_with(|| error.to_string());
            return;
        }
        self.operations += 1;
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.latencies_us.len() < LATENCIES_MAX {
            self.latencies_us.push(micros);
        } else {
            // Overwrite in turn: the last ones count, whatever the rate.
            let place = usize::try_from(self.operations).unwrap_or(0) % LATENCIES_MAX;
            self.latencies_us[place] = micros;
        }
    }

    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latencies_us.extend(other.latencies_us);
    }

    fn report(
        mut self,
        args: &KvArgs,
        seconds: f64,
        spent: &Spent,
        floors: (Option<Floor>, Option<Floor>),
    ) -> Report {
        self.latencies_us.sort_unstable();
        let at = |percent: usize| {
            let last = self.latencies_us.len().saturating_sub(1);
            self.latencies_us.get(last * percent / 100).copied().unwrap_or(0)
        };
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let operations = self.operations.max(1) as f64;
        Report {
            clients: args.clients,
            seconds,
            value_bytes: args.value_bytes,
            reads_percent: args.reads,
            operations: self.operations,
            errors: self.errors,
            first_error: self.first_error.clone(),
            operations_per_second: operations / seconds,
            p50_us: at(50),
            p99_us: at(99),
            max_us: at(100),
            server_cpu_seconds_per_million: spent.cpu_seconds.map(|cpu| cpu / operations * 1e6),
            fsyncs_per_operation: spent.syncs.map(|syncs| syncs / operations),
            fdatasync_floor_before_us: floors.0.map(|floor| floor.median_us),
            fdatasync_floor_after_us: floors.1.map(|floor| floor.median_us),
        }
    }
}

/// What the servers have spent so far, by process: one that was started anew
/// during the run counts from its start.
#[derive(Debug, Default)]
struct Servers {
    cpu_seconds: BTreeMap<u32, f64>,
    log_syncs: BTreeMap<(String, u32), u64>,
}

/// What they spent during a run.
#[derive(Debug)]
struct Spent {
    cpu_seconds: Option<f64>,
    syncs: Option<f64>,
}

impl Servers {
    async fn look(client: &Client) -> Self {
        let nodes = client.nodes().await.unwrap_or_default();
        let asks = nodes.iter().map(|node| status::ask(client, node.node));
        let said = futures_util::future::join_all(asks).await;
        let said: Vec<NodeStatus> = said.into_iter().flatten().collect();
        let here = hostname();
        let local = said.iter().filter(|node| node.host == here);
        let syncs = |node: &NodeStatus| node.disks.iter().map(|disk| disk.log_syncs).sum();
        Self {
            cpu_seconds: local
                .filter_map(|node| Some((node.pid, cpu_seconds(node.pid)?)))
                .collect(),
            log_syncs: said.iter().map(|n| ((n.node.clone(), n.pid), syncs(n))).collect(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn since(&self, before: &Self) -> Spent {
        let cpu = self
            .cpu_seconds
            .iter()
            .map(|(pid, now)| now - before.cpu_seconds.get(pid).copied().unwrap_or(0.0));
        let syncs: u64 = self
            .log_syncs
            .iter()
            .map(|(node, now)| now.saturating_sub(before.log_syncs.get(node).copied().unwrap_or(0)))
            .sum();
        Spent {
            cpu_seconds: (!self.cpu_seconds.is_empty()).then(|| cpu.sum()),
            syncs: (syncs > 0).then_some(syncs as f64),
        }
    }
}

fn show(context: &Context, report: &Report) -> Outcome {
    let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.2}"));
    let micros = |value: Option<u32>| value.map_or_else(|| "-".into(), |v| v.to_string());
    let row = vec![
        report.clients.to_string(),
        format!("{:.0}", report.operations_per_second),
        report.p50_us.to_string(),
        report.p99_us.to_string(),
        report.errors.to_string(),
        number(report.server_cpu_seconds_per_million),
        number(report.fsyncs_per_operation),
        micros(report.fdatasync_floor_before_us),
        micros(report.fdatasync_floor_after_us),
    ];
    let header = [
        "CLIENTS",
        "OPS/S",
        "P50 US",
        "P99 US",
        "ERRORS",
        "CPU S/10^6",
        "FSYNCS/OP",
        "FLOOR US",
        "FLOOR AFTER",
    ];
    if let (Some(error), false) = (&report.first_error, context.output.is_json()) {
        tell(&format!("first error: {error}"));
    }
    context.output.rows(report, &header, &[row])
}
