//! What a request changes, and what its answer says came of it: two tables without a
//! rest, so that no kind of request can be added without deciding what is told of it.

use cluster::{
    catalog::command::{CatalogCommand, CatalogOutcome},
    mvcc::version::Version,
    request::{Answer, Request, ShardAnswer, ShardBody, ShardResult},
    shard::{
        command::{Op, Outcome},
        leases::{LeaseCommand, LeaseOutcome},
        restore::RestoreStep,
    },
};

use crate::observe::audit::{Subject, changed_accounts, changed_by, name_of};

/// A change as it is told.
type Told = (&'static str, Vec<Subject>);

/// What a request changes; none if it only reads, keeps alive or keeps count.
pub(super) fn change_of(request: &Request) -> Option<Told> {
    match request {
        Request::Shard(request) => of_body(&request.body),
        Request::NewToken { .. } => Some(("token", Vec::new())),
        // Of a join only that it was done is told.
        Request::Join(_)
        | Request::CatalogChanges { .. }
        | Request::NodeStatus
        | Request::SnapshotPiece(_) => None,
    }
}

fn of_body(body: &ShardBody) -> Option<Told> {
    match body {
        ShardBody::Write { ops, .. } => Some(of_ops(ops)),
        ShardBody::Transact { transaction, .. } => {
            transaction.writes().then(|| ("transaction", changed_by(transaction)))
        }
        ShardBody::Catalog { command, .. } => Some(of_catalog(command)),
        ShardBody::Lease { command, .. } => match command {
            LeaseCommand::Grant { lease, .. } => {
                Some(("lease grant", vec![Subject::lease(*lease)]))
            }
            LeaseCommand::Revoke(lease) => Some(("lease revoke", vec![Subject::lease(*lease)])),
            LeaseCommand::Expire(lease) => Some(("lease expire", vec![Subject::lease(*lease)])),
            LeaseCommand::KeepAlive(_) => None,
        },
        ShardBody::Auth { command, .. } => Some((name_of(command), changed_accounts(command))),
        // What is between the two is the file's.
        ShardBody::Restore { command, .. } => match command.step {
            RestoreStep::Begin { .. } => Some(("restore begin", Vec::new())),
            RestoreStep::End(_) => Some(("restore end", Vec::new())),
            RestoreStep::Leases(..) | RestoreStep::Keys(..) => None,
        },
        ShardBody::Advance { version } => Some(("advance", vec![below(*version)])),
        ShardBody::Compact { version } => Some(("compact", vec![below(*version)])),
        ShardBody::OpenSession
        | ShardBody::CloseSession(_)
        | ShardBody::Get { .. }
        | ShardBody::List { .. }
        | ShardBody::Range { .. }
        | ShardBody::Look { .. }
        | ShardBody::Watch { .. }
        | ShardBody::ShowLease { .. }
        | ShardBody::ListLeases { .. }
        | ShardBody::ShowAuth(_)
        | ShardBody::Inspect => None,
    }
}

fn below(version: Version) -> Subject {
    Subject::Below(i64::try_from(version.0).unwrap_or(i64::MAX))
}

fn of_ops(ops: &[Op]) -> Told {
    let deletes = ops.iter().filter(|op| matches!(op, Op::Delete { .. })).count();
    let name = match deletes {
        0 => "put",
        all if all == ops.len() => "delete",
        _ => "write",
    };
    (name, ops.iter().map(|op| Subject::key(op.key())).collect())
}

fn of_catalog(command: &CatalogCommand) -> Told {
    match command {
        CatalogCommand::CreateVolume { name, .. } => ("volume create", vec![Subject::volume(name)]),
        CatalogCommand::SetHistory { name, .. } => ("volume set", vec![Subject::volume(name)]),
        CatalogCommand::DeleteVolume { name, .. } => ("volume delete", vec![Subject::volume(name)]),
        CatalogCommand::RemoveNode(node) => ("node remove", vec![Subject::node(*node)]),
        // No client may: it is told that one tried.
        CatalogCommand::Bootstrap { .. }
        | CatalogCommand::AddToken { .. }
        | CatalogCommand::AdmitNode { .. }
        | CatalogCommand::RegisterBoot { .. }
        | CatalogCommand::PlaceShard { .. }
        | CatalogCommand::ObserveShard(_)
        | CatalogCommand::ForgetVolume(_)
        | CatalogCommand::MarkReady(_)
        | CatalogCommand::AllotReplica { .. }
        | CatalogCommand::WithdrawReplica { .. }
        | CatalogCommand::ReportLost { .. }
        | CatalogCommand::ObserveDestroyed { .. } => ("catalog", Vec::new()),
    }
}

/// The revision that a change made, if there is one; or why it was not made.
pub(super) fn came_of(answer: &Answer) -> Result<Option<Version>, String> {
    match answer {
        Answer::Fault(fault) | Answer::Shard(ShardAnswer { result: Err(fault), .. }) => {
            Err(fault.to_string())
        }
        Answer::Shard(ShardAnswer { result: Ok(ShardResult::Outcome(outcome)), .. }) => {
            of_outcome(outcome)
        }
        Answer::Shard(_)
        | Answer::CatalogChanges { .. }
        | Answer::NodeStatus(_)
        | Answer::SnapshotPiece(_)
        | Answer::Joined(_)
        | Answer::Token(_) => Ok(None),
    }
}

fn of_outcome(outcome: &Outcome) -> Result<Option<Version>, String> {
    match outcome {
        Outcome::Written { version, .. }
        | Outcome::Lease(
            LeaseOutcome::Lives { version, .. } | LeaseOutcome::Ended { version, .. },
        ) => Ok(Some(*version)),
        Outcome::Transacted(done) => Ok(Some(done.version)),
        Outcome::Auth(done) => Ok(Some(done.version)),
        Outcome::Compacted { now, .. } => Ok(Some(*now)),
        Outcome::Restored(done) => Ok(Some(done.version)),
        Outcome::Catalog(CatalogOutcome::Refused(refusal)) => Err(refusal.to_string()),
        Outcome::Refused(refusal) => Err(refusal.to_string()),
        Outcome::Closed
        | Outcome::Session(_)
        | Outcome::Lease(LeaseOutcome::NotDue)
        | Outcome::Catalog(
            CatalogOutcome::Done
            | CatalogOutcome::Node(_)
            | CatalogOutcome::Volume(_)
            | CatalogOutcome::Shard(_)
            | CatalogOutcome::Replica(_),
        ) => Ok(None),
    }
}
