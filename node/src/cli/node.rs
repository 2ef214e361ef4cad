//! Nodes: ls, show, rm, stop, start.

mod remove;

use clap::{Args, Subcommand};
use cluster::codes::ErrorCode;
use serde::Serialize;

use super::{
    Context, dev,
    error::{CliError, Outcome},
    place::find_node,
    status,
};

/// `cdb node`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Lists the nodes
    #[command(alias = "list")]
    Ls,
    /// Shows everything a node says of itself
    Show {
        /// Which: 2, n2 or its id
        node: String,
    },
    /// Stops a node of a development cluster on this machine
    Stop {
        /// Which: 2 or n2
        node: String,
    },
    /// Removes a node for good; its replicas are replaced on the others
    Rm(RemoveArgs),
    /// Starts a node of a development cluster on this machine
    Start {
        /// Which: 2 or n2
        node: String,
    },
}

/// `cdb node rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Which: 2, n2 or its id
    node: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only show what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct View {
    name: String,
    id: String,
    state: String,
    /// Only of nodes that run on this machine.
    pid: Option<u32>,
    zone: String,
    addresses: Vec<String>,
    http_address: String,
    incarnation: u64,
}

/// Runs `cdb node`.
///
/// # Errors
/// See [`CliError`].
pub async fn run(context: &Context, command: NodeCommand) -> Outcome {
    match command {
        NodeCommand::Ls => ls(context).await,
        NodeCommand::Show { node } => show(context, &node).await,
        NodeCommand::Rm(args) => remove::run(context, args.node, args.yes, args.dry_run).await,
        NodeCommand::Stop { node } => control(context, &node, Wish::Stop).await,
        NodeCommand::Start { node } => control(context, &node, Wish::Start).await,
    }
}

async fn ls(context: &Context) -> Outcome {
    let client = context.client()?;
    let nodes = client.nodes().await?;
    let asks = nodes.iter().map(|node| status::ask(&client, node.node));
    let said = futures_util::future::join_all(asks).await;
    let here = hostname();
    let view = |(node, said): (&cluster::catalog::record::NodeRecord, Result<_, String>)| {
        let said: Option<crate::status::NodeStatus> = said.ok();
        let local = said.as_ref().filter(|said| said.host == here);
        View {
            name: format!("n{}", node.number),
            id: node.node.to_hex(),
            state: if said.is_some() { "up".into() } else { "DOWN".into() },
            pid: local.map(|said| said.pid),
            zone: node.zone.clone(),
            addresses: node.addresses.clone(),
            http_address: node.http_address.clone(),
            incarnation: node.boot.incarnation.0,
        }
    };
    let views: Vec<View> = nodes.iter().zip(said).map(view).collect();
    let row = |view: &View| {
        vec![
            view.name.clone(),
            view.state.clone(),
            view.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            if view.zone.is_empty() { "-".into() } else { view.zone.clone() },
            view.addresses.join(","),
            view.id.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = views.iter().map(row).collect();
    context.output.rows(&views, &["NODE", "STATE", "PID", "ZONE", "ADDRESS", "ID"], &rows)
}

async fn show(context: &Context, name: &str) -> Outcome {
    let client = context.client()?;
    let nodes = client.nodes().await?;
    let node = find_node(&nodes, name)?;
    match status::ask(&client, node.node).await {
        Ok(said) => context.output.json(&said),
        Err(cause) => Err(CliError::new(
            ErrorCode::Unreachable,
            format!("n{} does not answer", node.number),
            cause,
            format!("start it: cdb node start {}", node.number),
        )
        .into()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Stop,
    Start,
}

/// Asks the running `cdb dev`; the cluster itself need not answer.
async fn control(context: &Context, name: &str, wish: Wish) -> Outcome {
    let profile = context.profile()?;
    let number = name.strip_prefix('n').unwrap_or(name).parse::<u64>().map_err(|_| {
        CliError::usage(format!("`{name}` is no number of a node"), "write 2 or n2")
    })?;
    let done = tokio::task::spawn_blocking(move || match wish {
        Wish::Stop => dev::stop_node(&profile, number),
        Wish::Start => dev::start_node(&profile, number),
    })
    .await
    .unwrap_or_else(|error| Err(error.into()));
    let verb = match wish {
        Wish::Stop => "stopped",
        Wish::Start => "started",
    };
    let state = done.map_err(|error| {
        CliError::new(
            ErrorCode::NotADevNode,
            format!("n{number} could not be {verb}"),
            format!("{error:#}"),
            "look at the nodes: cdb node ls",
        )
    })?;
    let view = serde_json::json!({ "node": format!("n{number}"), "done": verb, "pid": state.pid });
    context.output.record(&view, &format!("n{number} is {verb}"))
}

/// Name of this machine.
pub(super) fn hostname() -> String {
    sysinfo::System::host_name().unwrap_or_default()
}
