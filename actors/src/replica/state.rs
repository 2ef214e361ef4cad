//! The Raft half's state: core, journal, and what waits for either.

use std::{collections::BTreeMap, sync::Arc};

use cluster::{
    catalog::{controller::ObservedShard, record::Loss},
    ids::{CATALOG_SHARD, Epoch, LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term, VolumeId},
    mvcc::{
        tally::Tally,
        version::{Version, VersionKind},
    },
    ports::log::RecoveredReplica,
    raft::{Effects, Group, Input, types::Message},
    request::ReplicaStatus,
    shard::{descriptor::ShardDescriptor, reader::Reader, root::ShardRole},
};
use ractor::ActorRef;

use super::{
    ReplicaArguments,
    apply::ApplyHalf,
    calls::Calls,
    halt::Halt,
    journal::Journal,
    messages::{Beginning, ReplicaMessage},
    rounds::Rounds,
    snapshots::Snapshots,
    ticker::Ticker,
    watches::Watches,
};
use tokio::sync::{oneshot, watch};

use crate::{
    admission::Permit,
    disk::StoreIds,
    outbox::Outbox,
    probe::Report,
    queue::{Queue, Round},
    volumes::VolumesMessage,
    world::{Space, World},
};

/// Bytes of recent entries one replica keeps in memory for slow followers.
pub(super) const LOG_MEMORY_BYTES_MAX: usize = 8 << 20;
/// Bytes of entries after which the core runs though more may wait: with one
/// largest entry over it and what is joined, a record stays below 16 MiB.
const RUN_BYTES_MAX: usize = 4 << 20;
/// Replicas whose nodes one replica remembers: seven voters, as many being
/// moved, and some that left. Beyond it only the descriptor's are kept.
const NODES_MAX: usize = 64;

/// Entries a learner may lack and still count as caught up: a few batches of a
/// busy shard, and less than what the core asks for a promotion.
const CAUGHT_UP_ENTRIES: u64 = 512;

/// Where a replica stands in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its log is being asked, after a failure.
    Asking {
        /// It is to be destroyed as soon as it is known where its data lies.
        doomed: bool,
    },
    /// Its store is being opened, or born.
    Opening(Option<RecoveredReplica>),
    /// It takes part.
    Running(Box<Group>),
    /// It stopped or is lost; the cause is what everyone is told.
    Stopped(String),
    /// It is being destroyed.
    Destroying,
}

/// Facts that never change.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) shard: ShardId,
    pub(super) volume: VolumeId,
    pub(super) replica: ReplicaId,
    /// How versions count if this one is a founder; all others read their root record.
    pub(super) founder_versions: VersionKind,
    pub(super) role: ShardRole,
}

/// State of a replica.
#[derive(Debug)]
pub struct ReplicaState {
    pub(super) myself: ActorRef<ReplicaMessage>,
    /// Names node, shard and replica in every line that is logged.
    pub(super) span: tracing::Span,
    pub(super) world: World,
    pub(super) facts: Facts,
    pub(super) outbox: Outbox,
    pub(super) stores: Arc<StoreIds>,
    pub(super) half: Arc<ApplyHalf>,
    pub(super) phase: Phase,
    /// What happened to it, if it is lost.
    pub(super) loss: Option<Loss>,
    volumes: ActorRef<VolumesMessage>,
    pub(super) store: StoreId,
    /// The shard as last known; by it replicas are found on nodes.
    pub(super) descriptor: ShardDescriptor,
    pub(super) journal: Journal,
    pub(super) calls: Calls,
    pub(super) rounds: Rounds,
    /// Whether a timer is set for what followers do not know yet.
    pub(super) commit_looked_after: bool,
    pub(super) watches: Watches,
    pub(super) snapshots: Snapshots,
    pub(super) applied: (LogIndex, Term),
    /// Position up to which the log was told it may forget.
    pub(super) trimmed: LogIndex,
    /// Position the store is known to prove, and its term.
    pub(super) proven: (LogIndex, Term),
    /// Where replicas of this shard lie: by descriptor, by changes on their way
    /// and by the certificates of those who were heard.
    pub(super) nodes: BTreeMap<ReplicaId, NodeId>,
    pub(super) space: watch::Receiver<Space>,
    pub(super) effects: Effects,
    /// Room of the effects before, for the next.
    pub(super) spent_effects: Effects,
    /// Whether to stand for election at once when the core starts.
    pub(super) eager: bool,
    /// One run of the core for all that waits.
    pub(super) round: Round,
    /// What waits in its mailbox is counted here.
    pub(super) queue: Arc<Queue>,
    /// While its shard is awake.
    ticker: Option<Ticker>,
    /// Rounds of reads as last counted.
    pub(super) read_rounds: u64,
    /// Bytes given to the core since its last run.
    pub(super) fed_bytes: usize,
    /// When a full disk last made it give leadership away.
    pub(super) handed_over: Option<cluster::units::Instant>,
}

