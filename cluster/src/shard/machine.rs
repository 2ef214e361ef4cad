//! The replicated state machine: one log entry in, one outcome out.
//!
//! What an entry does depends on the entry and the state alone, so every
//! replica that applies the same log has the same state. Changes go to the
//! overlay; a flush later takes them to the store together with the root record
//! that says how far they reach, so data and applied position never part.
//!
//! Invariants:
//! - an entry is applied whole or, when the engine fails, not at all;
//! - entries are applied in order without gaps;
//! - an entry that cannot be understood stops the replica, it is never skipped;
//! - the hybrid clock rises with every write, the dense counter only with
//!   commands that change a key (a delete of nothing does not);
//! - the compacted version never falls and never passes what is closed.

mod account;
mod lease;
mod restore;
mod transact;

pub(super) use transact::look;

use super::{
    command::{Action, Command, CommandError, Op, Outcome, Refusal},
    configuration,
    descriptor::ShardDescriptor,
    leases::Leases,
    reader::Reader,
    root::{Mark, Root, RootError, ShardRole},
    sessions::Admission,
    sweep::swept,
};
use bytes::Bytes;

use crate::{
    auth::Principal,
    catalog::{apply, command::CatalogCommand},
    ids::{LeaseId, LogIndex, ReplicaId, SessionId, Term},
    limits::KEY_BYTES_MAX,
    mvcc::{
        draft::{Draft, Stamp},
        layout::root_key,
        overlay::{Change, Frozen, Overlay},
        version::{Hlc, Version, VersionKind},
    },
    ports::engine::{EngineError, Tree, View, Write},
    raft::types::{Configuration, ConfigurationChange, Entry, Payload},
    shard::catalog_records::StagedRecords,
};

/// Why a replica cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The store knows nothing of this replica.
    #[error("the store holds no {0}")]
    Missing(ReplicaId),
    /// Its root record cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The store could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why an entry was not applied. The replica stops; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Not the entry that follows the last applied one.
    #[error("entry {found} cannot follow the applied entry {applied}")]
    OutOfOrder {
        /// Last applied.
        applied: LogIndex,
        /// Given.
        found: LogIndex,
    },
    /// The entry carries something this release cannot execute.
    #[error("entry {index}: {cause}")]
    Unknown {
        /// Which entry.
        index: LogIndex,
        /// What is wrong with it.
        cause: CommandError,
    },
    /// The view was opened before the last flush it must contain.
    #[error("the view stands at {view}, the overlay begins after {flushed}: open views later")]
    ViewTooOld {
        /// Where the view stands.
        view: LogIndex,
        /// What it must hold.
        flushed: LogIndex,
    },
    /// The replica's root record cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The store could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What applying one entry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Which entry.
    pub index: LogIndex,
    /// What its proposer is told; none for entries without a command.
    pub outcome: Option<Outcome>,
    /// The new configuration, if the entry changed it.
    pub configuration: Option<Configuration>,
    /// The new descriptor, if the entry began an epoch.
    pub descriptor: Option<ShardDescriptor>,
    /// The places of its changes in the changes tree.
    pub changes: Vec<Bytes>,
    /// Whether it asked for what had been executed before.
    pub repeated: bool,
    /// Sessions that ended by themselves at it.
    pub expired: u32,
}

/// Writes on their way to the store.
#[derive(Clone, Debug)]
pub struct Flush {
    frozen: Frozen,
    root: Write,
    applied: LogIndex,
    term: Term,
}

impl Flush {
    /// The batch to commit: sorted by tree and key, the root record last.
    pub fn writes(&self) -> Vec<Write> {
        self.frozen.writes().chain([self.root.clone()]).collect()
    }

    /// The position the store proves once the batch is committed, and its term.
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.applied, self.term)
    }

    /// Bytes it takes out of the overlay.
    pub fn bytes(&self) -> usize {
        self.frozen.bytes()
    }
}

/// One replica's state machine.
#[derive(Debug)]
pub struct ShardMachine {
    replica: ReplicaId,
    root: Root,
    overlay: Overlay,
    /// What the store is known to hold: views must reach at least here.
    flushed: LogIndex,
    /// What the newest flush reaches: only its success empties the overlay.
    frozen: LogIndex,
    /// How far the store was swept when it was opened: it may be beyond what the
    /// root record in it tells.
    swept: Version,
}

