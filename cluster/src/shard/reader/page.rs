//! Lists and ranges: keys in order, at any version.
//!
//! What is read of the present lies in `latest`. What is read of the past is
//! that as far as it is old enough, and the history for keys that were changed
//! or deleted since: one walk over `latest`, with a look into the history for
//! each key that is only there. Nothing is held but the key to come.

use std::ops::{Bound, ControlFlow};

use super::{ReadError, Reader, Stand, damaged, item};
use crate::{
    limits::{LIST_PAGE_BYTES_MAX, LIST_PAGE_MAX, RANGE_BYTES_MAX},
    mvcc::{
        layout::{history_end, history_prefix, prefix_end, read_history_key},
        record::{Record, RecordError},
        version::Version,
    },
    ports::engine::{Tree, View, is_void},
    request::Item,
    shard::{
        range::{Gather, Range, RangeResult},
        transaction::Keys,
    },
};

/// Keys in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub items: Vec<Item>,
    /// Whether more follow.
    pub more: bool,
    /// The version they were read at; later pages should ask for it.
    pub at: Version,
}

/// What sees each key with its record.
type Visitor<'v> = &'v mut dyn FnMut(&[u8], &Record<'_>) -> ControlFlow<()>;

impl Reader {
    /// Lists the keys that begin with `prefix` and lie after `after`, at most
    /// `limit` of them (capped by [`LIST_PAGE_MAX`], and by
    /// [`LIST_PAGE_BYTES_MAX`] where values come too).
    ///
    /// # Errors
    /// If the version cannot be read, or the store.
    pub fn list(
        &self,
        view: &dyn View,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        at: Option<Version>,
        values: bool,
    ) -> Result<Page, ReadError> {
        let stand = self.stand(view, at)?;
        let mut page = Collected::new(limit.clamp(1, LIST_PAGE_MAX), values);
        let span = Span::new(prefix, after);
        self.visit(&stand, &span, &mut |key, record| page.push(key, record))?;
        Ok(Page { items: page.items, more: page.more, at: stand.at })
    }

    /// Reads a range, and the version it was read at. Of one that is in order
    /// about [`RANGE_BYTES_MAX`] are shown; `more` says so. Of one that is sorted no more
    /// is held than its limit shows, and that must fit.
    ///
    /// # Errors
    /// If the version cannot be read, what a sorted range shows is too large, or the store.
    pub fn range(
        &self,
        view: &dyn View,
        range: &Range,
    ) -> Result<(RangeResult, Version), ReadError> {
        let stand = self.stand(view, range.at)?;
        let mut gather = Gather::new(range, RANGE_BYTES_MAX).letting_go();
        if let Keys::One(key) = &range.keys {
            if !self.descriptor().predicate.owns(key) {
                return Err(ReadError::WrongShard(self.descriptor().epoch));
            }
            if let Some(record) = self.record(&stand, key)? {
                let _ = gather.take(key, &record);
            }
        } else {
            let span = Span::of(&range.keys);
            self.visit(&stand, &span, &mut |key, record| gather.take(key, record))?;
        }
        Ok((gather.finish()?, stand.at))
    }

    /// Visits this shard's keys within a span as they were, in order.
    fn visit(&self, stand: &Stand<'_>, span: &Span, visit: Visitor<'_>) -> Result<(), ReadError> {
        if span.is_void() {
            return Ok(());
        }
        let mut past = Past::new(self, stand, span)?;
        let mut fault = None;
        let mut ended = false;
        let (from, to) = span.bounds();
        self.overlay().scan(stand.view, Tree::Latest, from, to, &mut |key, bytes| {
            let flow = past.visit_below(Some(key), visit).and_then(|flow| {
                if flow.is_break() || !self.descriptor().predicate.owns(key) {
                    return Ok(flow);
                }
                let record =
                    Record::read(key, bytes).map_err(|error| damaged(stand.view, error))?;
                if record.head.modified > stand.at {
                    return Ok(ControlFlow::Continue(()));
                }
                past.pass(key)?;
                let shown = record.head.kind.exists();
                Ok(if shown { visit(key, &record) } else { ControlFlow::Continue(()) })
            });
            let flow = flow.unwrap_or_else(|error| {
                fault = Some(error);
                ControlFlow::Break(())
            });
            ended = flow.is_break();
            flow
        })?;
        if let Some(error) = fault {
            return Err(error);
        }
        if !ended {
            let _ = past.visit_below(None, visit)?;
        }
        Ok(())
    }

    /// The first user key in the history between the bounds.
    fn next_in_history(
        &self,
        stand: &Stand<'_>,
        from: Bound<&[u8]>,
        to: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let mut next = None;
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        self.overlay().scan(stand.view, Tree::History, from, to, &mut |place, _| {
            next = Some(read_history_key(place).map(|(key, ..)| key));
            ControlFlow::Break(())
        })?;
        match next {
            None => Ok(None),
            Some(Some(key)) => Ok(Some(key)),
            Some(None) => Err(damaged(stand.view, RecordError::Short)),
        }
    }
}

/// The keys of a span that have a history, in order. Of the present there are
/// none: `latest` says all.
struct Past<'r> {
    reader: &'r Reader,
    stand: &'r Stand<'r>,
    to: Option<Vec<u8>>,
    /// The key to come.
    next: Option<Vec<u8>>,
}

