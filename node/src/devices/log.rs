//! The log's thread: many replicas ask, one sync answers them all.
//!
//! Whatever waits is taken at once, written as one batch, synced once, and
//! answered in order. While that sync runs the next batch gathers, so the
//! number of syncs follows the disk and not the number of replicas.
//!
//! Invariants: completions of one replica come in the order of its appends; an
//! append is answered `Ok` only after the sync that covers it; after a failed
//! write or sync every append, waiting or later, is answered `Fenced`, and
//! the callback given at birth is told once.
//!
//! Limits: the queue holds a number of records and of bytes. Over it `append`
//! does not wait, because an actor may not: the record is answered `Busy` at
//! once and nothing of it is kept. Admission in front of the replicas (permits
//! for count and bytes) is what keeps that from happening; a replica that
//! meets it gives the same record again before any later one.

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::Instant,
};

use cluster::{
    ids::{LogIndex, ReplicaId},
    log::SegmentedLog,
    ports::log::{Done, LogError, LogPins, LogRecord, LogStore, RecoveredReplica},
    raft::types::{Entry, Payload},
};

use crate::observe::metrics;

mod stats;

use stats::Counters;
pub use stats::LogStats;

/// How a writer is bounded.
#[derive(Clone, Copy, Debug)]
pub struct LogWriterOptions {
    /// Records that may wait: a few for each replica a node may host.
    pub queue_records_max: usize,
    /// Bytes that may wait: about a second of a 64 MB/s disk.
    pub queue_bytes_max: usize,
    /// Bytes after which a batch is full: beyond it a longer sync gains nothing.
    pub batch_bytes_max: usize,
    /// Segments from which on entries of idle replicas are moved out of the
    /// oldest one.
    pub segments_max: usize,
}

impl Default for LogWriterOptions {
    fn default() -> Self {
        Self {
            queue_records_max: 4 * cluster::limits::REPLICAS_PER_NODE_MAX,
            queue_bytes_max: 64 << 20,
            batch_bytes_max: 8 << 20,
            segments_max: 8,
        }
    }
}

/// Bytes moved forward per batch, so that moving delays nobody by much.
const MOVE_BYTES: usize = 256 << 10;
/// An oldest segment with more needed bytes than one part in this many is left
/// to flushing: moving it would write most of it again.
const MOVE_SHARE: u64 = 4;

enum Item {
    Append { replica: ReplicaId, record: LogRecord, bytes: usize, done: Done<Result<(), LogError>> },
    Read { range: ReadRange, done: Done<Result<Vec<Entry>, LogError>> },
    Recover { replica: ReplicaId, done: Done<Result<RecoveredReplica, LogError>> },
    Pins { done: Done<LogPins> },
}