impl ReplicaState {
    /// Begins as told: by birth, from the log, or after a failure.
    pub(super) fn begin(myself: ActorRef<ReplicaMessage>, arguments: ReplicaArguments) -> Self {
        let ReplicaArguments {
            world,
            shard,
            volume,
            replica,
            founder_versions,
            role,
            beginning,
            outbox,
            stores,
            memory,
            gate,
            space,
            partial,
            volumes,
            filled,
            published,
            queue,
        } = arguments;
        let way = (myself.clone(), queue.clone());
        let half = ApplyHalf::new(world.clone(), replica, way, published, memory, gate);
        let facts = Facts { shard, volume, replica, founder_versions, role };
        let node = world.identity.node;
        let span = tracing::info_span!("replica", %node, %shard, %replica);
        let mut state = Self {
            span,
            myself,
            descriptor: unknown(&facts),
            facts,
            outbox,
            stores,
            half,
            phase: Phase::Opening(None),
            loss: None,
            volumes,
            store: StoreId(0),
            journal: Journal::default(),
            calls: Calls::default(),
            rounds: Rounds::default(),
            commit_looked_after: false,
            watches: Watches::default(),
            snapshots: Snapshots::new(partial, filled),
            applied: (LogIndex(0), Term(0)),
            trimmed: LogIndex(0),
            proven: (LogIndex(0), Term(0)),
            nodes: BTreeMap::new(),
            space,
            effects: Effects::default(),
            spent_effects: Effects::default(),
            eager: false,
            round: Round::new(queue.clone()),
            queue,
            ticker: None,
            fed_bytes: 0,
            read_rounds: 0,
            handed_over: None,
            world,
        };
        match beginning {
            Beginning::Founder(descriptor) => state.found(descriptor),
            Beginning::Joiner(descriptor) => state.join(descriptor),
            Beginning::Recovered(recovered) => state.take_log(recovered),
            Beginning::Restarted => state.ask_log(),
        }
        state
    }

    /// Feeds the core one input; its effects run when the mailbox is drained.
    pub(super) fn input(&mut self, input: Input) {
        let now = self.world.clock.now();
        if let Phase::Running(group) = &mut self.phase {
            group.step(now, input, &mut self.effects);
            self.round.begin();
        }
    }

    /// The core was fed so many bytes of entries. Those of one run are one
    /// record, and that must fit a segment of the log: run in time.
    pub(super) fn fed(&mut self, bytes: usize) {
        self.fed_bytes += bytes;
        if self.fed_bytes >= RUN_BYTES_MAX {
            self.fed_bytes = 0;
            self.input(Input::Ready);
        }
    }

    /// Runs the core if all that waited is in. What the run itself brings in is
    /// run after what came meanwhile.
    pub(super) fn end_round(&mut self) {
        if self.round.end() {
            self.run();
            if self.round.has_begun() {
                let _ = self.myself.cast(ReplicaMessage::Run);
            }
        }
    }

