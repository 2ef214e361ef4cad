//! Snapshots at a replica: states pinned for others, and one fetched for itself.
//!
//! The sender keeps a reader aside and answers pieces on reading threads. The
//! receiver pulls piece after piece into a new store, so that it sets the
//! pace; each piece is committed with its progress, and a receiver that dies
//! goes on where its store stands. A fetch that is no longer wanted is told
//! so and ends between two pieces: killed in the middle of one it would leave
//! a store behind that nobody knows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::{
    ids::{Epoch, LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term},
    mvcc::version::Version,
    ports::{engine::Store, log::LogRecord, network::RequestClass},
    raft::{
        Input,
        types::{HardState, SnapshotOffer},
    },
    request::{Answer, Fault, Request, SnapshotPiece, SnapshotPieceRequest},
    shard::snapshot::{PinnedSnapshot, SnapshotError, SnapshotReceiver, snapshot_piece},
    units::Instant,
};
use tokio::sync::oneshot;

use super::{
    halt::snapshot_halt,
    journal::Written,
    messages::ReplicaMessage,
    state::{Phase, ReplicaState},
};
use crate::{disk::StoreIds, failpoint::FailPoint, probe::Report, world::World};

/// Bytes of one piece: large enough to keep a disk busy, small enough for a
/// short read transaction.
const PIECE_BYTES: u32 = 1 << 20;
/// Time for one piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of one piece before the fetch is given up; Raft then offers anew.
const PIECE_TRIES: u32 = 6;
/// Pause between tries.
const PIECE_PAUSE: Duration = Duration::from_millis(500);
/// Time without a fetch after one that failed where room is scarce. A sender
/// keeps its history while a state is pinned: fetches without an end on a full
/// disk would keep all disks full.
const SCARCE_REST: Duration = Duration::from_secs(30);

/// A state kept aside for one receiver.
#[derive(Debug)]
struct Pin {
    snapshot: Arc<PinnedSnapshot>,
    store: Arc<dyn Store>,
}

/// A fetch under way, or done and waiting to be installed.
#[derive(Debug)]
struct Fetch {
    id: u64,
    from: ReplicaId,
    /// Set when its outcome no longer matters.
    ended: Arc<AtomicBool>,
    store: Option<StoreId>,
}

/// Pins and fetches of one replica.
#[derive(Debug)]
pub(super) struct Snapshots {
    pins: BTreeMap<u64, Pin>,
    fetch: Option<Fetch>,
    /// Stores that hold part of a snapshot for this replica.
    partial: Vec<StoreId>,
    /// What is being installed: its store and position.
    installing: Option<(StoreId, LogIndex, Term)>,
    /// Offers are declined until then.
    rests_until: Option<Instant>,
    /// How much has come, in percent, for people.
    filled: Arc<AtomicUsize>,
}

impl Snapshots {
    pub(super) fn new(partial: Vec<StoreId>, filled: Arc<AtomicUsize>) -> Self {
        let (pins, fetch, installing, rests_until) = (BTreeMap::new(), None, None, None);
        Self { pins, fetch, partial, installing, rests_until, filled }
    }

    /// A pinned state is no longer needed.
    pub(super) fn unpin(&mut self, id: u64) {
        self.pins.remove(&id);
    }

    /// The version up to which no pinned state needs the history; all if
    /// nothing is pinned.
    pub(super) fn sweepable(&self) -> Version {
        let pinned = self.pins.values().map(|pin| pin.snapshot.reader().floor());
        pinned.min().unwrap_or(Version(u64::MAX))
    }

    /// This replica no longer serves anybody.
    pub(super) fn unpin_all(&mut self) {
        self.pins.clear();
    }

    /// Stores that were being received, to be deleted with the replica.
    pub(super) fn all_stores(&mut self) -> Vec<StoreId> {
        let mut stores = std::mem::take(&mut self.partial);
        stores.extend(self.installing.take().map(|(store, ..)| store));
        stores
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if let Some(fetch) = &self.fetch {
            fetch.ended.store(true, Ordering::Release);
        }
    }
}

