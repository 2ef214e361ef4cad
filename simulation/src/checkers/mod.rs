//! What must hold inside, whatever clients saw: one file per property, fed by
//! the actors' reports, by what logs said to be durable, and by looks at what
//! running nodes publish. Each property names its source and has a test in
//! which it barks.

mod bounded_queues;
mod durable_quorum;
mod election_safety;
mod equal_state;
mod kept_logs;
mod leader_completeness;
mod log_matching;
mod logs;
mod look;
mod nothing_stops;
mod old_images;
mod one_owner;
mod poison;
mod removed_nodes;
#[cfg(test)]
mod samples;
mod standing;
mod state_machine_safety;
mod votes;
mod window;
mod zones;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use actors::probe::Report;
use cluster::{
    ids::{NodeId, ReplicaId, ShardId, Term},
    membership::Boot,
    ports::log::{LogRecord, RecoveredReplica},
};
use durable_quorum::DurableQuorum;
use kept_logs::KeptLogs;
use leader_completeness::LeaderCompleteness;
use log_matching::LogMatching;
pub(crate) use log_matching::outline;
use logs::Logs;
use look::Look;
use nothing_stops::NothingStops;
pub use nothing_stops::Stop;
use old_images::OldImages;
pub(crate) use poison::Poison;
pub use standing::Silence;
use standing::Standings;
pub(crate) use votes::Ballot;
use votes::Votes;
pub(crate) use window::Window;

use crate::trace::Trace;

/// One property that reports tell.
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
    standings: Standings,
    images: OldImages,
    logs: Logs,
    quorum: DurableQuorum,
    matching: LogMatching,
    complete: LeaderCompleteness,
    votes: Votes,
    kept: KeptLogs,
    look: Look,
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
            let broken = inner.judge(node, report).err();
            inner.break_with(broken);
        });
    }

    /// A machine's log said that a record is durable; whether it replaced
    /// other entries.
    pub(crate) fn durable(&self, replica: ReplicaId, record: &LogRecord) -> bool {
        self.with(|inner| {
            let cut = inner.logs.durable(replica, record);
            inner.kept.durable(&inner.logs, replica, record);
            inner.quorum.durable(replica, record);
            inner.votes.durable(replica, record);
            if let LogRecord::Ready { entries, .. } = record {
                let complete = inner.complete.entries(&inner.logs, replica, entries);
                let matching = inner.matching.entries(&inner.logs, replica, entries);
                inner.break_with(complete.and(matching).err());
            }
            cut
        })
    }

    /// A vote leaves a machine.
    pub(crate) fn votes(&self, ballot: Ballot) {
        self.with(|inner| {
            let given = inner.votes.give(&inner.images, ballot);
            let kept = inner.kept.vote(ballot);
            inner.break_with(given.and(kept).err());
        });
    }

    /// What a machine's log held when it started.
    pub(crate) fn recovered(&self, found: &[RecoveredReplica]) {
        self.with(|inner| {
            inner.find(found, false);
            for replica in found.iter().filter(|replica| !replica.damaged) {
                inner.votes.recovered(replica);
                inner.logs.recovered(replica);
                inner.quorum.recovered(replica);
                let entries: Vec<_> = replica.entries.iter().map(outline).collect();
                let matching = inner.matching.entries(&inner.logs, replica.replica, &entries);
                inner.break_with(matching.err());
            }
        });
    }

    /// What a machine's log held when it started on a disk that was harmed.
    pub(crate) fn recovered_beyond(&self, found: &[RecoveredReplica]) {
        self.with(|inner| {
            inner.find(found, true);
            for replica in found.iter().filter(|replica| !replica.damaged) {
                inner.votes.recovered(replica);
                inner.logs.recovered_beyond(replica);
                inner.quorum.recovered(replica);
            }
        });
    }

    /// A node starts, with what its disk held.
    pub(crate) fn starts(&self, node: NodeId, boot: Boot, found: &[RecoveredReplica]) {
        self.with(|inner| inner.images.starts(node, boot.incarnation, found));
    }

    /// A node runs and can be looked into.
    pub(crate) fn open_window(&self, node: u32, window: Window) {
        self.with(|inner| inner.look.open(node, window));
    }

    /// An operator has a node removed.
    pub(crate) fn order_removal(&self, node: NodeId) {
        self.with(|inner| inner.look.removed.order(node));
    }

    /// Looks at all running nodes.
    pub(crate) fn look(&self, trace: &Trace) {
        self.with(|inner| {
            let seen = inner.look.look(trace);
            inner.break_with(seen.err());
        });
    }

    /// Whether the replicas of every shard stand at one position; if they do,
    /// they are compared.
    ///
    /// # Errors
    /// Which do not.
    pub(crate) fn converged(&self, trace: &Trace) -> Result<(), String> {
        self.with(|inner| match inner.look.converged(trace) {
            Ok(met) => met,
            Err(broken) => {
                inner.break_with(Some(broken));
                Ok(())
            }
        })
    }

    /// The machine that led each shard last.
    pub fn leaders(&self) -> BTreeMap<ShardId, u32> {
        self.with(|inner| inner.leaders.iter().map(|(shard, (_, node))| (*shard, *node)).collect())
    }

    /// Replicas that take no part, or stand behind the first of their shard.
    pub fn silent(&self) -> Vec<Silence> {
        self.with(|inner| inner.standings.silent())
    }

    /// A poison entry is to lie behind all that a shard's logs hold: machines
    /// that start find it there.
    ///
    /// # Errors
    /// If the logs are not alike.
    pub(crate) fn poison(&self, shard: ShardId) -> Result<(), String> {
        self.with(|inner| {
            inner.look.poisoned.poison = Some(Poison::after(&inner.logs, shard)?);
            Ok(())
        })
    }

    /// The poison entry of this run.
    pub(crate) fn poisoned(&self) -> Option<Poison> {
        self.with(|inner| inner.look.poisoned.poison)
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
    /// Compares what was found with what was told, before it becomes what is known.
    fn find(&mut self, found: &[RecoveredReplica], harmed: bool) {
        for replica in found {
            let kept = self.kept.recovered(&self.images, replica, harmed);
            self.break_with(kept.err());
        }
    }

    fn judge(&mut self, node: u32, report: &Report) -> Result<(), String> {
        self.quorum.report(&self.logs, report)?;
        self.complete.report(node, report)?;
        self.images.report(node, report)?;
        self.votes.report(&self.quorum, report)?;
        self.kept.report(report)?;
        self.look.owner.report(node, report)?;
        self.look.see_copy(report)?;
        if !self.look.poisoned.report(node, report)? {
            self.stops.report(node, report)?;
        }
        self.all.iter_mut().try_for_each(|one| one.report(node, report))
    }

    fn break_with(&mut self, what: Option<String>) {
        self.broken = self.broken.take().or(what);
    }
}