    /// Runs the core on all that came in, and does what it asks.
    fn run(&mut self) {
        self.fed_bytes = 0;
        let now = self.world.clock.now();
        if let Phase::Running(group) = &mut self.phase {
            group.step(now, Input::Ready, &mut self.effects);
            let bytes_max =
                if self.half.budget().entries_grow() { 0 } else { LOG_MEMORY_BYTES_MAX };
            group.keep_at_most(bytes_max);
            let glance = group.glance();
            self.half.hold_entries(glance.memory_bytes);
            let rounds = glance.read_rounds;
            let fresh = rounds.saturating_sub(self.read_rounds);
            self.read_rounds = rounds;
            if fresh > 0 {
                metrics::counter!(crate::metrics::READ_ROUNDS).increment(fresh);
            }
        }
        self.run_effects();
        self.append();
        self.begin_next_round();
        self.look_after_commit();
    }

    /// A message of another replica of the shard.
    pub(super) fn deliver(
        &mut self,
        from: ReplicaId,
        node: NodeId,
        message: Message,
        permit: &Permit,
    ) {
        if !self.hear(from, node) {
            return;
        }
        self.input(Input::Message { from, message });
        self.fed(permit.bytes());
        self.wake();
    }

    /// Whether `node` may speak for `from`. A replica never moves, so whoever
    /// is known to lie elsewhere is somebody else; one that is not known (a
    /// leader newer than our descriptor) is believed once.
    fn hear(&mut self, from: ReplicaId, node: NodeId) -> bool {
        match self.nodes.get(&from) {
            Some(known) if *known == node => true,
            Some(known) => {
                let cause = format!("it speaks for {from}, which lies on {known}");
                self.world.probe.report(Report::PeerRefused { peer: node, cause });
                false
            }
            None => {
                self.learn_node(from, node);
                true
            }
        }
    }

    /// Remembers where a replica lies; forgets those that left when there are
    /// too many.
    pub(super) fn learn_node(&mut self, replica: ReplicaId, node: NodeId) {
        if self.nodes.len() >= NODES_MAX {
            let members = &self.descriptor.replicas;
            self.nodes.retain(|known, _| members.iter().any(|member| member.replica == *known));
        }
        self.nodes.insert(replica, node);
    }

    /// One step of Raft time.
    pub(super) fn tick(&mut self) {
        if let Some(ticker) = &self.ticker {
            ticker.ticked();
        }
        let now = self.world.clock.now();
        if let Phase::Running(group) = &mut self.phase {
            group.step(now, Input::Tick, &mut self.effects);
            self.round.begin();
        }
        self.calls.expire(now);
        if self.facts.shard == CATALOG_SHARD {
            // The controller waits for learners that catch up in silence.
            self.publish();
        }
        if self.asleep() {
            self.ticker = None;
        }
    }

    fn asleep(&self) -> bool {
        match &self.phase {
            Phase::Running(group) => group.glance().hibernating,
            Phase::Asking { .. } | Phase::Opening(_) | Phase::Stopped(_) | Phase::Destroying => {
                true
            }
        }
    }

    /// Ticks again if the shard is awake.
    pub(super) fn wake(&mut self) {
        if self.ticker.is_none() && !self.asleep() {
            self.ticker = Some(Ticker::start(self.myself.clone(), self.world.clock.clone()));
        }
    }

    /// The link to a node was lost: if the shard sleeps, it must look whether
    /// its leader lives.
    pub(super) fn link_lost(&mut self, node: NodeId) {
        if self.nodes.values().any(|known| *known == node) {
            self.input(Input::Wake);
            self.wake();
        }
    }

    /// Ends this replica's part and says so to everyone who asks; one that is
    /// lost, to the catalog too, which replaces it. The process and all other
    /// replicas go on.
    pub(super) fn halt(&mut self, Halt { cause, loss }: Halt) {
        if matches!(self.phase, Phase::Destroying | Phase::Stopped(_)) {
            return; // What it may still fail at no longer matters.
        }
        let Facts { shard, replica, volume, .. } = self.facts;
        let report = if let Some(loss) = loss {
            metrics::counter!(crate::metrics::LOST).increment(1);
            let cause = cause.clone();
            let lost = VolumesMessage::ReplicaLost { shard, replica, volume, loss, cause };
            let _ = self.volumes.cast(lost);
            Report::ReplicaLost { shard, replica, loss }
        } else {
            metrics::counter!(crate::metrics::STOPPED).increment(1);
            Report::ReplicaStopped { shard, replica, cause: cause.clone() }
        };
        tracing::error!(?loss, %cause, "the replica takes no part any more");
        self.world.probe.report(report);
        self.loss = loss;
        self.phase = Phase::Stopped(cause);
        self.effects = Effects::default();
        self.interrupt_all();
        self.let_go();
        self.publish();
    }