impl ShardMachine {
    /// The writes that give birth to an empty replica.
    pub fn birth(
        replica: ReplicaId,
        descriptor: &ShardDescriptor,
        versions: VersionKind,
        role: ShardRole,
    ) -> Vec<Write> {
        vec![root_write(replica, &Root::birth(descriptor, versions, role))]
    }

    /// Opens the replica as the store holds it.
    ///
    /// # Errors
    /// If the store holds no such replica or cannot be read.
    pub fn open(replica: ReplicaId, view: &dyn View) -> Result<Self, OpenError> {
        let bytes = view.get(Tree::Root, &root_key(replica))?.ok_or(OpenError::Missing(replica))?;
        let (found, root) = Root::decode(bytes)?;
        if found != replica {
            return Err(RootError::Foreign { found }.into());
        }
        let root = Root { leases: Leases::load(view, replica)?, ..root };
        let (flushed, swept) = (root.mark.applied, swept(view, replica)?);
        Ok(Self { replica, root, overlay: Overlay::default(), flushed, frozen: flushed, swept })
    }

    /// Applies the entry that follows the last one.
    ///
    /// # Errors
    /// The replica must stop; its state is that before the entry.
    pub fn apply(&mut self, view: &dyn View, entry: &Entry) -> Result<Applied, ApplyError> {
        let applied = self.root.mark.applied;
        if entry.index.0 != applied.0 + 1 {
            return Err(ApplyError::OutOfOrder { applied, found: entry.index });
        }
        self.check_view(view)?;
        let mut step = Step {
            index: entry.index,
            root: self.root.clone(),
            principal: Principal::Trusted,
            overlay: &self.overlay,
            view,
            changes: Vec::new(),
            repeated: false,
            expired: 0,
        };
        let mut applied = step.payload(&entry.payload)?;
        let Step { mut root, changes, repeated, expired, .. } = step;
        root.mark.applied = entry.index;
        root.mark.term = entry.term;
        let leases = root.leases.take_changes(self.replica);
        self.root = root;
        for change in changes.into_iter().chain(leases) {
            if change.tree == Tree::Changes {
                applied.changes.push(change.key.clone());
            }
            self.overlay.insert(change);
        }
        Ok(Applied { repeated, expired, ..applied })
    }

    /// A view older than the last flush lacks what the overlay has dropped.
    fn check_view(&self, view: &dyn View) -> Result<(), ApplyError> {
        let bytes = view.get(Tree::Root, &root_key(self.replica))?;
        let mark = Mark::read(bytes.unwrap_or_default())?;
        if mark.applied < self.flushed {
            return Err(ApplyError::ViewTooOld { view: mark.applied, flushed: self.flushed });
        }
        Ok(())
    }

    /// An immutable snapshot to read from, on any thread, while apply goes on.
    pub fn reader(&self) -> Reader {
        let stands = (self.flushed, self.swept);
        Reader::new(self.replica, self.root.clone(), self.overlay.clone(), stands)
    }

    /// Freezes what the overlay holds for one batch. Until [`Self::flushed`],
    /// the overlay keeps showing it; after a failed commit just flush again.
    pub fn flush(&mut self) -> Flush {
        let Mark { applied, term, .. } = self.root.mark;
        let root = root_write(self.replica, &self.root);
        self.frozen = applied;
        Flush { frozen: self.overlay.freeze(), root, applied, term }
    }

    /// Drops from the overlay what the store now holds. Views for apply must be
    /// opened after the commit.
    pub fn flushed(&mut self, flush: &Flush) {
        self.flushed = self.flushed.max(flush.applied);
        // A flush begun later carries this one's writes and more.
        if flush.applied == self.frozen {
            self.overlay.thaw();
        }
    }

    /// Whose state it is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Bytes the overlay occupies, about.
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// Predicate, epoch and replicas as the log says.
    pub fn descriptor(&self) -> &ShardDescriptor {
        &self.root.descriptor
    }

    /// Voters and learners as the log says.
    pub fn configuration(&self) -> &Configuration {
        &self.root.configuration
    }

    /// Last applied position and its term.
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.root.mark.applied, self.root.mark.term)
    }

    /// The position the store is known to prove.
    pub fn flushed_index(&self) -> LogIndex {
        self.flushed
    }

    /// Last version that changed a key.
    pub fn version(&self) -> Version {
        self.root.mark.version
    }

    /// Closed time.
    pub fn closed(&self) -> Hlc {
        self.root.mark.clock
    }

    /// Versions below this one can no longer be read.
    pub fn compacted(&self) -> Version {
        self.root.mark.compacted
    }

    /// Monotonic milliseconds the shard's leaders have counted.
    pub fn shard_time_ms(&self) -> u64 {
        self.root.shard_time_ms
    }

    /// Its leases.
    pub fn leases(&self) -> &Leases {
        &self.root.leases
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.root.sessions.count()
    }
}

