//! The apply half of a replica: state machine, overlay and store.
//!
//! It runs on the disk's engine threads, in order per replica, and never in
//! the actor's mailbox. The Raft half submits jobs and gets messages back.
//! Readers take what is [`Published`] (an immutable overlay snapshot) first
//! and open the store's view second: what leaves the overlay meanwhile is then
//! already in the store they see.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use cluster::{
    ids::{LogIndex, NodeId, ReplicaId, StoreId, Term},
    mvcc::version::{Hlc, Version, VersionKind},
    ports::engine::{EngineError, Store, Write},
    raft::{
        GroupStatus,
        types::{Configuration, Entry},
    },
    request::{ReadLevel, ReplicaStatus},
    shard::{
        descriptor::ShardDescriptor,
        machine::{Flush, ShardMachine},
        reader::Reader,
    },
};
use ractor::ActorRef;
use tokio::sync::watch;

use super::{
    gate::{StoreGate, Turn},
    halt::Halt,
    limit::StoreLimit,
    messages::{AppliedBatch, ReplicaMessage},
};
use crate::{budget::NodeBudget, failpoint::FailPoint, queue::Queue, world::World};

/// What a replica shows to readers, routers and status.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Its state; none before it is open.
    pub status: Option<ReplicaStatus>,
    /// Its Raft core; none unless it takes part.
    pub group: Option<Arc<GroupStatus>>,
    /// What readers need; none before the store is open.
    pub half: Option<Arc<ReadHalf>>,
    /// How often it saw a leader come.
    pub leaders: u64,
}

impl Published {
    /// The node that leads, as far as the replica knows.
    fn leader(&self) -> Option<NodeId> {
        self.status.as_ref()?.leader
    }

    /// Whether a read at `level` may be answered from here without the leader.
    pub fn serves(&self, level: ReadLevel, now: Hlc) -> bool {
        let Some(half) = self.half.as_ref() else { return false };
        match level {
            ReadLevel::Strong => false,
            ReadLevel::Eventual => true,
            ReadLevel::Bounded { staleness_ms } => {
                let oldest = now.wall().0.saturating_sub(u64::from(staleness_ms));
                half.reader.closed().wall().0 >= oldest
            }
        }
    }
}

/// An immutable point of a replica's state, to read at.
#[derive(Debug)]
pub struct ReadHalf {
    /// The overlay and counters at that point.
    pub reader: Reader,
    /// The store below it.
    pub store: Arc<dyn Store>,
    /// The store holds nothing that may go up to this version.
    pub swept: Version,
}

impl ReadHalf {
    /// Whether the store may hold what nobody can read any more.
    pub fn is_unswept(&self) -> bool {
        self.reader.floor() > self.swept
    }
}

/// What opening a replica found.
#[derive(Debug)]
pub struct Opened {
    /// Voters and learners at the applied position.
    pub configuration: Configuration,
    /// The shard as its own log says; none for a joiner without a snapshot.
    pub descriptor: Option<ShardDescriptor>,
    /// Applied position.
    pub applied: LogIndex,
    /// Its term.
    pub applied_term: Term,
}

/// What one replica holds, and whether its store can take it.
#[derive(Debug)]
pub struct Held {
    /// In its overlay.
    pub overlay: AtomicUsize,
    /// In Raft's log in memory.
    pub entries: AtomicUsize,
    /// What its overlay has grown by, all added up.
    pub grown: AtomicU64,
    /// What it may grow to before its store's own free pages are used up.
    pub grows_until: AtomicU64,
    /// What the limit of its store leaves.
    pub limit: StoreLimit,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            overlay: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            grown: AtomicU64::new(0),
            grows_until: AtomicU64::new(u64::MAX),
            limit: StoreLimit::default(),
        }
    }
}

/// Bytes this replica holds, as a share of the node's.
#[derive(Debug)]
pub struct MemoryGauge {
    node: Arc<NodeBudget>,
    /// Of this one.
    pub own: Arc<Held>,
}

