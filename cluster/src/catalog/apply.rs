//! What a change of the catalog does: the catalog's state machine.
//!
//! Every change is judged against the records as they are and either done or
//! refused with a reason; nothing is changed by a refusal. The proposer's wall
//! clock travels in the command, so every replica judges expiry the same.
//! What may naturally be tried again (admission, placement, marks) answers the
//! same way the second time; creating a volume is exactly-once by its session.
//!
//! Invariants:
//! - apply depends on the command and the records only;
//! - ids only rise and none is handed out twice;
//! - a removed node stays removed;
//! - a shard's descriptor only moves forward by epoch;
//! - a lost replica stays lost, and two replicas of a shard lie on one node
//!   only when one of them is lost.

mod ledger;
mod node;
mod shard;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
mod volume;

use super::command::{CatalogCommand, CatalogOutcome, CatalogRefusal};
use crate::{formats::InvalidRecord, ids::StoreId, ports::engine::EngineError};
use ledger::Ledger;

pub use node::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, NODES_MAX, TOKENS_MAX};
pub use volume::{REPLICAS_MAX, SHARDS_MAX, VOLUME_NAME_BYTES_MAX, check_volume_name};

/// The catalog's records as apply sees them: reads see earlier writes.
pub trait CatalogRecords {
    /// The record under a key.
    ///
    /// # Errors
    /// Damage or device faults.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, EngineError>;

    /// All records under a prefix, in key order.
    ///
    /// # Errors
    /// Damage or device faults.
    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, EngineError>;

    /// Writes a record.
    fn put(&mut self, key: String, value: Vec<u8>);

    /// Deletes a record; deleting what is not there is no error.
    fn delete(&mut self, key: String);
}

/// Applies one change.
///
/// # Errors
/// Only what the records' reader reports, or a record that is none; a refusal
/// is an outcome. After an error the caller drops the writes and stops.
pub fn apply(
    records: &mut dyn CatalogRecords,
    command: &CatalogCommand,
) -> Result<CatalogOutcome, EngineError> {
    let ledger = &mut Ledger::new(records);
    match step(ledger, command) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Refused(refusal)) => Ok(CatalogOutcome::Refused(refusal)),
        Err(Stop::Engine(error)) => Err(error),
    }
}

fn step(ledger: &mut Ledger<'_>, command: &CatalogCommand) -> Result<CatalogOutcome, Stop> {
    match command {
        CatalogCommand::Bootstrap { cluster, node, catalog } => {
            node::bootstrap(ledger, cluster, node, catalog)
        }
        CatalogCommand::AddToken { hash, expires } => node::add_token(ledger, hash, *expires),
        CatalogCommand::AdmitNode { hash, now, node } => node::admit(ledger, hash, *now, node),
        CatalogCommand::RegisterBoot {
            node,
            boot,
            addresses,
            http_address,
            zone,
            capacity_bytes,
        } => {
            let shown = node::Shown {
                boot: *boot,
                addresses,
                http_address,
                zone,
                capacity_bytes: *capacity_bytes,
            };
            node::register_boot(ledger, *node, &shown)
        }
        CatalogCommand::RemoveNode(node) => node::remove(ledger, *node),
        CatalogCommand::CreateVolume { tenant, name, policy } => {
            volume::create(ledger, *tenant, name, policy)
        }
        CatalogCommand::SetHistory { tenant, name, history } => {
            volume::set_history(ledger, *tenant, name, *history)
        }
        CatalogCommand::PlaceShard { shard, nodes } => shard::place(ledger, *shard, nodes),
        CatalogCommand::ObserveShard(seen) => shard::observe(ledger, seen),
        CatalogCommand::DeleteVolume { tenant, name } => volume::delete(ledger, *tenant, name),
        CatalogCommand::ForgetVolume(volume) => volume::forget(ledger, *volume),
        CatalogCommand::MarkReady(volume) => volume::mark_ready(ledger, *volume),
        CatalogCommand::AllotReplica { shard, node } => shard::allot(ledger, *shard, *node),
        CatalogCommand::WithdrawReplica { shard, replica } => {
            shard::withdraw(ledger, *shard, *replica)
        }
        CatalogCommand::ReportLost { shard, replica, loss } => {
            shard::report_lost(ledger, *shard, *replica, *loss)
        }
        CatalogCommand::ObserveDestroyed { shard, replica } => {
            shard::observe_destroyed(ledger, *shard, *replica)
        }
    }
}

/// Why a step came to no end: a refusal (an outcome), or a fault below.
enum Stop {
    Refused(CatalogRefusal),
    Engine(EngineError),
}

impl Stop {
    fn invalid(why: impl Into<String>) -> Self {
        Self::Refused(CatalogRefusal::Invalid(why.into()))
    }
}

impl From<CatalogRefusal> for Stop {
    fn from(refusal: CatalogRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// A record in the catalog that is none: its store is damaged (which one, the
/// caller knows).
impl From<InvalidRecord> for Stop {
    fn from(error: InvalidRecord) -> Self {
        Self::Engine(EngineError::Damaged { store: StoreId::default(), cause: error.to_string() })
    }
}