impl ReplicaState {
    /// Keeps the applied state aside for a replica that fell behind.
    pub(super) fn pin_snapshot(&mut self, id: u64, to: ReplicaId) {
        let Some(half) = self.half.read_half() else {
            return self.input(Input::SnapshotPinFailed { id });
        };
        let bytes = half.store.usage().map_or(0, |usage| usage.used_bytes);
        let snapshot = Arc::new(PinnedSnapshot::new(half.reader.clone(), bytes));
        let (index, term) = snapshot.applied();
        let configuration = half.reader.configuration().clone();
        tracing::info!(shard = %self.facts.shard, %to, %index, "state pinned for a replica that fell behind");
        self.world.reach(FailPoint::SnapshotPinned);
        self.snapshots.pins.insert(id, Pin { snapshot, store: Arc::clone(&half.store) });
        let (shard, replica) = (self.facts.shard, self.facts.replica);
        self.world.probe.report(Report::SnapshotPinned { shard, replica, index });
        self.input(Input::SnapshotPinned { id, index, term, configuration });
    }

    /// Answers a receiver with the next piece, on a reading thread.
    pub(super) fn snapshot_piece(
        &mut self,
        request: SnapshotPieceRequest,
        reply: oneshot::Sender<Result<SnapshotPiece, Fault>>,
    ) {
        let Some(pin) = self.snapshots.pins.get(&request.id) else {
            let gone = Fault::Invalid(format!("snapshot {} is no longer pinned here", request.id));
            drop(reply.send(Err(gone)));
            return;
        };
        let (snapshot, store) = (Arc::clone(&pin.snapshot), Arc::clone(&pin.store));
        let myself = self.myself.clone();
        self.world.workers.beside(Box::new(move || {
            let bytes_max = usize::try_from(request.bytes_max.min(PIECE_BYTES)).unwrap_or(0);
            let piece = store.view().map_err(SnapshotError::from).and_then(|view| {
                snapshot_piece(&snapshot, view.as_ref(), &request.after, bytes_max)
            });
            let piece = piece.map_err(|error| {
                if let Some(halt) = snapshot_halt(&error) {
                    let _ = myself.cast(ReplicaMessage::Halted(halt));
                }
                Fault::Stopped(error.to_string())
            });
            let _ = reply.send(piece);
        }));
    }

    /// Begins to fetch an offered snapshot; an older fetch ends.
    pub(super) fn fetch_snapshot(&mut self, from: ReplicaId, offer: &SnapshotOffer) {
        self.discard_fetch();
        let node = self.node_of(from).filter(|_| !self.rests());
        let Some(node) = node else {
            return self.input(Input::SnapshotFailed { from, id: offer.id });
        };
        let ended = Arc::new(AtomicBool::new(false));
        let fetcher = Fetcher {
            ended: Arc::clone(&ended),
            world: self.world.clone(),
            stores: Arc::clone(&self.stores),
            shard: self.facts.shard,
            replica: self.facts.replica,
            node,
            id: offer.id,
            filled: Arc::clone(&self.snapshots.filled),
        };
        let (myself, id) = (self.myself.clone(), offer.id);
        let mut partial = std::mem::take(&mut self.snapshots.partial);
        partial.retain(|store| *store != self.store);
        tokio::spawn(async move {
            let result = fetcher.run(partial).await;
            // A replica that is gone leaves the store to the next start.
            let _ = myself.cast(ReplicaMessage::SnapshotFetched { id, result });
        });
        self.snapshots.fetch = Some(Fetch { id, from, ended, store: None });
    }

    /// The fetch ended: all is here, or not.
    pub(super) fn snapshot_fetched(
        &mut self,
        id: u64,
        result: Result<(StoreId, Epoch), FetchError>,
    ) {
        let wanted = |fetch: &&mut Fetch| fetch.id == id && fetch.store.is_none();
        let Some(fetch) = self.snapshots.fetch.as_mut().filter(wanted) else {
            return self.fetched_in_vain(result);
        };
        let from = fetch.from;
        match result {
            Ok((store, epoch)) => {
                self.world.reach(FailPoint::SnapshotWhole);
                fetch.store = Some(store);
                self.input(Input::SnapshotFetched { from, id, epoch });
            }
            Err(error) => {
                tracing::warn!(shard = %self.facts.shard, cause = %error.cause, "a snapshot could not be fetched");
                self.snapshots.fetch = None;
                self.keep_or_clear(error.partial);
                self.input(Input::SnapshotFailed { from, id });
            }
        }
    }

