//! The cluster as a whole: init, token, profile.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Context, error::Outcome, init, operator, render::line};

/// `cdb cluster`
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Creates a cluster whose first node is this one
    Init(init::InitArgs),
    /// Makes a token that lets one node join, once, within 15 minutes
    Token(TokenArgs),
    /// Writes the operator's profile anew, from the data directory of a node of this machine
    Profile(operator::ProfileArgs),
}

/// Arguments of `cdb cluster token`.
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
    /// How long it is good, at most 15 min (as in 90s or 5m)
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = super::duration)]
    lifetime: Duration,
}

/// Runs `cdb cluster token`.
///
/// # Errors
/// See [`super::error::CliError`].
pub async fn token(context: &Context, args: TokenArgs) -> Outcome {
    let client = context.client()?;
    let token = client.new_token(args.lifetime).await?;
    let nodes = client.nodes().await.unwrap_or_default();
    let address = nodes.iter().flat_map(|node| &node.addresses).next().cloned();
    if context.output.is_json() {
        let view = serde_json::json!({ "token": token, "join": address });
        return context.output.json(&view);
    }
    line(&token)?;
    let host = address.unwrap_or_else(|| "HOST:PORT".into());
    super::render::tell(&format!(
        "on the new machine, within {}: cdb start -c node.yaml --join {host} --token {token}",
        spoken(args.lifetime)
    ));
    Ok(())
}

/// A time as people say it: in minutes where it has whole ones.
fn spoken(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (60, 0) => "1 minute".to_owned(),
        (seconds, 0) if seconds >= 60 && seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        (1, 0) => "1 second".to_owned(),
        (seconds, 0) => format!("{seconds} seconds"),
        (..) => format!("{} ms", time.as_millis()),
    }
}