impl MemoryGauge {
    /// A share of the node's budget.
    pub fn new(node: Arc<NodeBudget>) -> Self {
        Self { node, own: Arc::default() }
    }

    fn set_overlay(&self, bytes: usize) {
        let before = replace(&self.own.overlay, &self.node.overlay, bytes);
        let grown = bytes.saturating_sub(before);
        self.own.grown.fetch_add(grown as u64, Ordering::Relaxed);
        self.node.note_growth(grown);
    }

    fn set_entries(&self, bytes: usize) {
        replace(&self.own.entries, &self.node.entries, bytes);
    }
}

/// Replaces a part of a total; what it was.
fn replace(part: &AtomicUsize, total: &AtomicUsize, bytes: usize) -> usize {
    let before = part.swap(bytes, Ordering::Relaxed);
    total.fetch_add(bytes, Ordering::Relaxed);
    total.fetch_sub(before, Ordering::Relaxed);
    before
}

impl Drop for MemoryGauge {
    fn drop(&mut self) {
        self.set_overlay(0);
        self.set_entries(0);
    }
}

/// Bytes of an overlay that go to the store as one step where room is scarce:
/// twice that is used for a moment, by old pages and new ones.
const STEP_BYTES: usize = 2 << 20;

pub(super) struct Open {
    pub(super) machine: ShardMachine,
    pub(super) store: Arc<dyn Store>,
    pub(super) turn: Turn,
    flushing: bool,
    /// Bytes of the overlay at which the next step is due.
    step_at: usize,
    pub(super) sweeping: bool,
    /// The store holds nothing that may go up to this version.
    pub(super) swept: Version,
}

/// The apply half. Only jobs of its replica's lane touch `open`, one at a
/// time, so the mutex is never contended; it is there because a job must be
/// `Send` and the lane is not part of the type system.
pub struct ApplyHalf {
    pub(super) world: World,
    pub(super) replica: ReplicaId,
    actor: ActorRef<ReplicaMessage>,
    queue: Arc<Queue>,
    published: watch::Sender<Published>,
    gauge: MemoryGauge,
    pub(super) gate: Arc<StoreGate>,
    open: Mutex<Option<Open>>,
    /// Whether anybody wants to know which keys are changed.
    noting: AtomicBool,
}