    /// Keeps what came for the next fetch; where room is scarce it goes.
    fn keep_or_clear(&mut self, partial: Option<StoreId>) {
        if !self.half.budget().is_scarce() {
            return self.snapshots.partial.extend(partial);
        }
        if let Some(store) = partial {
            self.destroy_store(store);
        }
        self.snapshots.rests_until = Some(self.world.clock.now() + SCARCE_REST);
    }

    /// Whether offers are declined until the rest is over.
    fn rests(&self) -> bool {
        self.snapshots.rests_until.is_some_and(|until| self.world.clock.now() < until)
    }

    /// A fetch that was given up has ended: what came may serve the next one.
    fn fetched_in_vain(&mut self, result: Result<(StoreId, Epoch), FetchError>) {
        let store = match result {
            Ok((store, _)) => Some(store),
            Err(error) => error.partial,
        };
        match &self.phase {
            Phase::Destroying | Phase::Stopped(_) => {
                if let Some(store) = store {
                    self.destroy_store(store);
                }
            }
            Phase::Asking { .. } | Phase::Opening(_) | Phase::Running(_) => {
                self.snapshots.partial.extend(store);
            }
        }
    }

    /// A fetched snapshot is not needed after all.
    pub(super) fn discard_snapshot(&mut self, id: u64) {
        if self.snapshots.fetch.as_ref().is_some_and(|fetch| fetch.id == id) {
            self.discard_fetch();
        }
    }

    pub(super) fn discard_fetch(&mut self) {
        let Some(fetch) = self.snapshots.fetch.take() else { return };
        fetch.ended.store(true, Ordering::Release);
        if let Some(store) = fetch.store {
            self.destroy_store(store);
        }
    }

    /// Makes a fetched store this replica's, by one log record.
    pub(super) fn install_snapshot(
        &mut self,
        number: u64,
        id: u64,
        (index, term): (LogIndex, Term),
        hard_state: HardState,
    ) {
        let store = self
            .snapshots
            .fetch
            .take()
            .filter(|fetch| fetch.id == id)
            .and_then(|fetch| fetch.store);
        let Some(store) = store else {
            return self
                .stop_for_good(format!("snapshot {id} was to be installed but is not here"));
        };
        self.world.reach(FailPoint::SnapshotInstall);
        self.snapshots.installing = Some((store, index, term));
        self.snapshots.filled.store(100, Ordering::Relaxed);
        // What a flush of the old store still proves is behind this.
        self.trimmed = index;
        let record = LogRecord::Installed { store, index, term, hard_state };
        self.journal.push(Written::Installed(number), record);
    }

    /// The record is durable: read and apply from the new store on.
    pub(super) fn snapshot_installed(&mut self, number: u64) {
        let Some((store, index, term)) = self.snapshots.installing.take() else { return };
        self.world.reach(FailPoint::SnapshotNamed);
        let old = std::mem::replace(&mut self.store, store);
        self.half.close(|| {});
        self.half.open(store);
        if old != StoreId(0) {
            self.destroy_store(old);
        }
        self.applied = (index, term);
        self.proven = (LogIndex(0), Term(0));
        let (shard, replica) = (self.facts.shard, self.facts.replica);
        self.world.probe.report(Report::SnapshotInstalled { shard, replica, index });
        self.input(Input::Persisted { number });
    }

    /// Deletes a store no record names, in the replica's lane.
    fn destroy_store(&self, store: StoreId) {
        let engine = Arc::clone(&self.world.engine);
        self.world.workers.in_order(
            self.facts.replica,
            Box::new(move || {
                if let Err(error) = engine.destroy(store) {
                    tracing::warn!(%store, %error, "a store could not be deleted");
                }
            }),
        );
    }
}

/// Why a fetch ended, and the store that holds what came.
#[derive(Debug)]
pub struct FetchError {
    /// What went wrong.
    pub cause: String,
    /// The part received, to go on from.
    pub partial: Option<StoreId>,
}

/// Pulls one snapshot into a store.
#[derive(Debug)]
struct Fetcher {
    ended: Arc<AtomicBool>,
    world: World,
    stores: Arc<StoreIds>,
    shard: ShardId,
    replica: ReplicaId,
    node: NodeId,
    id: u64,
    filled: Arc<AtomicUsize>,
}

/// A store being filled.
type Filling = (StoreId, Arc<dyn Store>, SnapshotReceiver);

