//! Events: changes as a watcher wants them, from any place that is kept.
//!
//! The changes tree says which keys changed in which order; what they became and
//! what they were before lies in `latest` and the history. Everything is read
//! through one view, which is also asked how far it was swept: what it shows
//! above that is whole.

use std::ops::{Bound, ControlFlow};

use super::{KeyChange, ReadError, Reader, Stand, damaged, item};
use crate::{
    ids::LeaseId,
    limits::{VALUE_BYTES_MAX, WATCH_CHANGES_MAX},
    mvcc::{
        layout::{change_key, change_start, history_end, history_key},
        record::{Record, RecordError},
        version::Version,
    },
    ports::engine::{Tree, View},
    request::Item,
    shard::watch::{Event, EventKind, Events, Place, Watch},
};

/// Changes that were looked at.
struct Looked {
    wanted: Vec<KeyChange>,
    upto: Place,
    more: bool,
}

impl Reader {
    /// What happened after a place, about `bytes_max` bytes of it.
    ///
    /// # Errors
    /// If part of it was compacted away, or the store.
    pub fn events(
        &self,
        view: &dyn View,
        watch: &Watch,
        after: Place,
        bytes_max: usize,
    ) -> Result<Events, ReadError> {
        let stand = self.stand(view, None)?;
        let seen =
            if after.is_whole() { after.version } else { Place::before(after.version).version };
        self.check_after(view, seen)?;
        let now = stand.at;
        if after.version > now {
            return Ok(Events { events: Vec::new(), upto: after, more: false, now });
        }
        let Looked { wanted, mut upto, mut more } = self.looked(&stand, watch, after)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        for change in wanted {
            let place = Place { version: change.version, sub: change.sub };
            if !events.is_empty() && bytes >= bytes_max {
                // Cut after the event before this one.
                (more, upto) = (true, before(place));
                break;
            }
            let event = self.event(&stand, watch, change)?;
            bytes += event.bytes();
            events.push(event);
        }
        Ok(Events { events, upto, more, now })
    }

    /// The changes after a place that matter, and how far was looked.
    fn looked(&self, stand: &Stand<'_>, watch: &Watch, after: Place) -> Result<Looked, ReadError> {
        let from = if after.is_whole() {
            change_start(Version(after.version.0.saturating_add(1))).to_vec()
        } else {
            change_key(after.version, after.sub + 1, &[])
        };
        let mut looked = Looked { wanted: Vec::new(), upto: after, more: false };
        let (mut count, mut fault) = (0, None);
        let (from, to) = (Bound::Included(&from[..]), Bound::Unbounded);
        self.overlay().scan(stand.view, Tree::Changes, from, to, &mut |place, bytes| {
            let change = match self.change(place, bytes) {
                Ok(Some(change)) => change,
                Ok(None) => return ControlFlow::Continue(()),
                Err(error) => {
                    fault = Some(error);
                    return ControlFlow::Break(());
                }
            };
            if change.version > stand.at {
                return ControlFlow::Break(());
            }
            if count >= WATCH_CHANGES_MAX {
                looked.more = true;
                return ControlFlow::Break(());
            }
            count += 1;
            looked.upto = Place { version: change.version, sub: change.sub };
            if watch.wants(&change.key, kind(&change)) {
                looked.wanted.push(change);
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = fault {
            return Err(damaged(stand.view, error));
        }
        if !looked.more {
            looked.upto = looked.upto.max(Place::after(stand.at));
        }
        Ok(looked)
    }

    fn event(
        &self,
        stand: &Stand<'_>,
        watch: &Watch,
        change: KeyChange,
    ) -> Result<Event, ReadError> {
        let kind = kind(&change);
        let KeyChange { key, version, sub, .. } = change;
        let item = match kind {
            EventKind::Put => self.written(stand, &key, version, sub)?,
            EventKind::Delete => gone(&key, version),
        };
        let fresh = kind == EventKind::Put && item.changes == 1;
        let mut previous = None;
        if watch.previous && !fresh {
            previous = self.replaced(stand, &key, version, sub)?;
        }
        if let Some(previous) = &mut previous
            && previous.value.len() + item.value.len() > VALUE_BYTES_MAX
        {
            previous.value = Vec::new();
        }
        Ok(Event { kind, item, sub, previous })
    }

    /// What a change wrote.
    fn written(
        &self,
        stand: &Stand<'_>,
        key: &[u8],
        version: Version,
        sub: u32,
    ) -> Result<Item, ReadError> {
        let view = stand.view;
        let read = |bytes| Record::read(key, bytes).map_err(|error| damaged(view, error));
        if let Some(bytes) = self.overlay().get(view, Tree::Latest, key)? {
            let record = read(bytes)?;
            if (record.head.modified, record.head.sub) == (version, sub) {
                return Ok(item(key, &record, true));
            }
        }
        let place = history_key(key, version, sub);
        let bytes = self.overlay().get(view, Tree::History, &place)?;
        // A change above the floor has its record; without it the store is damaged.
        let record = read(bytes.ok_or_else(|| damaged(view, RecordError::Short))?)?;
        Ok(item(key, &record, true))
    }

    /// What a change replaced, if anything was there.
    fn replaced(
        &self,
        stand: &Stand<'_>,
        key: &[u8],
        version: Version,
        sub: u32,
    ) -> Result<Option<Item>, ReadError> {
        let (from, to) = (history_key(key, version, sub), history_end(key));
        let mut found = None;
        let bounds = (Bound::Excluded(&from[..]), Bound::Included(&to[..]));
        self.overlay().scan(stand.view, Tree::History, bounds.0, bounds.1, &mut |_, bytes| {
            let read = Record::read(key, bytes);
            found = Some(
                read.map(|record| record.head.kind.exists().then(|| item(key, &record, true))),
            );
            ControlFlow::Break(())
        })?;
        match found {
            None => Ok(None),
            Some(Ok(item)) => Ok(item),
            Some(Err(error)) => Err(damaged(stand.view, error)),
        }
    }
}

fn kind(change: &KeyChange) -> EventKind {
    if change.kind.exists() { EventKind::Put } else { EventKind::Delete }
}

/// The place right before a change.
fn before(change: Place) -> Place {
    match change.sub.checked_sub(1) {
        Some(sub) => Place { version: change.version, sub },
        None => Place::before(change.version),
    }
}

fn gone(key: &[u8], version: Version) -> Item {
    Item {
        key: key.to_vec(),
        value: Vec::new(),
        value_bytes: 0,
        created: Version(0),
        modified: version,
        changes: 0,
        modified_ms: 0,
        lease: LeaseId(0),
    }
}
