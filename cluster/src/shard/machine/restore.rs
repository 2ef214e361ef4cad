//! What the steps of a restore do; see [`crate::shard::restore`].
//!
//! Every step judges first and changes afterwards: what is refused leaves nothing
//! behind. Keys go to `latest` as they were saved, without a history and without
//! changes that could be told: all that lies below the compacted version.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use super::{Outcome, Refusal, ShardRole, Step};
use crate::{
    ids::LeaseId,
    limits::KEY_BYTES_MAX,
    mvcc::{
        layout::lease_key,
        overlay::Change,
        record::{Head, Record, RecordKind, write_attachment},
        tally::TallyChange,
        version::{Hlc, Version, VersionKind},
    },
    ports::engine::{EngineError, Tree},
    request::Item,
    shard::{
        command::Action,
        leases::LeaseError,
        restore::{
            Begun, RESTORE_BUMP_MIN, Restore, RestoreCommand, RestoreError, RestoreStep, Restored,
            SavedId, SavedLease,
        },
    },
    units::WallTime,
};

/// The newest version of a shard of this kind in which nothing ever happened.
const BORN: Version = Version(1);
/// Versions from here on are kept for what comes after a restore.
const VERSION_MAX: u64 = u64::MAX >> 2;

/// The restore that a step says it is of.
type Named = (SavedId, Begun);

