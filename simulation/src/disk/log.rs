//! The `LogStore` of a boot: the product's log in virtual time.
//!
//! Its writer joins what waits into one write and, a drawn time later, one
//! sync: a crash in between loses or tears the batch. Replicas are told in
//! drawn order, each in its own. Once the boot is over nobody is told anything.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cluster::{
    ids::{LogIndex, ReplicaId},
    log::SegmentedLog,
    ports::log::{Done, LogError, LogPins, LogRecord, LogStore, RecoveredReplica},
    raft::types::Entry,
};

use super::Pace;
use crate::{life::Life, rng::Rng, trace::Trace};

/// Appends waiting before more are refused, as the product bounds them.
const WAITING_MAX: usize = 1_024;

/// The log of one boot.
#[derive(Clone, Debug)]
pub struct SimulatedLog {
    /// A lock, though there is one thread: the port is `Sync` by contract.
    writer: Arc<Mutex<Writer>>,
    trace: Trace,
    life: Option<Life>,
}

struct Writer {
    log: SegmentedLog,
    syncs: Pace,
    pace: Pace,
    waiting: VecDeque<Append>,
    /// Whether the task that writes is at work.
    busy: bool,
    rng: Rng,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

struct Append {
    replica: ReplicaId,
    record: LogRecord,
    done: Done<Result<(), LogError>>,
}

/// An append whose outcome is known.
type Finished = (Done<Result<(), LogError>>, Result<(), LogError>);

impl SimulatedLog {
    /// A log of a disk that is as slow as `pace` and `syncs` say.
    pub(super) fn new(
        log: SegmentedLog,
        (syncs, pace): (Pace, Pace),
        rng: Rng,
        trace: Trace,
        life: Option<Life>,
    ) -> Self {
        let writer = Writer { log, syncs, pace, waiting: VecDeque::new(), busy: false, rng };
        Self { writer: Arc::new(Mutex::new(writer)), trace, life }
    }

    fn is_dead(&self) -> bool {
        self.life.as_ref().is_some_and(Life::is_over)
    }

    /// Waits as long as a read takes; whether the boot lives still.
    async fn wait(&self) -> bool {
        let (pace, latency) = {
            let mut writer = self.lock();
            let Writer { pace, rng, .. } = &mut *writer;
            (pace.clone(), pace.draw(rng))
        };
        pace.wait(latency).await;
        !self.is_dead()
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes batches until nothing waits.
    async fn write(self) {
        loop {
            let (batch, latency, syncs) = {
                let mut writer = self.lock();
                if writer.waiting.is_empty() || self.is_dead() {
                    writer.busy = false;
                    return;
                }
                let (batch, latency) = writer.begin();
                (batch, latency, writer.syncs.clone())
            };
            syncs.wait(latency).await;
            if self.is_dead() {
                return;
            }
            self.trace.count("group commit");
            let finished = self.lock().finish(batch);
            for (done, outcome) in finished {
                done(outcome);
            }
        }
    }
}

type Batch = Vec<(ReplicaId, Done<Result<(), LogError>>, Result<(), LogError>)>;

impl Writer {
    /// Writes what waits; it is not durable yet.
    fn begin(&mut self) -> (Batch, Duration) {
        let mut batch: Batch = Vec::new();
        for append in std::mem::take(&mut self.waiting) {
            let staged = self.log.stage(append.replica, &append.record);
            batch.push((append.replica, append.done, staged));
        }
        // A failure fences the log, which the sync then reports.
        let _ = self.log.write();
        (batch, self.syncs.draw(&mut self.rng))
    }

    /// Syncs it; the outcomes in the order in which they are to be told.
    fn finish(&mut self, batch: Batch) -> Vec<Finished> {
        let synced = self.log.sync();
        // As the product's writer does after each batch; a failure fences.
        let _ = self.log.reclaim();
        let mut by_replica: BTreeMap<ReplicaId, Vec<Finished>> = BTreeMap::new();
        for (replica, done, staged) in batch {
            let outcome = staged.and_then(|()| synced.clone());
            by_replica.entry(replica).or_default().push((done, outcome));
        }
        let mut groups: Vec<_> = by_replica.into_values().collect();
        self.rng.shuffle(&mut groups);
        groups.into_iter().flatten().collect()
    }
}

impl LogStore for SimulatedLog {
    fn append(&self, replica: ReplicaId, record: LogRecord, done: Done<Result<(), LogError>>) {
        if self.is_dead() {
            return;
        }
        let mut writer = self.lock();
        if writer.waiting.len() >= WAITING_MAX {
            drop(writer);
            done(Err(LogError::Busy));
            return;
        }
        writer.waiting.push_back(Append { replica, record, done });
        if !std::mem::replace(&mut writer.busy, true) {
            drop(writer);
            tokio::spawn(self.clone().write());
        }
    }

    fn read(
        &self,
        replica: ReplicaId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        done: Done<Result<Vec<Entry>, LogError>>,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            if !this.wait().await {
                return;
            }
            let entries = this.lock().log.read(replica, from, to, bytes_max);
            done(entries);
        });
    }

    fn recover(&self, replica: ReplicaId, done: Done<Result<RecoveredReplica, LogError>>) {
        let this = self.clone();
        tokio::spawn(async move {
            if !this.wait().await {
                return;
            }
            let recovered = this.lock().log.recover(replica);
            done(recovered);
        });
    }

    fn pins(&self, done: Done<LogPins>) {
        let writer = self.lock();
        let pins = LogPins {
            usage: writer.log.usage(),
            oldest_segment_replicas: writer.log.oldest_segment_replicas(),
        };
        drop(writer);
        done(pins);
    }
}