impl fmt::Debug for ApplyHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyHalf").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl ApplyHalf {
    pub(super) fn new(
        world: World,
        replica: ReplicaId,
        (actor, queue): (ActorRef<ReplicaMessage>, Arc<Queue>),
        published: watch::Sender<Published>,
        gauge: MemoryGauge,
        gate: Arc<StoreGate>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world,
            replica,
            actor,
            queue,
            published,
            gauge,
            gate,
            open: Mutex::new(None),
            noting: AtomicBool::new(false),
        })
    }

    /// Whether somebody waits to be told which keys are changed.
    pub(super) fn note_changes(&self, noting: bool) {
        self.noting.store(noting, Ordering::Release);
    }

    /// What all replicas of the node share.
    pub(super) fn budget(&self) -> &NodeBudget {
        &self.gauge.node
    }

    /// Tells the node how much Raft holds in memory here.
    pub(super) fn hold_entries(&self, bytes: usize) {
        self.gauge.set_entries(bytes);
    }

    /// Whether the node has memory for a proposal of this replica.
    pub(super) fn may_propose(&self) -> bool {
        self.gauge.node.may_propose(self.gauge.own.entries.load(Ordering::Relaxed))
    }

    /// Bytes its store can take into pages of its own beside what it must;
    /// none if nobody looked yet.
    pub(super) fn own_room(&self) -> Option<u64> {
        let until = self.gauge.own.grows_until.load(Ordering::Relaxed);
        let taken = self.gauge.own.grown.load(Ordering::Relaxed);
        (until < u64::MAX).then(|| until.saturating_sub(taken))
    }

    /// What the limit of its store leaves, and what of that is taken since somebody
    /// looked.
    pub(super) fn limit(&self) -> (&StoreLimit, u64) {
        let Held { limit, grown, .. } = self.gauge.own.as_ref();
        (limit, grown.load(Ordering::Relaxed))
    }

    /// What readers need, as published last.
    pub(super) fn read_half(&self) -> Option<Arc<ReadHalf>> {
        self.published.borrow().half.clone()
    }

    /// The status as published last.
    pub(super) fn status(&self) -> Option<ReplicaStatus> {
        self.published.borrow().status.clone()
    }

    /// Closed time; zero before the store is open.
    pub(super) fn closed(&self) -> Hlc {
        self.published.borrow().half.as_ref().map_or(Hlc(0), |half| half.reader.closed())
    }

    /// Which clock names its versions, as its root record says; none before the store
    /// is open.
    pub(super) fn versions(&self) -> Option<VersionKind> {
        self.published.borrow().half.as_ref().map(|half| half.reader.versions())
    }

    /// Last version; zero before the store is open.
    pub(super) fn version(&self) -> Version {
        self.published.borrow().half.as_ref().map_or(Version(0), |half| half.reader.version())
    }

    /// The version a read without a version reads at; zero before the store is open.
    pub(super) fn now(&self) -> Version {
        self.published.borrow().half.as_ref().map_or(Version(0), |half| half.reader.now())
    }

    /// History below this version may go; zero before the store is open.
    pub(super) fn floor(&self) -> Version {
        self.published.borrow().half.as_ref().map_or(Version(0), |half| half.reader.floor())
    }

    /// Oldest version that can be read; zero before the store is open.
    pub(super) fn compacted(&self) -> Version {
        self.published.borrow().half.as_ref().map_or(Version(0), |half| half.reader.compacted())
    }

    /// Whether a read at `level` may be answered from here without the leader.
    pub(super) fn serves(&self, level: ReadLevel, now: Hlc) -> bool {
        self.published.borrow().serves(level, now)
    }

    /// Shows the replica's state: `change` adjusts what was shown before.
    pub(super) fn publish_status(
        &self,
        group: Option<GroupStatus>,
        change: impl FnOnce(&mut Option<ReplicaStatus>),
    ) {
        let group = group.map(Arc::new);
        self.published.send_modify(|published| {
            let before = published.leader();
            change(&mut published.status);
            let now = published.leader();
            published.leaders += u64::from(now.is_some() && now != before);
            published.group = group;
        });
    }

    /// Runs `work` in the replica's lane; a panic there stops this replica only.
    pub(super) fn in_lane(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let half = Arc::clone(self);
        let job = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&half))) {
                half.tell(ReplicaMessage::Halted(Halt::for_good(panic_text(panic.as_ref()))));
            }
        };
        self.world.workers.in_order(self.replica, Box::new(job));
    }

    pub(super) fn tell(&self, message: ReplicaMessage) {
        // A stopped replica no longer needs to know.
        let _ = self.actor.cast(message);
    }

    /// Gives birth: a new store with the first root record, both durable; or,
    /// for a joiner, nothing yet.
    pub(super) fn give_birth(self: &Arc<Self>, store: StoreId, writes: Vec<Write>) {
        self.in_lane(move |half| {
            let engine = &half.world.engine;
            let born = engine.create(store).and_then(|created| {
                half.world.reach(FailPoint::BirthStore);
                created.commit(&writes)
            });
            half.world.reach(FailPoint::BirthFilled);
            if matches!(born, Err(EngineError::Full { .. }))
                && let Err(error) = engine.destroy(store)
            {
                // No record names it: the next start puts it aside.
                tracing::debug!(%store, %error, "a store that was never filled stays");
            }
            half.tell(ReplicaMessage::BornInStore(born));
        });
    }

    /// What a joiner has before its first snapshot: nothing.
    pub(super) fn open_without_store(self: &Arc<Self>) {
        let opened = Opened {
            configuration: Configuration::default(),
            descriptor: None,
            applied: LogIndex(0),
            applied_term: Term(0),
        };
        self.tell(ReplicaMessage::Opened(Box::new(Ok(opened))));
    }

    /// Opens the store and the machine in it.
    pub(super) fn open(self: &Arc<Self>, store: StoreId) {
        self.in_lane(move |half| {
            half.tell(ReplicaMessage::Opened(Box::new(half.open_now(store))));
        });
    }

    fn open_now(&self, store: StoreId) -> Result<Opened, Halt> {
        // Before the store is read: what is read must not change under it.
        let turn = self.gate.enter();
        let store = self.world.engine.open(store)?;
        let machine = {
            let view = store.view()?;
            ShardMachine::open(self.replica, view.as_ref())?
        };
        let opened = opened(&machine);
        // Before the first put: the disk looks once a second only.
        let overlay_bytes = machine.overlay_bytes() as u64;
        let grown = self.gauge.own.grown.load(Ordering::Relaxed);
        self.gauge.own.limit.look(store.usage()?, overlay_bytes, grown);
        let swept = Version(0);
        let (flushing, sweeping, step_at) = (false, false, STEP_BYTES);
        let open = Open { machine, store, turn, flushing, step_at, sweeping, swept };
        self.publish(&open);
        *self.lock() = Some(open);
        Ok(opened)
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        // A poisoned half has already reported its panic and is not used again.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, open: &Open) {
        self.gauge.set_overlay(open.machine.overlay_bytes());
        let (reader, store) = (open.machine.reader(), Arc::clone(&open.store));
        let half = ReadHalf { reader, store, swept: open.swept };
        self.published.send_modify(|published| published.half = Some(Arc::new(half)));
    }

    /// Applies committed entries in order.
    pub(super) fn apply(self: &Arc<Self>, entries: Vec<Entry>) {
        self.in_lane(move |half| match half.apply_now(&entries) {
            Ok(batch) => {
                half.world.reach(FailPoint::ApplyDone);
                half.queue.cast(&half.actor, ReplicaMessage::Applied(Box::new(batch)));
            }
            Err(halt) => half.tell(ReplicaMessage::Halted(halt)),
        });
    }

    fn apply_now(&self, entries: &[Entry]) -> Result<AppliedBatch, Halt> {
        let mut guard = self.lock();
        let early = || Halt::for_good("applied before it was open");
        let open = guard.as_mut().ok_or_else(early)?;
        let noting = self.noting.load(Ordering::Acquire);
        let mut changes = Vec::new();
        let (mut outcomes, mut configured) = (Vec::with_capacity(entries.len()), Vec::new());
        let (mut repeated, mut expired) = (0, 0);
        let store = Arc::clone(&open.store);
        let mut view = store.view()?;
        for entry in entries {
            let applied = open.machine.apply(view.as_ref(), entry)?;
            if noting {
                changes.extend(applied.changes);
            }
            repeated += u32::from(applied.repeated);
            expired += applied.expired;
            if let Some(configuration) = applied.configuration {
                let epoch = open.machine.descriptor().epoch;
                configured.push((entry.index, epoch, configuration));
            }
            if let Some(outcome) = applied.outcome {
                outcomes.push((entry.index, entry.term, outcome));
            }
            if self.is_step_due(open) {
                drop(view);
                self.flush_step(open);
                view = store.view()?;
            }
        }
        drop(view);
        self.publish(open);
        let (index, term) = open.machine.applied();
        let descriptor = (!configured.is_empty()).then(|| open.machine.descriptor().clone());
        let (version, changes) = (open.machine.version(), noting.then_some(changes));
        Ok(AppliedBatch {
            index,
            term,
            outcomes,
            descriptor,
            version,
            changes,
            configured,
            repeated,
            expired,
        })
    }

    /// Writes the overlay to the store: copied in the lane, committed beside
    /// it (apply goes on meanwhile), forgotten in the lane. A store that holds
    /// everything already says so at once, for the log may still wait for that.
    pub(super) fn flush(self: &Arc<Self>) {
        self.in_lane(|half| {
            let mut guard = half.lock();
            let Some(open) = guard.as_mut().filter(|open| !open.flushing) else { return };
            let applied = open.machine.applied();
            if open.machine.flushed_index() == applied.0 {
                return half.tell(ReplicaMessage::Flushed(Ok(applied)));
            }
            open.flushing = true;
            let (flush, turn) = (open.machine.flush(), open.turn);
            let store = Arc::clone(&open.store);
            drop(guard);
            let half = Arc::clone(half);
            let world = half.world.clone();
            world.reach(FailPoint::FlushBegun);
            world.workers.beside(Box::new(move || half.commit(store.as_ref(), flush, turn)));
        });
    }

    /// Whether the overlay is large for a disk that has its reserve only, or for a
    /// store that is near its limit. Not while a flush is under way beside: its older
    /// bytes would come last.
    fn is_step_due(&self, open: &Open) -> bool {
        let large = open.machine.overlay_bytes() >= open.step_at;
        large && !open.flushing && (self.budget().is_tight() || self.gauge.own.limit.is_near())
    }

    /// Flushes before more is applied. A delete moves the old value to the
    /// history: a flush of many at once takes as much room as they held, and
    /// gives it back only afterwards; in steps the room of one is that of the
    /// next but one.
    fn flush_step(&self, open: &mut Open) {
        // Growth that a step takes away again is growth all the same.
        self.gauge.set_overlay(open.machine.overlay_bytes());
        let flush = open.machine.flush();
        self.world.reach(FailPoint::FlushBegun);
        let Some(committed) = self.commit_now(open.store.as_ref(), &flush, open.turn) else {
            return;
        };
        open.step_at = match &committed {
            Ok(()) => {
                open.machine.flushed(&flush);
                open.swept = Version(0);
                STEP_BYTES
            }
            // Not again with every entry.
            Err(_) => open.machine.overlay_bytes() + STEP_BYTES,
        };
        self.tell(ReplicaMessage::Flushed(committed.map(|()| flush.applied())));
    }

    /// Commits a flush beside the lane.
    fn commit(self: &Arc<Self>, store: &dyn Store, flush: Flush, turn: Turn) {
        if let Some(committed) = self.commit_now(store, &flush, turn) {
            self.in_lane(move |half| half.flushed(&flush, turn, committed));
        }
    }

    /// Commits a flush, unless its store has passed to another opening.
    fn commit_now(&self, store: &dyn Store, flush: &Flush, turn: Turn) -> Option<Result<(), Halt>> {
        self.gate.commit(turn, || {
            let commit = || store.commit(&flush.writes()).map_err(Halt::from);
            self.world.reach(FailPoint::FlushCommit);
            let committed = catch_unwind(AssertUnwindSafe(commit))
                .unwrap_or_else(|panic| Err(Halt::for_good(panic_text(panic.as_ref()))));
            self.world.reach(FailPoint::FlushCommitted);
            committed
        })
    }

    fn flushed(&self, flush: &Flush, turn: Turn, committed: Result<(), Halt>) {
        let mut guard = self.lock();
        // Another store is open by now: what the old one proves says nothing of it.
        let Some(open) = guard.as_mut().filter(|open| open.turn == turn) else { return };
        open.flushing = false;
        if committed.is_ok() {
            open.machine.flushed(flush);
            // It may have brought what was overwritten before it came.
            open.swept = Version(0);
            self.publish(open);
        }
        self.tell(ReplicaMessage::Flushed(committed.map(|()| flush.applied())));
    }

    /// Forgets machine and store, so that the store can be replaced. A flush or
    /// sweep that was begun and not yet committed never is.
    pub(super) fn close(self: &Arc<Self>, then: impl FnOnce() + Send + 'static) {
        self.in_lane(|half| {
            half.gate.enter();
            *half.lock() = None;
            half.gauge.set_overlay(0);
            half.published.send_modify(|published| published.half = None);
            then();
        });
    }
}

fn opened(machine: &ShardMachine) -> Opened {
    let (applied, applied_term) = machine.applied();
    Opened {
        configuration: machine.configuration().clone(),
        descriptor: Some(machine.descriptor().clone()),
        applied,
        applied_term,
    }
}

/// The text of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic in an engine job: {}", text.as_deref().unwrap_or("(no text)"))
}