struct ReadRange {
    replica: ReplicaId,
    from: LogIndex,
    to: LogIndex,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    records: usize,
    bytes: usize,
    /// Whether the thread sleeps: a wake-up costs a system call even if it does not.
    idle: bool,
    stopping: bool,
    /// Set once the thread takes nothing more.
    ended: Option<String>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    counters: Counters,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log of one disk, on a thread of its own.
pub struct LogWriter {
    shared: Arc<Shared>,
    options: LogWriterOptions,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl LogWriter {
    /// Starts the thread. `on_fence` is called once, on that thread, when the
    /// log is fenced: the node must then restart through recovery.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        log: SegmentedLog,
        options: LogWriterOptions,
        on_fence: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            log,
            options,
            shared: Arc::clone(&shared),
            on_fence: Some(Box::new(on_fence)),
        };
        #[expect(clippy::disallowed_methods, reason = "the log's thread is a device")]
        let thread = Builder::new().name("log-writer".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, options, thread: Mutex::new(Some(thread)) })
    }

    /// Answers what waits, states in the log that all of it is durable, and
    /// ends the thread. Later appends are refused.
    pub fn stop(&self) {
        self.shared.queue().stopping = true;
        self.shared.filled.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("log writer ended in a panic");
        }
    }

    /// Counters since birth.
    pub fn stats(&self) -> LogStats {
        let (records, bytes) = {
            let queue = self.shared.queue();
            (queue.records, queue.bytes)
        };
        self.shared.counters.read(records, bytes)
    }

    fn push(&self, item: Item) {
        let (records, bytes) = item.weight();
        let mut queue = self.shared.queue();
        let refusal = match &queue.ended {
            Some(cause) => LogError::Fenced(cause.clone()),
            None if queue.stopping => LogError::Fenced("the log was stopped".to_owned()),
            None if records > 0
                && queue.records > 0
                && (queue.records + records > self.options.queue_records_max
                    || queue.bytes + bytes > self.options.queue_bytes_max) =>
            {
                LogError::Busy
            }
            None => {
                queue.records += records;
                queue.bytes += bytes;
                queue.items.push_back(item);
                let idle = std::mem::take(&mut queue.idle);
                drop(queue);
                if idle {
                    self.shared.filled.notify_one();
                }
                return;
            }
        };
        drop(queue);
        self.shared.counters.refused();
        item.refuse(&refusal);
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

impl LogStore for LogWriter {
    fn append(&self, replica: ReplicaId, record: LogRecord, done: Done<Result<(), LogError>>) {
        let bytes = record_bytes(&record);
        self.push(Item::Append { replica, record, bytes, done });
    }

    fn read(
        &self,
        replica: ReplicaId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        done: Done<Result<Vec<Entry>, LogError>>,
    ) {
        self.push(Item::Read { range: ReadRange { replica, from, to, bytes_max }, done });
    }

    fn recover(&self, replica: ReplicaId, done: Done<Result<RecoveredReplica, LogError>>) {
        self.push(Item::Recover { replica, done });
    }

    fn pins(&self, done: Done<LogPins>) {
        self.push(Item::Pins { done });
    }
}

impl Item {
    /// What it counts against the queue: records and bytes.
    fn weight(&self) -> (usize, usize) {
        match self {
            Self::Append { bytes, .. } => (1, *bytes),
            Self::Read { .. } | Self::Recover { .. } | Self::Pins { .. } => (0, 0),
        }
    }

    fn refuse(self, error: &LogError) {
        match self {
            Self::Append { done, .. } => done(Err(error.clone())),
            Self::Read { done, .. } => done(Err(error.clone())),
            Self::Recover { done, .. } => done(Err(error.clone())),
            Self::Pins { done } => drop(done),
        }
    }
}

/// About what a record takes in the log.
fn record_bytes(record: &LogRecord) -> usize {
    const ENVELOPE_BYTES: usize = 64;
    let LogRecord::Ready { entries, .. } = record else { return ENVELOPE_BYTES };
    let entry_bytes = |entry: &Entry| match &entry.payload {
        Payload::Command(bytes) => ENVELOPE_BYTES + bytes.len(),
        Payload::Empty | Payload::Configuration(_) => ENVELOPE_BYTES,
    };
    ENVELOPE_BYTES + entries.iter().map(entry_bytes).sum::<usize>()
}

/// The thread's half.
struct Writer {
    log: SegmentedLog,
    options: LogWriterOptions,
    shared: Arc<Shared>,
    on_fence: Option<Box<dyn FnOnce(String) + Send>>,
}

type Answer = (Done<Result<(), LogError>>, Result<(), LogError>);

impl Writer {
    fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve_all()));
        let cause = if served.is_ok() { "the log was stopped" } else { "the log writer panicked" };
        if served.is_err() {
            self.tell_fence(cause.to_owned());
        }
        self.end(cause);
    }

    fn serve_all(&mut self) {
        while let Some(items) = self.next_items() {
            self.serve(items);
            self.keep_house();
        }
        if self.log.fenced().is_none()
            && let Err(error) = self.log.close()
        {
            self.tell_fence(error.to_string());
        }
    }

    /// Waits for work; `None` when stopped and all is done.
    fn next_items(&mut self) -> Option<Vec<Item>> {
        if self.shared.queue().items.is_empty() {
            self.prepare();
        }
        let mut queue = self.shared.queue();
        while queue.items.is_empty() {
            if queue.stopping {
                return None;
            }
            queue.idle = true;
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < self.options.batch_bytes_max
            && let Some(item) = queue.items.pop_front()
        {
            bytes += item.weight().1;
            items.push(item);
        }
        let records = items.iter().map(|item| item.weight().0).sum::<usize>();
        queue.records -= records;
        queue.bytes -= bytes;
        Some(items)
    }

    fn serve(&mut self, items: Vec<Item>) {
        let (mut answers, mut staged) = (Vec::new(), 0);
        for item in items {
            match item {
                Item::Append { replica, record, bytes, done } => {
                    let outcome = self.log.stage(replica, &record);
                    staged += if outcome.is_ok() { bytes } else { 0 };
                    answers.push((done, outcome));
                }
                Item::Read { range, done } => done(self.read(&range)),
                Item::Recover { replica, done } => done(self.log.recover(replica)),
                Item::Pins { done } => done(LogPins {
                    usage: self.log.usage(),
                    oldest_segment_replicas: self.log.oldest_segment_replicas(),
                }),
            }
        }
        self.commit(answers, staged);
    }

    /// Reads see what was appended before them.
    fn read(&mut self, range: &ReadRange) -> Result<Vec<Entry>, LogError> {
        self.log.write()?;
        self.log.read(range.replica, range.from, range.to, range.bytes_max)
    }

    fn commit(&mut self, answers: Vec<Answer>, bytes: usize) {
        if answers.is_empty() {
            return;
        }
        let records = answers.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        let written = self.log.write();
        #[expect(clippy::disallowed_methods, reason = "a device measures its own latency")]
        let begun = Instant::now();
        let synced = written.and_then(|()| self.log.sync());
        let took = begun.elapsed();
        self.shared.counters.batch(records, bytes, took);
        metrics::time_log_sync(took);
        if let Err(error) = &synced {
            self.tell_fence(error.to_string());
        }
        for (done, outcome) in answers {
            done(outcome.and_then(|()| synced.clone()));
        }
    }

    /// Lets old segments go, and moves what little keeps the oldest one.
    fn keep_house(&mut self) {
        let mut kept = self.log.reclaim().map(|_| ());
        let usage = self.log.usage();
        let little = usage.needed_bytes_oldest * MOVE_SHARE
            < usage.bytes / (usage.segments + usage.free_files).max(1) as u64;
        if kept.is_ok() && usage.segments > self.options.segments_max && little {
            kept = self.log.rewrite_forward(MOVE_BYTES).and_then(|_| self.log.sync());
        }
        self.note(kept);
    }

    fn prepare(&mut self) {
        let prepared = self.log.prepare().map(|_| ());
        self.note(prepared);
    }

    fn note(&mut self, outcome: Result<(), LogError>) {
        match outcome {
            Ok(()) => {}
            Err(LogError::Fenced(cause)) => self.tell_fence(cause),
            Err(
                error @ (LogError::Full(_)
                | LogError::Busy
                | LogError::Refused { .. }
                | LogError::Missing { .. }
                | LogError::Damaged { .. }),
            ) => tracing::warn!(%error, "log keeps its old segments"),
        }
    }

    fn tell_fence(&mut self, cause: String) {
        if let Some(on_fence) = self.on_fence.take() {
            tracing::error!(%cause, "log is fenced");
            on_fence(cause);
        }
    }

    fn end(&mut self, cause: &str) {
        let left = {
            let mut queue = self.shared.queue();
            queue.ended = Some(cause.to_owned());
            std::mem::take(&mut queue.items)
        };
        for item in left {
            item.refuse(&LogError::Fenced(cause.to_owned()));
        }
    }
}
