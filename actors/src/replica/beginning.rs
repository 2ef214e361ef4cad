//! How a replica begins: by birth, from what the log holds of it, or after a failure; and
//! the store of a snapshot that it installed.

use std::time::Duration;

use cluster::{
    catalog::record::Loss,
    ids::{Epoch, LogIndex, StoreId, Term},
    ports::{
        engine::EngineError,
        log::{LogError, LogRecord, RecoveredReplica},
    },
    raft::{Group, GroupConfig, GroupStart, Input, types::HardState},
    shard::{descriptor::ShardDescriptor, machine::ShardMachine},
};

use super::{
    ELECTION_TICKS,
    apply::Opened,
    halt::Halt,
    journal::Written,
    messages::{ReplicaMessage, ReplicaTimer},
    state::{Facts, LOG_MEMORY_BYTES_MAX, Phase, ReplicaState},
};
use crate::{failpoint::FailPoint, probe::Report};

/// Wait before a founder is born again that found no room on the disk.
const BIRTH_RETRY: Duration = Duration::from_secs(1);
/// Ticks without traffic before a shard tries to sleep: five seconds.
const HIBERNATE_AFTER_TICKS: u32 = 50;

impl ReplicaState {
    /// Gives birth to a founder: an empty store, then the log record that
    /// makes it ours.
    pub(super) fn found(&mut self, descriptor: ShardDescriptor) {
        let Facts { replica, founder_versions, role, .. } = self.facts;
        let writes = ShardMachine::birth(replica, &descriptor, founder_versions, role);
        self.store = self.stores.next();
        self.eager = descriptor.replicas.first().is_some_and(|first| first.replica == replica);
        self.describe(descriptor);
        self.half.give_birth(self.store, writes);
    }

    /// Gives birth to a joiner: a log without a store, waiting for a snapshot.
    pub(super) fn join(&mut self, descriptor: ShardDescriptor) {
        self.describe(descriptor);
        self.born_in_store(Ok(()));
    }

    /// The store of a newborn is durable: write the birth record.
    pub(super) fn born_in_store(&mut self, result: Result<(), EngineError>) {
        if !matches!(self.phase, Phase::Opening(None)) {
            return; // It is being destroyed meanwhile.
        }
        match result {
            Ok(()) => {}
            Err(EngineError::Full { .. }) => {
                self.myself
                    .send_after(BIRTH_RETRY, || ReplicaMessage::Timer(ReplicaTimer::RetryBirth));
                return;
            }
            Err(error) => return self.halt(error.into()),
        }
        let Facts { shard, volume, .. } = self.facts;
        let (store, index, term) = (self.store, LogIndex(0), Term(0));
        self.journal.push(Written::Born, LogRecord::Created { shard, volume, store, index, term });
        self.append();
    }

    /// There was no room for the store; perhaps there is now.
    pub(super) fn retry_birth(&mut self) {
        if matches!(self.phase, Phase::Opening(None)) {
            self.found(self.descriptor.clone());
        }
    }

    /// The birth is durable: begin as if recovered from it.
    pub(super) fn born_in_log(&mut self) {
        self.world.reach(FailPoint::BirthLogged);
        let Facts { shard, volume, replica, .. } = self.facts;
        self.take_log(RecoveredReplica {
            replica,
            shard,
            volume,
            store: self.store,
            hard_state: HardState::default(),
            base_index: LogIndex(0),
            base_term: Term(0),
            entries: Vec::new(),
            damaged: false,
        });
    }

    /// Asks the log what it holds of this replica, after a failure.
    pub(super) fn ask_log(&mut self) {
        self.phase = Phase::Asking { doomed: false };
        let myself = self.myself.clone();
        self.world.log.recover(
            self.facts.replica,
            Box::new(move |result| {
                let _ = myself.cast(ReplicaMessage::Recovered(Box::new(result)));
            }),
        );
    }

    /// The log has answered what it holds.
    pub(super) fn recovered(&mut self, result: Result<RecoveredReplica, LogError>) {
        let Phase::Asking { doomed } = self.phase else { return };
        match result {
            Ok(recovered) if doomed => {
                self.store = recovered.store;
                self.end();
            }
            Ok(recovered) => self.take_log(recovered),
            // Its end may be durable already, or it was never born.
            Err(LogError::Refused { .. }) if doomed => self.destroyed(),
            Err(error) => self.halt(error.into()),
        }
    }

    /// The log's picture of the replica is here: open its store.
    pub(super) fn take_log(&mut self, recovered: RecoveredReplica) {
        self.store = recovered.store;
        if recovered.damaged {
            return self.halt(Halt::lost(
                Loss::Log,
                "its log is damaged or an old image: it may have forgotten a vote or an \
                 acknowledged entry, so it takes no part any more",
            ));
        }
        self.trimmed = recovered.base_index;
        self.phase = Phase::Opening(Some(recovered));
        if self.store == StoreId(0) {
            self.half.open_without_store();
        } else {
            self.half.open(self.store);
        }
    }

    /// The store is open: start the Raft core.
    pub(super) fn opened(&mut self, result: Result<Opened, Halt>) {
        if matches!(self.phase, Phase::Running(_)) {
            return self.reopened(result);
        }
        let Phase::Opening(recovered) = &mut self.phase else { return };
        let (Ok(opened), Some(recovered)) = (&result, recovered.take()) else {
            let early = || Halt::for_good("opened before its log was read");
            return self.halt(result.err().unwrap_or_else(early));
        };
        self.applied = (opened.applied, opened.applied_term);
        self.proven = self.applied;
        if let Some(descriptor) = &opened.descriptor {
            self.describe(descriptor.clone());
        }
        let start = group_start(recovered, opened);
        let config = GroupConfig {
            shard: self.facts.shard,
            replica: self.facts.replica,
            seed: self.world.entropy.next_u64(),
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 2,
            memory_bytes_max: LOG_MEMORY_BYTES_MAX,
            hibernate_after_ticks: Some(HIBERNATE_AFTER_TICKS),
        };
        match Group::new(config, start) {
            Ok(group) => {
                let alone = opened.configuration.voters == [self.facts.replica];
                self.phase = Phase::Running(Box::new(group));
                if self.eager || alone {
                    self.input(Input::Campaign);
                }
                self.publish();
                self.wake();
                self.round.begin();
            }
            // Log and store do not fit each other.
            Err(error) => self.halt(Halt::lost(Loss::Log, error.to_string())),
        }
    }

    /// The store of an installed snapshot is open.
    fn reopened(&mut self, result: Result<Opened, Halt>) {
        match result {
            Ok(Opened { descriptor, applied, applied_term, .. }) => {
                self.proven = (applied, applied_term);
                let (shard, replica) = (self.facts.shard, self.facts.replica);
                let opened = Report::SnapshotOpened { shard, replica, index: applied };
                self.world.probe.report(opened);
                if let Some(descriptor) = descriptor {
                    self.describe(descriptor);
                }
                self.wake_watchers();
                self.publish();
            }
            Err(halt) => self.halt(halt),
        }
    }
}

/// What the Raft core starts from.
fn group_start(recovered: RecoveredReplica, opened: &Opened) -> GroupStart {
    GroupStart {
        hard_state: recovered.hard_state,
        base_index: recovered.base_index,
        base_term: recovered.base_term,
        entries: recovered.entries,
        configuration: opened.configuration.clone(),
        epoch: opened.descriptor.as_ref().map_or(Epoch(0), |descriptor| descriptor.epoch),
        applied: opened.applied,
    }
}
