//! `cdb node rm`: a node goes for good, unless a shard could not bear it.
//!
//! The catalog refuses what would leave a shard without a majority of members.
//! Which of them are up it does not know, so that is asked here first: what a
//! removal would stop must not begin.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, IsTerminal},
};

use cluster::{
    catalog::view::CatalogView,
    codes::ErrorCode,
    ids::{NodeId, ShardId},
    shard::descriptor::ReplicaRole,
};

use crate::cli::{
    Context,
    error::{CliError, Outcome},
    place::find_node,
    render::tell,
    status,
};

pub(super) async fn run(context: &Context, name: String, yes: bool, dry_run: bool) -> Outcome {
    let client = context.client()?;
    let nodes = client.nodes().await?;
    let node = find_node(&nodes, &name)?;
    let asks = nodes.iter().map(|node| status::ask(&client, node.node));
    let said = futures_util::future::join_all(asks).await;
    let up = nodes.iter().zip(&said).filter(|(_, said)| said.is_ok());
    let up: BTreeSet<NodeId> = up.map(|(node, _)| node.node).collect();
    let view = client.catalog().await?;
    let (held, stuck) = consequences(&view, node.node, &up);
    let name = format!("n{}", node.number);
    if let Some(first) = stuck.first() {
        return Err(CliError::new(
            ErrorCode::CatalogRefused,
            format!("{name} cannot be removed now"),
            format!(
                "{} shards would have no majority of whole replicas on nodes that are up (first: {first})",
                stuck.len()
            ),
            "start the nodes that are down, or let a new one join (cdb cluster token), and wait: \
             cdb status --wait healthy",
        )
        .into());
    }
    let short = view.active_nodes().count() <= 3;
    let after = if short {
        "and wait for another node: cdb cluster token"
    } else {
        "on the others: cdb status --wait healthy"
    };
    let text = format!("{held} replicas of {name} will be made anew {after}");
    if dry_run {
        return crate::cli::render::line(&text);
    }
    if !yes && !confirmed(&name)? {
        tell("nothing was changed");
        return Ok(());
    }
    let removed = client.remove_node(node.node).await;
    client.with_deadline(crate::cli::CLOSE_WITHIN).close().await;
    removed?;
    let view = serde_json::json!({ "removed": name, "replicas": held });
    context.output.record(&view, &format!("{name} is removed and never comes back; {text}"))
}

/// Replicas a node holds, and shards that would have no majority of whole
/// replicas on nodes that are up without it.
fn consequences(view: &CatalogView, node: NodeId, up: &BTreeSet<NodeId>) -> (usize, Vec<ShardId>) {
    let (mut held, mut stuck) = (0, Vec::new());
    for record in view.shards().filter(|record| !record.deleting) {
        if !record.named().any(|replica| replica.node == node) {
            continue;
        }
        held += 1;
        let replicas = record.descriptor.replicas.iter();
        let voters: Vec<_> = replicas.filter(|held| held.role == ReplicaRole::Voter).collect();
        let able = voters.iter().filter(|voter| {
            voter.node != node && up.contains(&voter.node) && record.loss(voter.replica).is_none()
        });
        if able.count() * 2 <= voters.len() {
            stuck.push(record.descriptor.shard);
        }
    }
    (held, stuck)
}

fn confirmed(name: &str) -> Outcome<bool> {
    if !io::stdin().is_terminal() {
        let headline = format!("removing {name} needs a confirmation");
        return Err(CliError::usage(headline, "say --yes, or look first with --dry-run").into());
    }
    tell(&format!("remove {name} for good? type its name to confirm:"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == name)
}
