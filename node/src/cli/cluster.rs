//! The cluster as a whole: init, token.

use clap::Subcommand;

use super::{Context, error::Outcome, init, render::line};

/// `cdb cluster`
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Creates a cluster whose first node is this one
    Init(init::InitArgs),
    /// Makes a token that lets one node join, once, within 15 minutes
    Token,
}

/// Runs `cdb cluster token`.
///
/// # Errors
/// See [`super::error::CliError`].
pub async fn token(context: &Context) -> Outcome {
    let client = context.client()?;
    let token = client.new_token().await?;
    let nodes = client.nodes().await.unwrap_or_default();
    let address = nodes.iter().flat_map(|node| &node.addresses).next().cloned();
    if context.output.is_json() {
        let view = serde_json::json!({ "token": token, "join": address });
        return context.output.json(&view);
    }
    line(&token)?;
    let host = address.unwrap_or_else(|| "HOST:PORT".into());
    super::render::tell(&format!(
        "on the new machine, within 15 minutes: cdb start -c node.yaml --join {host} --token {token}"
    ));
    Ok(())
}