fn root_write(replica: ReplicaId, root: &Root) -> Write {
    Write { tree: Tree::Root, key: root_key(replica).to_vec(), value: Some(root.encode(replica)) }
}

/// One entry on its way: the next root and the changes, dropped on error.
struct Step<'a> {
    index: LogIndex,
    root: Root,
    /// As whom the command asks.
    principal: Principal,
    overlay: &'a Overlay,
    view: &'a dyn View,
    changes: Vec<Change>,
    repeated: bool,
    expired: u32,
}

impl Step<'_> {
    fn payload(&mut self, payload: &Payload) -> Result<Applied, ApplyError> {
        let mut applied = Applied {
            index: self.index,
            outcome: None,
            configuration: None,
            descriptor: None,
            changes: Vec::new(),
            repeated: false,
            expired: 0,
        };
        match payload {
            Payload::Empty => {}
            Payload::Configuration(change) => {
                // One that does not fit changes nothing, as Raft itself judges it.
                if let Ok(after) = self.root.configuration.after(change) {
                    self.configure(change, after.clone());
                    applied.configuration = Some(after);
                    applied.descriptor = Some(ShardDescriptor::clone(&self.root.descriptor));
                }
            }
            Payload::Command(bytes) => {
                let command = Command::decode(bytes)
                    .map_err(|cause| ApplyError::Unknown { index: self.index, cause })?;
                applied.outcome = Some(self.command(command)?);
            }
        }
        Ok(applied)
    }

    fn configure(&mut self, change: &ConfigurationChange, after: Configuration) {
        let before = &self.root.descriptor;
        let descriptor = ShardDescriptor {
            epoch: before.epoch.max(change.epoch),
            replicas: configuration::replicas(&before.replicas, change, &after),
            ..ShardDescriptor::clone(before)
        };
        self.root.configuration = after.into();
        self.root.descriptor = descriptor.into();
    }

    fn command(&mut self, command: Command) -> Result<Outcome, EngineError> {
        self.principal = command.principal;
        let action = &command.action;
        let point = command.time.max(self.root.mark.clock.next());
        self.root.mark.clock = self.root.mark.clock.max(command.time);
        self.root.shard_time_ms += u64::from(command.shard_time_step_ms);
        self.expired += self.root.sessions.expire(self.root.shard_time_ms);
        match action {
            Action::Close => Ok(Outcome::Closed),
            Action::OpenSession => {
                let session = SessionId(self.index.0);
                let evicted = self.root.sessions.open(session, self.root.shard_time_ms);
                self.expired += u32::from(evicted);
                Ok(Outcome::Session(session))
            }
            Action::CloseSession(session) => {
                self.root.sessions.close(*session);
                Ok(Outcome::Session(*session))
            }
            Action::Write { ops, .. } => self.once(action, |step| step.write(point, ops)),
            Action::Transact { transaction, .. } => {
                self.once(action, |step| step.transact(point, transaction))
            }
            Action::Catalog { command, .. } => {
                self.once(action, |step| step.catalog(point, command))
            }
            Action::Lease { command, .. } => self.once(action, |step| step.lease(point, *command)),
            Action::Restore { command, .. } => {
                self.once(action, |step| step.restore(command.clone()))
            }
            Action::Auth { command, .. } => self.once(action, |step| Ok(step.account(command))),
            Action::Advance { version } => self.once(action, |step| Ok(step.advance(*version))),
            Action::Compact { version } => self.once(action, |step| Ok(step.compact(*version))),
        }
    }

    /// Raises the dense counter. Half of all numbers stays for what comes after.
    fn advance(&mut self, version: Version) -> Outcome {
        if self.root.role == ShardRole::Catalog || version.0 > u64::MAX >> 2 {
            return Outcome::Refused(Refusal::WrongKind);
        }
        let mark = &mut self.root.mark;
        if self.root.versions == VersionKind::Dense && version > mark.version {
            mark.version = version;
            mark.count = version.0;
        }
        Outcome::Written { version: self.root.now(), deleted: 0 }
    }

    /// Raises the compacted version; what it makes unreadable is swept later,
    /// by each replica for itself. A version in the future lets nothing go. The
    /// catalog keeps its history: nodes that were away catch up from it.
    fn compact(&mut self, version: Version) -> Outcome {
        if self.root.role == ShardRole::Catalog {
            return Outcome::Refused(Refusal::WrongKind);
        }
        let now = self.root.now();
        let mark = &mut self.root.mark;
        let before = mark.compacted;
        if version <= now {
            mark.compacted = before.max(version);
        }
        Outcome::Compacted { before, compacted: mark.compacted, now }
    }

    /// Executes what its principal may, unless its session knows it already: a
    /// retry is told what became of it, whatever was changed since.
    fn once(
        &mut self,
        action: &Action,
        execute: impl FnOnce(&mut Self) -> Result<Outcome, EngineError>,
    ) -> Result<Outcome, EngineError> {
        let execute = |step: &mut Self| match step.denial(action)?.or_else(|| step.unwhole(action))
        {
            Some(refusal) => Ok(Outcome::Refused(refusal)),
            None => execute(step),
        };
        let Some(request) = action.request() else { return execute(self) };
        match self.root.sessions.admit(request, self.root.shard_time_ms) {
            Admission::Repeat(outcome) => {
                self.repeated = true;
                Ok(outcome)
            }
            Admission::Refuse(refusal) => Ok(Outcome::Refused(refusal)),
            Admission::Execute => {
                let outcome = execute(self)?;
                self.root.sessions.keep(request, &outcome, self.root.shard_time_ms);
                Ok(outcome)
            }
        }
    }

    fn write(&mut self, point: Hlc, ops: &[Op]) -> Result<Outcome, EngineError> {
        if let Some(refusal) = self.refusal(ops) {
            return Ok(Outcome::Refused(refusal));
        }
        let stamp = self.stamp(point);
        let mut draft = Draft::new(self.overlay, self.view, stamp);
        let mut deleted = 0;
        for op in ops {
            match op {
                Op::Put { key, value } => draft.put(key, value, LeaseId(0))?,
                Op::Delete { key } => deleted += u32::from(draft.delete(key)?),
            }
        }
        let version = self.commit(point, stamp, draft);
        Ok(Outcome::Written { version, deleted })
    }

    /// Why these changes are not for this shard.
    fn refusal(&self, ops: &[Op]) -> Option<Refusal> {
        if self.root.role == ShardRole::Catalog {
            return Some(Refusal::WrongKind);
        }
        let unfit = ops.iter().map(|op| op.key().len()).find(|n| *n == 0 || *n > KEY_BYTES_MAX);
        if let Some(bytes) = unfit {
            return Some(Refusal::InvalidKey {
                bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                bytes_max: u32::try_from(KEY_BYTES_MAX).unwrap_or(u32::MAX),
            });
        }
        let owned = ops.iter().all(|op| self.root.descriptor.predicate.owns(op.key()));
        (!owned).then_some(Refusal::WrongShard)
    }

    fn catalog(&mut self, point: Hlc, command: &CatalogCommand) -> Result<Outcome, EngineError> {
        if self.root.role != ShardRole::Catalog {
            return Ok(Outcome::Refused(Refusal::WrongKind));
        }
        let stamp = self.stamp(point);
        let mut records = StagedRecords::new(self.overlay, self.view, stamp);
        let outcome = apply::apply(&mut records, command)?;
        let draft = records.finish()?;
        self.commit(point, stamp, draft);
        Ok(Outcome::Catalog(outcome))
    }

    /// The names of the next command's changes.
    fn stamp(&self, point: Hlc) -> Stamp {
        let versions = self.root.versions;
        let count = self.root.mark.count + 1;
        match versions {
            VersionKind::Dense => Stamp { versions, version: Version(count), other: point.0 },
            VersionKind::Hybrid => Stamp { versions, version: Version(point.0), other: count },
        }
    }

    /// Takes the changes over and moves the clocks; the version to answer with.
    fn commit(&mut self, point: Hlc, stamp: Stamp, draft: Draft<'_>) -> Version {
        self.root.mark.clock = point;
        for (lease, more) in draft.attached() {
            self.root.leases.attach(*lease, *more);
        }
        self.root.tally = self.root.tally.after(draft.tally());
        let changes = draft.finish();
        if !changes.is_empty() {
            self.root.mark.version = stamp.version;
            self.root.mark.count += 1;
        }
        self.changes.extend(changes);
        self.root.now()
    }
}
