//! `cdb status`: is the cluster well, and if not, which command mends it.
//!
//! Every node is asked at once; one that does not answer is itself a finding.
//! [`assess`] makes the report out of what they said, and nothing else.

mod assess;

use std::time::Duration;

use actors::client::Client;
use clap::{Args, ValueEnum};
use cluster::{codes::ErrorCode, ids::NodeId, units::ByteSize};
use tokio::time::{Instant, sleep};

pub use assess::{Finding, NodeLine, Report, Said, Severity, assess};

use super::{
    Context,
    error::{CliError, Outcome},
    render::{age, count, line, table},
};
use crate::status::NodeStatus;

/// How long one node may take to speak of itself; a live one takes
/// milliseconds, and a dead one must not make `status` slow.
const NODE_WITHIN: Duration = Duration::from_secs(2);
/// How often `--wait` looks again.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// `cdb status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Waits until the cluster is so
    #[arg(long, value_enum)]
    wait: Option<Wanted>,
    /// How long to wait, as in 30s or 2m
    #[arg(long, default_value = "30s", value_parser = super::duration)]
    timeout: Duration,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// Every node up, every shard led, every replica in step
    Healthy,
}

/// Runs `cdb status`.
///
/// # Errors
/// See [`CliError`]; with `--wait` also when the time is over first.
pub async fn run(context: &Context, args: StatusArgs) -> Outcome {
    let ends = Instant::now() + args.timeout;
    let client = context.client()?;
    let name = context.profile()?.name;
    let report = match args.wait {
        None => look(&client, &name).await?,
        Some(Wanted::Healthy) => wait(&client, &name, ends, args.timeout).await?,
    };
    show(context, &report)
}

async fn wait(client: &Client, name: &str, ends: Instant, limit: Duration) -> Outcome<Report> {
    loop {
        let left = ends.saturating_duration_since(Instant::now()).max(LOOK_EVERY);
        let seen = look(&client.with_deadline(left.min(client.deadline())), name).await;
        match seen {
            Ok(report) if report.healthy => return Ok(report),
            Ok(report) if Instant::now() + LOOK_EVERY >= ends => {
                let first = report.findings.first();
                let cause = first.map_or("no finding", |finding| finding.text.as_str());
                return Err(CliError::new(
                    ErrorCode::WaitedInVain,
                    format!("the cluster is not healthy after {limit:?}"),
                    format!("{}; first: {cause}", count(report.findings.len(), "finding")),
                    first.map_or("look again: cdb status", |finding| finding.fix.as_str()),
                )
                .into());
            }
            Err(error) if Instant::now() + LOOK_EVERY >= ends => return Err(error),
            Ok(_) | Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Asks everybody once.
async fn look(client: &Client, name: &str) -> Outcome<Report> {
    let view = client.catalog().await?;
    let mut nodes: Vec<_> = view.active_nodes().cloned().collect();
    nodes.sort_by_key(|node| node.number);
    let asks = nodes.iter().map(|node| ask(client, node.node));
    let said = futures_util::future::join_all(asks).await;
    let pairs: Vec<_> = nodes.into_iter().zip(said).collect();
    Ok(assess(name, &view, &pairs))
}

/// What a node says, or why it says nothing.
pub(super) async fn ask(client: &Client, node: NodeId) -> Result<NodeStatus, String> {
    let json = client
        .with_deadline(NODE_WITHIN)
        .node_status(Some(node))
        .await
        .map_err(|error| error.cause())?;
    serde_json::from_str(&json).map_err(|error| format!("its status is malformed: {error}"))
}

fn show(context: &Context, report: &Report) -> Outcome {
    if context.output.is_json() {
        return context.output.json(report);
    }
    let up = report.nodes.iter().filter(|node| node.state != "DOWN").count();
    let state = if report.healthy { "healthy" } else { "DEGRADED" };
    line(&format!(
        "cluster {}  {state}  {} ({up} up)  {}  {}",
        report.cluster,
        count(report.nodes.len(), "node"),
        count(report.volumes, "volume"),
        count(report.shards, "shard"),
    ))?;
    let rows: Vec<Vec<String>> = report.nodes.iter().map(row).collect();
    let columns = ["NODE", "STATE", "LEADS", "ZONE", "USED", "MEMORY", "LAG", "UPTIME", "ADDRESS"];
    line(&table(&columns, &rows))?;
    for finding in &report.findings {
        line(&format!("!  {}  -> {}", finding.text, finding.fix))?;
    }
    Ok(())
}

fn row(node: &NodeLine) -> Vec<String> {
    let up = node.state != "DOWN";
    let or_dash = |text: String| if up { text } else { "-".into() };
    vec![
        node.name.clone(),
        node.state.clone(),
        or_dash(format!("{}/{}", node.leads, node.replicas)),
        if node.zone.is_empty() { "-".into() } else { node.zone.clone() },
        or_dash(node.used.clone()),
        or_dash(format!("{}/{}", ByteSize(node.memory_bytes), ByteSize(node.memory_limit_bytes))),
        or_dash(node.lag.to_string()),
        or_dash(age(node.uptime_ms)),
        node.addresses.join(","),
    ]
}
