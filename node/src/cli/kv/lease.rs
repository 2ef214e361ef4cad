//! `cdb kv lease grant|revoke|keep-alive|ttl|list`

use std::time::Duration;

use clap::Subcommand;
use cluster::{codes::ErrorCode, ids::LeaseId};

use super::super::{
    CLOSE_WITHIN, Context,
    error::{CliError, Outcome},
    render,
};

/// `cdb kv lease …`
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Begins a lease and prints its number
    Grant {
        /// In which volume; it must have one shard
        volume: String,
        /// How long it lives unless it is kept alive
        seconds: u64,
        /// Its number, instead of a random one
        #[arg(long)]
        id: Option<u64>,
    },
    /// Ends a lease with its keys
    Revoke {
        /// In which volume
        volume: String,
        /// Which lease
        lease: u64,
    },
    /// Keeps a lease alive until it is interrupted
    KeepAlive {
        /// In which volume
        volume: String,
        /// Which lease
        lease: u64,
        /// Only once
        #[arg(long)]
        once: bool,
    },
    /// Shows how long a lease lives
    Ttl {
        /// In which volume
        volume: String,
        /// Which lease
        lease: u64,
        /// Its keys too
        #[arg(long)]
        keys: bool,
    },
    /// Lists all leases
    List {
        /// Of which volume
        volume: String,
    },
}

pub(super) async fn run(context: &Context, command: LeaseCommand) -> Outcome {
    let client = context.client()?;
    match command {
        LeaseCommand::Grant { volume, seconds, id } => {
            let ttl_ms = seconds.saturating_mul(1_000);
            let granted = client.grant_lease(&volume, id.map(LeaseId), ttl_ms).await;
            client.with_deadline(CLOSE_WITHIN).close().await;
            let granted = granted?;
            let view = serde_json::json!({
                "lease": granted.lease.0, "ttl_ms": granted.ttl_ms, "version": granted.version.0,
            });
            context.output.record(&view, &granted.lease.0.to_string())
        }
        LeaseCommand::Revoke { volume, lease } => {
            let revoked = client.revoke_lease(&volume, LeaseId(lease)).await;
            client.with_deadline(CLOSE_WITHIN).close().await;
            let (version, keys) = revoked?;
            let view = serde_json::json!({ "deleted": keys, "version": version.0 });
            context.output.record(&view, &keys.to_string())
        }
        LeaseCommand::KeepAlive { volume, lease, once } => loop {
            let kept = client.keep_lease_alive(&volume, LeaseId(lease)).await?;
            let view = serde_json::json!({ "lease": lease, "ttl_ms": kept.ttl_ms });
            context
                .output
                .record(&view, &format!("{lease} lives {} s more", kept.ttl_ms / 1_000))?;
            if once {
                client.with_deadline(CLOSE_WITHIN).close().await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(kept.ttl_ms / 3)).await;
        },
        LeaseCommand::Ttl { volume, lease, keys } => {
            let (shown, _) = client.show_lease(&volume, LeaseId(lease), keys).await?;
            let shown = shown.ok_or_else(|| unknown(&volume, lease))?;
            let names: Vec<String> =
                shown.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
            let view = serde_json::json!({
                "lease": lease, "ttl_ms": shown.ttl_ms, "remaining_ms": shown.remaining_ms,
                "keys": names,
            });
            let text = format!("{} of {} s left", shown.remaining_ms / 1_000, shown.ttl_ms / 1_000);
            context.output.record(&view, &text)?;
            if !context.output.is_json() {
                for name in names {
                    render::line(&render::printable(&name))?;
                }
            }
            Ok(())
        }
        LeaseCommand::List { volume } => {
            let (leases, _) = client.list_leases(&volume).await?;
            let rows: Vec<Vec<String>> =
                leases.iter().map(|lease| vec![lease.0.to_string()]).collect();
            let view: Vec<u64> = leases.iter().map(|lease| lease.0).collect();
            context.output.rows(&view, &["LEASE"], &rows)
        }
    }
}

fn unknown(volume: &str, lease: u64) -> CliError {
    CliError::new(
        ErrorCode::UnknownLease,
        format!("volume {volume} has no lease {lease}"),
        "it never had one, it was revoked, or nobody kept it alive in time",
        format!("see what is there: cdb kv lease list {volume}"),
    )
}