impl Step<'_> {
    /// Why a shard that is not whole does not do this.
    pub(super) fn unwhole(&self, action: &Action) -> Option<Refusal> {
        let passes = matches!(action, Action::Restore { .. } | Action::Compact { .. });
        let underway = self.root.restore.as_ref().is_some_and(|restore| !restore.whole);
        (underway && !passes).then_some(Refusal::Restore(RestoreError::Underway))
    }

    pub(super) fn restore(&mut self, command: RestoreCommand) -> Result<Outcome, EngineError> {
        if self.root.role == ShardRole::Catalog || self.root.versions != VersionKind::Dense {
            return Ok(Outcome::Refused(Refusal::WrongKind));
        }
        let RestoreCommand { saved, step } = command;
        let done = match step {
            RestoreStep::Begin { version, bump } => self.begin_restore(saved, version, bump)?,
            RestoreStep::Leases(begun, leases) => self.restore_leases((saved, begun), &leases),
            RestoreStep::Keys(begun, items) => self.restore_keys((saved, begun), &items),
            RestoreStep::End(begun) => self.end_restore((saved, begun)),
        };
        Ok(match done {
            Ok(()) => Outcome::Restored(self.restored()),
            Err(error) => Outcome::Refused(Refusal::Restore(error)),
        })
    }

    fn restored(&self) -> Restored {
        let (version, shard) = (self.root.now(), self.root.descriptor.shard);
        let (begun, upto, whole) = self.root.restore.as_ref().map_or_else(
            || (Begun { shard, version }, Vec::new(), false),
            |restore| (restore.begun, restore.upto.clone(), restore.whole),
        );
        Restored { begun, upto, whole, version }
    }

    fn begin_restore(
        &mut self,
        saved: SavedId,
        version: Version,
        bump: u64,
    ) -> Result<Result<(), RestoreError>, EngineError> {
        let last = self.root.restore.as_ref();
        if let Some(underway) = last.filter(|last| !last.whole) {
            let same = underway.saved == saved;
            return Ok(if same { Ok(()) } else { Err(RestoreError::Another(underway.saved)) });
        }
        if self.root.leases.count() > 0 || self.holds_keys()? {
            // Whoever did not hear that it ended asks again.
            let same = last.is_some_and(|last| last.saved == saved);
            return Ok(if same { Ok(()) } else { Err(RestoreError::NotEmpty) });
        }
        let own = self.root.mark.version;
        let base = if own == BORN { 0 } else { own.0 };
        let newest = base.saturating_add(version.0).max(own.0);
        let newest = newest.saturating_add(bump.max(RESTORE_BUMP_MIN));
        if newest > VERSION_MAX {
            return Ok(Err(RestoreError::TooFar));
        }
        let mark = &mut self.root.mark;
        (mark.version, mark.compacted, mark.count) = (Version(newest), Version(newest), newest);
        let begun = Begun { shard: self.root.descriptor.shard, version: mark.version };
        let (upto, began_ms, stood_ms, whole) = (Vec::new(), self.root.shard_time_ms, 0, false);
        let restore = Restore { saved, begun, version, base, upto, began_ms, stood_ms, whole };
        self.root.restore = Some(Arc::new(restore));
        Ok(Ok(()))
    }

    fn holds_keys(&self) -> Result<bool, EngineError> {
        let mut holds = false;
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        self.overlay.scan(self.view, Tree::Latest, from, to, &mut |key, _| {
            holds = self.root.descriptor.predicate.owns(key);
            if holds { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(holds)
    }

    /// The last restore, if a step of this one is its.
    fn last_restore(&self, (saved, begun): Named) -> Result<Arc<Restore>, RestoreError> {
        let last = self.root.restore.as_ref().filter(|last| last.saved == saved);
        let last = last.ok_or(RestoreError::NotBegun)?;
        if last.begun != begun {
            return Err(RestoreError::BegunAnew(last.begun.version));
        }
        Ok(Arc::clone(last))
    }

    /// The restore that a step is of, which is under way.
    fn underway(&self, named: Named) -> Result<Arc<Restore>, RestoreError> {
        let last = self.last_restore(named)?;
        if last.whole { Err(RestoreError::NotBegun) } else { Ok(last) }
    }

    fn restore_leases(&mut self, named: Named, given: &[SavedLease]) -> Result<(), RestoreError> {
        let restore = self.underway(named)?;
        let mut leases = self.root.leases.clone();
        for SavedLease { lease, ttl_ms, remaining_ms } in given {
            if leases.get(*lease).is_err() {
                leases.restore(*lease, *ttl_ms, *remaining_ms, restore.began_ms).map_err(
                    |error| match error {
                        LeaseError::TooMany => RestoreError::TooManyLeases,
                        LeaseError::Unknown(_)
                        | LeaseError::Exists(_)
                        | LeaseError::InvalidId(_)
                        | LeaseError::TooLong(_)
                        | LeaseError::Full(_) => RestoreError::Lease(*lease),
                    },
                )?;
            }
        }
        self.root.leases = leases;
        Ok(())
    }

    fn restore_keys(&mut self, named: Named, items: &[Item]) -> Result<(), RestoreError> {
        let before = self.underway(named)?;
        let mut last: &[u8] = &[];
        let mut attached: BTreeMap<LeaseId, i64> = BTreeMap::new();
        for item in items {
            let fits = item.key.as_slice() > last
                && item.key.len() <= KEY_BYTES_MAX
                && self.root.descriptor.predicate.owns(&item.key)
                && item.created <= item.modified
                && item.modified <= before.version;
            if !fits {
                return Err(RestoreError::OutOfOrder);
            }
            last = &item.key;
            if item.lease != LeaseId(0) && before.lacks(&item.key) {
                *attached.entry(item.lease).or_default() += 1;
            }
        }
        for (lease, more) in &attached {
            let room = self.root.leases.check_room(*lease, *more);
            room.map_err(|_| RestoreError::Lease(*lease))?;
        }
        for (lease, more) in attached {
            self.root.leases.attach(lease, more);
        }
        let mut tally = TallyChange::default();
        for item in items.iter().filter(|item| before.lacks(&item.key)) {
            tally.note(item.key.len(), None, Some(item.value.len()));
            self.changes.extend(records(item, before.base));
        }
        self.root.tally = self.root.tally.after(tally);
        if before.lacks(last) {
            self.root.restore =
                Some(Arc::new(Restore { upto: last.to_vec(), ..Restore::clone(&before) }));
        }
        Ok(())
    }

    fn end_restore(&mut self, named: Named) -> Result<(), RestoreError> {
        let last = self.last_restore(named)?;
        if !last.whole {
            let stood_ms = self.root.shard_time_ms.saturating_sub(last.began_ms);
            let restore = Restore { whole: true, stood_ms, ..Restore::clone(&last) };
            self.root.restore = Some(Arc::new(restore));
        }
        Ok(())
    }
}

/// What is written for one key.
fn records(item: &Item, base: u64) -> impl Iterator<Item = Change> {
    let above = |version: Version| Version(version.0.saturating_add(base));
    let head = Head {
        kind: RecordKind::Value,
        versions: VersionKind::Dense,
        created: above(item.created),
        modified: above(item.modified),
        sub: 0,
        changes: item.changes,
        lease: item.lease,
        other: Hlc::at(WallTime(item.modified_ms)).0,
    };
    let record = Record { head, value: &item.value }.write(&item.key);
    let latest =
        Change { tree: Tree::Latest, key: item.key.clone().into(), value: Some(record.into()) };
    let attachment = (item.lease != LeaseId(0)).then(|| {
        let place = lease_key(item.lease, &item.key);
        let entry = write_attachment(&place).to_vec();
        Change { tree: Tree::Leases, key: place.into(), value: Some(entry.into()) }
    });
    std::iter::once(latest).chain(attachment)
}