    /// Stops for a human to look.
    pub(super) fn stop_for_good(&mut self, cause: impl Into<String>) {
        self.halt(Halt::for_good(cause));
    }

    /// Shows the shard as this replica's log has it, if it leads.
    pub(super) fn examine(&self, reply: oneshot::Sender<Option<ObservedShard>>) {
        let Phase::Running(group) = &self.phase else { return drop(reply.send(None)) };
        let group = group.status();
        let caught_up = group
            .peers
            .iter()
            .filter(|peer| peer.live && !peer.snapshot)
            .filter(|peer| peer.matched.0 + CAUGHT_UP_ENTRIES >= group.last.0)
            .map(|peer| peer.replica)
            .collect();
        let applying = group.epoch != self.descriptor.epoch;
        let observed = ObservedShard {
            descriptor: self.descriptor.clone(),
            changing: group.configuration.is_joint() || applying,
            caught_up,
        };
        drop(reply.send(group.leading.then_some(observed)));
    }

    /// Gives back what only a replica that takes part needs: overlay, store,
    /// pins and fetches.
    pub(super) fn let_go(&mut self) {
        self.snapshots.unpin_all();
        self.end_watches();
        self.discard_fetch();
        self.half.hold_entries(0);
        self.half.close(|| {});
    }

    /// Shows the state to routers and status.
    pub(super) fn publish(&self) {
        let (replica, applied) = (self.facts.replica, self.applied.0);
        let (descriptor, version) = (&self.descriptor, self.half.version());
        let half = self.half.read_half();
        let reader = half.as_ref().map(|half| &half.reader);
        let (glance, group, stopped) = match &self.phase {
            Phase::Running(group) => {
                // Only the catalog's controller looks closer.
                let closer = (self.facts.shard == CATALOG_SHARD).then(|| group.status());
                (Some(group.glance()), closer, None)
            }
            Phase::Stopped(cause) => (None, None, Some(cause.clone())),
            Phase::Asking { .. } | Phase::Opening(_) | Phase::Destroying => (None, None, None),
        };
        let leader = glance.and_then(|glance| glance.leader).and_then(|id| self.node_of(id));
        self.half.publish_status(group, |shown| {
            // A descriptor changes rarely, and this runs with every batch.
            let known = shown.take().map(|shown| shown.descriptor);
            *shown = Some(ReplicaStatus {
                replica,
                descriptor: known
                    .filter(|known| known == descriptor)
                    .unwrap_or_else(|| descriptor.clone()),
                leading: glance.is_some_and(|glance| glance.leading),
                leader,
                term: glance.map_or(0, |glance| glance.term.0),
                committed: glance.map_or(applied, |glance| glance.committed),
                applied,
                last: glance.map_or(applied, |glance| glance.last),
                hibernating: glance.is_some_and(|glance| glance.hibernating),
                version,
                compacted: reader.map_or(Version(0), Reader::compacted),
                tally: reader.map_or_else(Tally::default, Reader::tally),
                restoring: reader.is_some_and(|reader| reader.check_whole().is_err()),
                stopped,
            });
        });
    }

    /// The node a replica lies on.
    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.nodes.get(&replica).copied()
    }

    /// Takes a descriptor over, and where it says replicas lie.
    pub(super) fn describe(&mut self, descriptor: ShardDescriptor) {
        self.descriptor = descriptor;
        for replica in self.descriptor.replicas.clone() {
            self.learn_node(replica.replica, replica.node);
        }
    }
}

/// A descriptor before anything is known.
fn unknown(facts: &Facts) -> ShardDescriptor {
    ShardDescriptor {
        shard: facts.shard,
        volume: facts.volume,
        epoch: Epoch(0),
        predicate: cluster::shard::descriptor::Predicate::all(),
        replicas: Vec::new(),
    }
}
