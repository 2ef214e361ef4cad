//! Who may ask what: one exhaustive table.

use cluster::{
    ids::{CATALOG_SHARD, FIRST_TENANT},
    ports::network::{Peer, RequestClass},
    request::{Fault, Request, ShardBody},
};

use super::not_allowed;
use cluster::catalog::command::CatalogCommand;

/// Decides whether a peer may make a request in a class.
///
/// # Errors
/// [`Fault::NotAllowed`] with what and who.
pub fn authorise(from: &Peer, class: RequestClass, request: &Request) -> Result<(), Fault> {
    if class != request.class() {
        return Err(not_allowed("send this request in that class", from));
    }
    let allowed = match (from, request) {
        (Peer::Node(_), Request::Join(_)) => Err("join twice"),
        (Peer::Node(_), _)
        | (Peer::Anonymous, Request::Join(_))
        | (Peer::Client { .. }, Request::CatalogChanges { .. } | Request::NodeStatus) => Ok(()),
        (Peer::Anonymous, _) => Err("do anything but join"),
        (Peer::Client { .. }, Request::Shard(request)) => {
            client_may(request.shard == CATALOG_SHARD, &request.body, from)
        }
        // Who lets nodes in can read everybody's data: the first tenant runs
        // the cluster.
        (Peer::Client { tenant, .. }, Request::NewToken { .. }) if *tenant == FIRST_TENANT => {
            Ok(())
        }
        (Peer::Client { .. }, Request::NewToken { .. }) => Err("let nodes in"),
        (Peer::Client { .. }, Request::SnapshotPiece(_)) => Err("fetch snapshots"),
        (Peer::Client { .. }, Request::Join(_)) => Err("join as a node"),
    };
    allowed.map_err(|what| not_allowed(what, from))
}

/// What a client may ask of a shard.
fn client_may(catalog: bool, body: &ShardBody, from: &Peer) -> Result<(), &'static str> {
    match body {
        ShardBody::Catalog { command, .. } => client_may_change(command, from),
        ShardBody::Write { .. } | ShardBody::Transact { .. } if catalog => {
            Err("write catalog records directly")
        }
        ShardBody::Restore { .. } | ShardBody::Compact { .. } | ShardBody::Advance { .. }
            if catalog =>
        {
            Err("compact the catalog")
        }
        ShardBody::Lease { .. } | ShardBody::ShowLease { .. } | ShardBody::ListLeases { .. }
            if catalog =>
        {
            Err("lease catalog records")
        }
        ShardBody::Auth { .. } | ShardBody::ShowAuth(_) if catalog => {
            Err("give the catalog accounts")
        }
        ShardBody::Get { .. }
        | ShardBody::List { .. }
        | ShardBody::Range { .. }
        | ShardBody::Look { .. }
        | ShardBody::Watch { .. }
            if catalog =>
        {
            Err("read catalog records directly")
        }
        ShardBody::OpenSession
        | ShardBody::CloseSession(_)
        | ShardBody::Write { .. }
        | ShardBody::Transact { .. }
        | ShardBody::Compact { .. }
        | ShardBody::Restore { .. }
        | ShardBody::Advance { .. }
        | ShardBody::Lease { .. }
        | ShardBody::ShowLease { .. }
        | ShardBody::ListLeases { .. }
        | ShardBody::Auth { .. }
        | ShardBody::ShowAuth(_)
        | ShardBody::Range { .. }
        | ShardBody::Look { .. }
        | ShardBody::Watch { .. }
        | ShardBody::Get { .. }
        | ShardBody::List { .. }
        | ShardBody::Inspect => Ok(()),
    }
}

/// What a client may change in the catalog.
fn client_may_change(command: &CatalogCommand, from: &Peer) -> Result<(), &'static str> {
    match command {
        CatalogCommand::CreateVolume { tenant, .. }
        | CatalogCommand::SetHistory { tenant, .. }
        | CatalogCommand::DeleteVolume { tenant, .. } => match from {
            Peer::Client { tenant: own, .. } if own == tenant => Ok(()),
            Peer::Client { .. } | Peer::Node(_) | Peer::Anonymous => {
                Err("touch volumes of another tenant")
            }
        },
        // As for tokens: the first tenant runs the cluster.
        CatalogCommand::RemoveNode(_) if matches!(from, Peer::Client { tenant, .. } if *tenant == FIRST_TENANT) => {
            Ok(())
        }
        CatalogCommand::Bootstrap { .. }
        | CatalogCommand::AddToken { .. }
        | CatalogCommand::AdmitNode { .. }
        | CatalogCommand::RegisterBoot { .. }
        | CatalogCommand::RemoveNode(_)
        | CatalogCommand::PlaceShard { .. }
        | CatalogCommand::ObserveShard(_)
        | CatalogCommand::ForgetVolume(_)
        | CatalogCommand::MarkReady(_)
        | CatalogCommand::AllotReplica { .. }
        | CatalogCommand::WithdrawReplica { .. }
        | CatalogCommand::ReportLost { .. }
        | CatalogCommand::ObserveDestroyed { .. } => Err("change the catalog in this way"),
    }
}