impl Fetcher {
    async fn run(self, partial: Vec<StoreId>) -> Result<(StoreId, Epoch), FetchError> {
        let begun =
            self.begin(partial).await.map_err(|cause| FetchError { cause, partial: None })?;
        let (id, store, mut receiver) = begun;
        let failed = |cause| FetchError { cause, partial: Some(id) };
        tracing::info!(shard = %self.shard, from = %self.node, resumed_bytes = receiver.received_bytes(), "fetching a snapshot");
        if receiver.received_bytes() > 0 {
            let (shard, replica) = (self.shard, self.replica);
            self.world.probe.report(Report::SnapshotResumed { shard, replica });
        }
        self.world.reach(FailPoint::SnapshotBegun);
        while !receiver.is_complete() {
            if self.ended.load(Ordering::Acquire) {
                return Err(failed("it is no longer wanted".to_owned()));
            }
            let piece = self.piece(receiver.position().to_vec()).await.map_err(failed)?;
            let (sent, all) = piece.progress;
            let percent = usize::try_from(sent * 100 / all.max(1)).unwrap_or(0);
            // The size is an estimate, and the installing is still to come.
            self.filled.store(percent.min(99), Ordering::Relaxed);
            let (store, world) = (Arc::clone(&store), self.world.clone());
            receiver = on_worker(&self.world, move || {
                let writes = receiver.accept(&piece).map_err(|error| error.to_string())?;
                store.commit(&writes).map_err(|error| error.to_string())?;
                world.reach(FailPoint::SnapshotPiece);
                Ok(receiver)
            })
            .await
            .map_err(failed)?;
        }
        let replica = self.replica;
        let epoch = on_worker(&self.world, move || {
            let view = store.view().map_err(|error| error.to_string())?;
            let machine = cluster::shard::machine::ShardMachine::open(replica, view.as_ref())
                .map_err(|error| error.to_string())?;
            Ok(machine.descriptor().epoch)
        })
        .await
        .map_err(failed)?;
        Ok((id, epoch))
    }

    /// Goes on in a store that holds part of this very snapshot, or begins in
    /// a new one; parts of others are deleted.
    async fn begin(&self, partial: Vec<StoreId>) -> Result<Filling, String> {
        let (engine, fresh) = (Arc::clone(&self.world.engine), self.stores.next());
        let (replica, id) = (self.replica, self.id);
        on_worker(&self.world, move || {
            let mut found: Option<Filling> = None;
            for candidate in partial {
                let resumed = engine.open(candidate).ok().and_then(|store| {
                    let receiver =
                        SnapshotReceiver::resume(store.view().ok()?.as_ref(), replica, id)
                            .ok()??;
                    Some((candidate, store, receiver))
                });
                match resumed {
                    Some(resumed) if found.is_none() => found = Some(resumed),
                    Some(_) | None => {
                        let _ = engine.destroy(candidate);
                    }
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
            let store = engine.create(fresh).map_err(|error| error.to_string())?;
            Ok((fresh, store, SnapshotReceiver::new(replica, id)))
        })
        .await
    }

    /// One piece, tried a few times: a lost connection costs a pause.
    async fn piece(&self, after: Vec<u8>) -> Result<SnapshotPiece, String> {
        let request = SnapshotPieceRequest {
            shard: self.shard,
            replica: self.replica,
            id: self.id,
            after,
            bytes_max: PIECE_BYTES,
        };
        let body = bytes::Bytes::from(Request::SnapshotPiece(request).encode());
        let mut cause = String::new();
        for _ in 0..PIECE_TRIES {
            let network = &self.world.network;
            match network.request(self.node, RequestClass::Bulk, body.clone(), PIECE_TIMEOUT).await
            {
                Ok(bytes) => match Answer::decode(&bytes) {
                    Ok(Answer::SnapshotPiece(piece)) => return Ok(piece),
                    Ok(Answer::Fault(fault)) => return Err(fault.to_string()),
                    Ok(_) => return Err("the sender answered something else".to_owned()),
                    Err(error) => return Err(error.to_string()),
                },
                Err(error) => cause = error.to_string(),
            }
            tokio::time::sleep(PIECE_PAUSE).await;
        }
        Err(cause)
    }
}

/// Runs blocking work on a worker and waits for it.
async fn on_worker<T: Send + 'static>(
    world: &World,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    world.workers.beside(Box::new(move || {
        let _ = done.send(work());
    }));
    result.await.unwrap_or_else(|_| Err("the node is stopping".to_owned()))
}
