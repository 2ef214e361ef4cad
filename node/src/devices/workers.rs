//! Threads that may block on the disk: a fixed number, whatever the load.
//!
//! Jobs of one replica form a lane: they run in order, one at a time, on
//! whichever engine thread is free. A lane that has run one job goes to the
//! end of the row, so no replica starves another. Reads run beside them on
//! threads of their own, so that a flush never delays a read.
//!
//! Invariants: a job runs once or, at shutdown, never; two jobs of one replica
//! never overlap; a panic ends its job alone and is reported before any later
//! job of that replica starts; at most [`JOBS_MAX`] jobs wait per kind of
//! thread: then whoever brings another waits too. That cannot lock up, since
//! jobs report by messages and wait for nobody; a job that brings a job is let
//! through.

use std::{
    any::Any,
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use cluster::{
    ids::ReplicaId,
    ports::workers::{Job, Workers},
};

use crate::observe::metrics;

/// Jobs that may wait per kind of thread: two for each replica a node hosts.
pub const JOBS_MAX: usize = 2 * cluster::limits::REPLICAS_PER_NODE_MAX;

/// Called when a job panicked, with its replica (none for reads) and the
/// panic's words, on the thread of the job.
pub type OnPanic = Arc<dyn Fn(Option<ReplicaId>, &str) + Send + Sync>;

thread_local! {
    /// Whether this thread belongs to a pool: it must never wait for one.
    static IN_POOL: Cell<bool> = const { Cell::new(false) };
}

/// The engine and read threads of a node.
pub struct EngineThreads {
    engine: Arc<Pool>,
    read: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

struct Pool {
    kind: &'static str,
    state: Mutex<State>,
    /// Work has come, or the end.
    work: Condvar,
    /// Room has come.
    room: Condvar,
    on_panic: OnPanic,
}

#[derive(Default)]
struct State {
    /// Jobs that wait, by lane. A lane is here while it waits or runs.
    lanes: BTreeMap<Lane, VecDeque<Job>>,
    /// Lanes with work and no thread, in the order they may go on.
    ready: VecDeque<Lane>,
    waiting: usize,
    /// Next lane of its own for a job without order.
    next_lane: u64,
    /// Threads that wait for work, and callers that wait for room: a wake-up costs a
    /// system call even where nobody sleeps.
    idle: usize,
    blocked: usize,
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Replica(ReplicaId),
    /// A job with no order among its likes.
    Alone(u64),
}

impl EngineThreads {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn start(
        engine_threads: usize,
        read_threads: usize,
        on_panic: OnPanic,
    ) -> std::io::Result<Self> {
        let engine = Pool::new("engine", Arc::clone(&on_panic));
        let read = Pool::new("read", on_panic);
        let mut this = Self { engine, read, threads: Vec::new() };
        for (pool, count) in [(&this.engine, engine_threads), (&this.read, read_threads)] {
            for number in 0..count.max(1) {
                this.threads.push(Pool::spawn(pool, number)?);
            }
        }
        Ok(this)
    }
}

impl Workers for EngineThreads {
    fn in_order(&self, replica: ReplicaId, job: Job) {
        self.engine.push(Some(replica), job);
    }

    fn beside(&self, job: Job) {
        self.read.push(None, job);
    }
}

impl Drop for EngineThreads {
    /// Lets what waits run to its end, then ends the threads.
    fn drop(&mut self) {
        self.engine.close();
        self.read.close();
        for thread in self.threads.drain(..) {
            // A job may hold the last handle and so drop us on our own thread.
            if thread.thread().id() != thread::current().id() {
                drop(thread.join());
            }
        }
    }
}

impl fmt::Debug for EngineThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineThreads")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Pool {
    fn new(kind: &'static str, on_panic: OnPanic) -> Arc<Self> {
        let state = Mutex::new(State::default());
        Arc::new(Self { kind, state, work: Condvar::new(), room: Condvar::new(), on_panic })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the device behind the Workers port")]
    fn spawn(pool: &Arc<Self>, number: usize) -> std::io::Result<JoinHandle<()>> {
        let pool = Arc::clone(pool);
        thread::Builder::new().name(format!("{}-{number}", pool.kind)).spawn(move || {
            IN_POOL.set(true);
            while pool.run_one() {}
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a poisoned one holds whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, replica: Option<ReplicaId>, job: Job) {
        let mut state = self.lock();
        while state.waiting >= JOBS_MAX && !state.closing && !IN_POOL.get() {
            state.blocked += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
        if state.closing {
            return;
        }
        let wakes = state.push(replica, job) && state.idle > 0;
        metrics::gauge_jobs_waiting(self.kind, state.waiting);
        drop(state);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Runs the next job; `false` when there is none and never will be.
    fn run_one(&self) -> bool {
        let mut state = self.lock();
        let (lane, job) = loop {
            if let Some(next) = state.take() {
                break next;
            }
            if state.closing {
                return false;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        };
        let is_awaited = state.blocked > 0;
        drop(state);
        if is_awaited {
            self.room.notify_one();
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
            self.report(lane, panic.as_ref());
        }
        self.lock().finish(lane);
        true
    }

    fn report(&self, lane: Lane, panic: &(dyn Any + Send)) {
        let words = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without words");
        let replica = match lane {
            Lane::Replica(replica) => Some(replica),
            Lane::Alone(_) => None,
        };
        metrics::count_job_panic(self.kind);
        tracing::error!(kind = self.kind, ?replica, words, "job panicked");
        if catch_unwind(AssertUnwindSafe(|| (self.on_panic)(replica, words))).is_err() {
            tracing::error!(kind = self.kind, "report of a panic panicked");
        }
    }

    fn close(&self) {
        self.lock().closing = true;
        self.work.notify_all();
        self.room.notify_all();
    }
}

impl State {
    /// Takes a job; `true` if a thread must be found for it. Whoever runs a lane looks
    /// for more when the job is over.
    fn push(&mut self, replica: Option<ReplicaId>, job: Job) -> bool {
        let lane = replica.map_or_else(
            || {
                self.next_lane += 1;
                Lane::Alone(self.next_lane)
            },
            Lane::Replica,
        );
        self.waiting += 1;
        if let Some(jobs) = self.lanes.get_mut(&lane) {
            jobs.push_back(job);
            return false;
        }
        self.lanes.insert(lane, VecDeque::from([job]));
        self.ready.push_back(lane);
        true
    }

    fn take(&mut self) -> Option<(Lane, Job)> {
        let lane = self.ready.pop_front()?;
        let job = self.lanes.get_mut(&lane)?.pop_front()?;
        self.waiting -= 1;
        Some((lane, job))
    }

    /// Gives the lane back, to the end of the row if it has more to do. No thread need
    /// be woken: the one that gives it back is the next to look.
    fn finish(&mut self, lane: Lane) {
        if self.lanes.get(&lane).is_some_and(|jobs| !jobs.is_empty()) {
            self.ready.push_back(lane);
        } else {
            self.lanes.remove(&lane);
        }
    }
}

#[cfg(test)]
mod tests;
