//! What must hold inside, whatever clients saw: one file per property, fed by
//! the actors' reports. Each property names its source and has a test in which
//! it barks.

mod durable_quorum;
mod election_safety;
mod nothing_stops;
mod standing;
mod state_machine_safety;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use actors::probe::Report;
use cluster::{
    ids::{ReplicaId, ShardId, Term},
    ports::log::{LogRecord, RecoveredReplica},
};
use durable_quorum::DurableQuorum;

use nothing_stops::NothingStops;
pub use nothing_stops::Stop;
pub use standing::Silence;
use standing::Standings;

/// One property.
trait Checker: Send + fmt::Debug {
    /// Takes note of a report of a machine, by its number.
    ///
    /// # Errors
    /// How the property is broken.
    fn report(&mut self, node: u32, report: &Report) -> Result<(), String>;
}

/// All properties of one world.
///
/// A lock, though there is one thread: the probe port is `Sync` by contract.
#[derive(Clone, Debug)]
pub struct Checkers(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    all: Vec<Box<dyn Checker>>,
    stops: NothingStops,
    logs: DurableQuorum,
    standings: Standings,
    /// Who led each shard last, and in which term.
    leaders: BTreeMap<ShardId, (Term, u32)>,
    broken: Option<String>,
}

impl Default for Checkers {
    fn default() -> Self {
        let all: Vec<Box<dyn Checker>> = vec![
            Box::<election_safety::ElectionSafety>::default(),
            Box::<state_machine_safety::StateMachineSafety>::default(),
        ];
        Self(Arc::new(Mutex::new(Inner { all, ..Inner::default() })))
    }
}

impl Checkers {
    /// Takes note of what an actor of a machine reports.
    pub fn report(&self, node: u32, report: &Report) {
        self.with(|inner| {
            if let Report::Elected { shard, term, .. } = report {
                let led = inner.leaders.entry(*shard).or_default();
                *led = (*led).max((*term, node));
            }
            inner.standings.report(node, report);
            let undurable = inner.logs.report(node, report).err();
            let stopped = inner.stops.report(node, report).err().or(undurable);
            let mut all = inner.all.iter_mut();
            let broken = all.find_map(|one| one.report(node, report).err());
            inner.break_with(broken.or(stopped));
        });
    }

    /// A machine's log said that a record is durable; whether it replaced
    /// other entries.
    pub(crate) fn durable(&self, replica: ReplicaId, record: &LogRecord) -> bool {
        self.with(|inner| inner.logs.durable(replica, record))
    }

    /// What a machine's log held when it started.
    pub(crate) fn recovered(&self, found: &[RecoveredReplica]) {
        self.with(|inner| found.iter().for_each(|replica| inner.logs.recovered(replica)));
    }

    /// The machine that led each shard last.
    pub fn leaders(&self) -> BTreeMap<ShardId, u32> {
        self.with(|inner| inner.leaders.iter().map(|(shard, (_, node))| (*shard, *node)).collect())
    }

    /// Replicas that take no part, or stand behind the first of their shard.
    pub fn silent(&self) -> Vec<Silence> {
        self.with(|inner| inner.standings.silent())
    }

    /// From now on something may stop: the plan brings it about.
    pub fn plan_stop(&self, stop: Stop) {
        self.with(|inner| inner.stops.plan(stop));
    }

    /// Something stopped without a report.
    pub fn stopped(&self, stop: Stop, how: String) {
        self.with(|inner| inner.break_with(inner.stops.stopped(stop, how).err()));
    }

    /// Something happened that never may.
    pub fn broke(&self, what: String) {
        self.with(|inner| inner.break_with(Some(what)));
    }

    /// The first property broken, if any.
    pub fn broken(&self) -> Option<String> {
        self.with(|inner| inner.broken.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn break_with(&mut self, what: Option<String>) {
        self.broken = self.broken.take().or(what);
    }
}
