//! A poison entry is contained: where it lies in the logs of a shard, a majority
//! of that shard's replicas stop and say so, over restarts too, none applies it
//! or goes past it, and no other replica stops.
//!
//! Whoever is left may wait for ever: a leader that stops at the entry can no
//! longer tell the others that it is committed, and they are too few to elect one.
//! Source: design.md §3: what apply cannot bear stops that shard's replicas and
//! raises an alarm, never the process, for every replica meets the same entry.

use std::collections::BTreeSet;

use actors::probe::Report;
use cluster::ids::{LogIndex, ReplicaId, ShardId, Term};

use super::{logs::Logs, window::Window};

/// Where a poison entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poison {
    /// In whose logs.
    pub(crate) shard: ShardId,
    /// At which position.
    pub(crate) index: LogIndex,
    /// Of which term.
    pub(crate) term: Term,
}

impl Poison {
    /// The position after all that a shard's logs hold.
    ///
    /// # Errors
    /// If they do not hold the same.
    pub(super) fn after(logs: &Logs, shard: ShardId) -> Result<Self, String> {
        let ends: BTreeSet<(LogIndex, Term)> = logs.ends(shard).collect();
        match ends.iter().next() {
            Some((index, term)) if ends.len() == 1 => {
                Ok(Self { shard, index: LogIndex(index.0 + 1), term: *term })
            }
            Some(_) | None => Err(format!("the logs of {shard} end at {ends:?}")),
        }
    }
}

/// Who met the one of this run.
#[derive(Debug, Default)]
pub(super) struct Poisoned {
    pub(super) poison: Option<Poison>,
    stopped: BTreeSet<ReplicaId>,
}

impl Poisoned {
    /// Judges a report; whether it tells of a replica that stops as it must.
    pub(super) fn report(&mut self, node: u32, report: &Report) -> Result<bool, String> {
        let Some(poison) = self.poison else { return Ok(false) };
        if let Report::Applied { shard, replica, index, .. } = report
            && *shard == poison.shard
            && *index >= poison.index
        {
            return Err(format!("{replica} on n{node} applied {poison:?} and stands at {index}"));
        }
        let Report::ReplicaStopped { shard, replica, cause } = report else { return Ok(false) };
        let named = format!("entry {}: ", poison.index);
        let stops = *shard == poison.shard && cause.contains(&named);
        if stops {
            self.stopped.insert(*replica);
        }
        Ok(stops)
    }

    /// Whether a majority of the replicas on running nodes stand still and
    /// all that do said so.
    ///
    /// # Errors
    /// How many go on, or who is silent.
    pub(super) fn contained<'a>(
        &self,
        windows: impl Iterator<Item = (&'a u32, &'a Window)>,
    ) -> Result<(), String> {
        let Some(poison) = self.poison else { return Ok(()) };
        let seen = |(_, window): (&u32, &Window)| {
            let hosted = window.hosted.borrow();
            let handle = hosted.by_shard.get(&poison.shard)?;
            let published = handle.published.borrow();
            let stands = published.status.as_ref().is_some_and(|status| status.stopped.is_some());
            Some((handle.replica, stands))
        };
        self.judge(&windows.filter_map(seen).collect::<Vec<_>>())
    }

    /// Judges replicas and whether they stand still.
    fn judge(&self, replicas: &[(ReplicaId, bool)]) -> Result<(), String> {
        let still = || replicas.iter().filter(|(_, stands)| *stands);
        if let Some((silent, _)) = still().find(|(replica, _)| !self.stopped.contains(replica)) {
            return Err(format!("{silent} stopped and raised no alarm"));
        }
        let (found, of) = (still().count(), replicas.len());
        if found * 2 > of {
            return Ok(());
        }
        Err(format!("{found} of {of} replicas stopped at {:?}", self.poison))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            logs::samples::{born, entry},
            samples::applied,
        },
        *,
    };

    const SHARD: ShardId = ShardId(1);

    fn poisoned(index: u64) -> Poisoned {
        let poison = Poison { shard: SHARD, index: LogIndex(index), term: Term(1) };
        Poisoned { poison: Some(poison), ..Poisoned::default() }
    }

    fn stopped(shard: u64, replica: u64) -> Report {
        let (shard, replica) = (ShardId(shard), ReplicaId(replica));
        let cause = "entry #4: no command".to_owned();
        Report::ReplicaStopped { shard, replica, cause }
    }

    #[test]
    fn a_replica_that_applies_a_poison_entry_or_goes_past_it_is_found() {
        let mut checker = poisoned(4);
        assert_eq!(checker.report(1, &applied(3, 1)), Ok(false));
        assert!(checker.report(1, &applied(4, 1)).is_err());
        assert!(checker.report(1, &applied(9, 2)).is_err());
        assert_eq!(Poisoned::default().report(1, &applied(9, 2)), Ok(false), "there is none");
    }

    #[test]
    fn only_the_poisoned_shard_may_stop() {
        let mut checker = poisoned(4);
        assert_eq!(checker.report(1, &stopped(1, 7)), Ok(true));
        assert_eq!(checker.report(1, &stopped(2, 8)), Ok(false), "a finding of another checker");
        assert_eq!(poisoned(5).report(1, &stopped(1, 7)), Ok(false), "at another entry");
        assert_eq!(Poisoned::default().report(1, &stopped(1, 7)), Ok(false));
    }

    #[test]
    fn a_replica_that_goes_on_and_one_that_stops_in_silence_are_found() {
        let mut checker = poisoned(4);
        let [seven, eight, nine] = [7, 8, 9].map(ReplicaId);
        assert!(checker.contained(std::iter::empty()).is_err(), "nobody met it");
        assert_eq!(checker.report(1, &stopped(1, 7)), Ok(true));
        assert!(
            checker.judge(&[(seven, true), (eight, true), (nine, false)]).is_err(),
            "in silence"
        );
        assert_eq!(checker.report(2, &stopped(1, 8)), Ok(true));
        assert!(checker.judge(&[(seven, true), (eight, false), (nine, false)]).is_err(), "goes on");
        assert_eq!(checker.judge(&[(seven, true), (eight, true), (nine, false)]), Ok(()));
    }

    #[test]
    fn a_poison_entry_comes_after_logs_that_are_alike() {
        let mut logs = Logs::default();
        for replica in [1, 2] {
            logs.durable(ReplicaId(replica), &born());
            logs.durable(ReplicaId(replica), &entry(1, 3));
        }
        let poison = Poison { shard: SHARD, index: LogIndex(2), term: Term(3) };
        assert_eq!(Poison::after(&logs, SHARD), Ok(poison));
        logs.durable(ReplicaId(2), &entry(2, 3));
        assert!(Poison::after(&logs, SHARD).is_err());
        assert!(Poison::after(&logs, ShardId(9)).is_err());
    }
}