impl<'r> Past<'r> {
    fn new(reader: &'r Reader, stand: &'r Stand<'r>, span: &Span) -> Result<Self, ReadError> {
        let mut past =
            Self { reader, stand, to: span.to.as_deref().map(history_prefix), next: None };
        if stand.past {
            let from = if span.after {
                Bound::Excluded(history_end(&span.from))
            } else {
                Bound::Included(history_prefix(&span.from))
            };
            past.seek(from.as_ref().map(Vec::as_slice))?;
        }
        Ok(past)
    }

    fn seek(&mut self, from: Bound<&[u8]>) -> Result<(), ReadError> {
        self.next = self.reader.next_in_history(self.stand, from, self.to.as_deref())?;
        Ok(())
    }

    /// Leaves a key out, if it is the one to come.
    fn pass(&mut self, key: &[u8]) -> Result<(), ReadError> {
        if self.next.as_deref() == Some(key) {
            self.seek(Bound::Excluded(&history_end(key)))?;
        }
        Ok(())
    }

    /// Visits the keys below `end`, or all, as they were.
    fn visit_below(
        &mut self,
        end: Option<&[u8]>,
        visit: Visitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        while let Some(key) = self.next.take_if(|key| end.is_none_or(|end| key.as_slice() < end)) {
            if self.reader.descriptor().predicate.owns(&key)
                && let Some(record) = self.reader.record(self.stand, &key)?
                && visit(&key, &record).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            self.seek(Bound::Excluded(&history_end(&key)))?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A range of user keys.
struct Span {
    from: Vec<u8>,
    /// Whether `from` itself is left out.
    after: bool,
    to: Option<Vec<u8>>,
}

impl Span {
    fn new(prefix: &[u8], after: Option<&[u8]>) -> Self {
        let after = after.filter(|after| *after >= prefix);
        Self {
            from: after.unwrap_or(prefix).to_vec(),
            after: after.is_some(),
            to: prefix_end(prefix),
        }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = if self.after {
            Bound::Excluded(&self.from[..])
        } else {
            Bound::Included(&self.from[..])
        };
        (from, self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    fn of(keys: &Keys) -> Self {
        match keys {
            Keys::One(key) => Self { from: key.clone(), after: false, to: Some(key.clone()) },
            Keys::Range { from, to } => Self {
                from: from.clone(),
                after: false,
                to: Some(to.clone()).filter(|to| !to.is_empty()),
            },
        }
    }

    fn is_void(&self) -> bool {
        let (from, to) = self.bounds();
        is_void(from, to)
    }
}

/// A page being filled.
struct Collected {
    items: Vec<Item>,
    limit: usize,
    values: bool,
    bytes: usize,
    more: bool,
}

impl Collected {
    fn new(limit: usize, values: bool) -> Self {
        Self { items: Vec::new(), limit, values, bytes: 0, more: false }
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.limit || (self.values && self.bytes >= LIST_PAGE_BYTES_MAX)
    }

    fn push(&mut self, key: &[u8], record: &Record<'_>) -> ControlFlow<()> {
        if self.is_full() {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.bytes += key.len() + record.value.len();
        self.items.push(item(key, record, self.values));
        ControlFlow::Continue(())
    }
}
