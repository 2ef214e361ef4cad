//! Lists: keys in order, page by page, at any version.
//!
//! A list of the present reads `latest` alone. A list of the past must also ask
//! the history, for keys that were changed or deleted since: both are collected
//! up to the page's limit and merged as far as both were read.

use std::ops::{Bound, ControlFlow};

use super::{ReadError, Reader, Stand, damaged, item};
use crate::{
    limits::{LIST_PAGE_BYTES_MAX, LIST_PAGE_MAX},
    mvcc::{
        layout::{history_end, history_prefix, prefix_end, read_history_key},
        record::{Record, RecordError},
        version::Version,
    },
    ports::engine::{Tree, View},
    request::Item,
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
        let span = Span::new(prefix, after);
        let mut page = Collected::new(limit.clamp(1, LIST_PAGE_MAX), values);
        self.collect_latest(&stand, &span, &mut page)?;
        if stand.past {
            let mut past = Collected::new(page.limit, values);
            self.collect_history(&stand, &span, &page, &mut past)?;
            page.merge(past);
        }
        Ok(Page { items: page.items, more: page.more, at: stand.at })
    }

    /// Keys whose newest record is old enough.
    fn collect_latest(
        &self,
        stand: &Stand<'_>,
        span: &Span,
        page: &mut Collected,
    ) -> Result<(), ReadError> {
        let mut fault = None;
        let (from, to) = span.bounds();
        self.overlay().scan(stand.view, Tree::Latest, from, to, &mut |key, bytes| {
            if !self.descriptor().predicate.owns(key) {
                return ControlFlow::Continue(());
            }
            match Record::read(key, bytes) {
                Ok(record) if record.head.modified > stand.at || !record.head.kind.exists() => {
                    ControlFlow::Continue(())
                }
                Ok(record) => page.push(key, &record),
                Err(error) => {
                    fault = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        fault.map_or(Ok(()), |error| Err(damaged(stand.view, error)))
    }

    /// Keys changed or deleted since, as they were. Keys in `present` are left
    /// out; beyond its last key nothing is needed if it is full.
    fn collect_history(
        &self,
        stand: &Stand<'_>,
        span: &Span,
        present: &Collected,
        past: &mut Collected,
    ) -> Result<(), ReadError> {
        let to = match (present.more, present.items.last()) {
            (true, Some(last)) => Some(history_end(&last.key)),
            (true | false, _) => span.to.as_deref().map(history_prefix),
        };
        let mut from = Bound::Included(history_prefix(&span.from));
        while let Some(key) = self.next_in_history(stand, &from, to.as_deref())? {
            let known = present.items.binary_search_by(|item| item.key.cmp(&key)).is_ok();
            let wanted = !known && span.contains(&key) && self.descriptor().predicate.owns(&key);
            if wanted
                && let Some(record) = self.record(stand, &key)?
                && past.push(&key, &record).is_break()
            {
                return Ok(());
            }
            from = Bound::Excluded(history_end(&key));
        }
        Ok(())
    }

    /// The first user key in the history between the bounds.
    fn next_in_history(
        &self,
        stand: &Stand<'_>,
        from: &Bound<Vec<u8>>,
        to: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let mut next = None;
        let from = from.as_ref().map(Vec::as_slice);
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

    fn contains(&self, key: &[u8]) -> bool {
        std::ops::RangeBounds::<[u8]>::contains::<[u8]>(&self.bounds(), key)
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

    /// Takes in another page of other keys; keeps what both cover completely.
    fn merge(&mut self, other: Self) {
        let covered = [&*self, &other]
            .into_iter()
            .filter(|page| page.more)
            .filter_map(|page| page.items.last().map(|item| item.key.clone()))
            .min();
        self.more |= other.more;
        self.items.extend(other.items);
        self.items.sort_by(|a, b| a.key.cmp(&b.key));
        if let Some(covered) = covered {
            self.items.retain(|item| item.key <= covered);
        }
        self.cut();
    }

    fn cut(&mut self) {
        let mut bytes = 0;
        let mut keep = 0;
        for item in &self.items {
            if keep >= self.limit || (self.values && bytes >= LIST_PAGE_BYTES_MAX) {
                break;
            }
            bytes += item.key.len() + item.value.len();
            keep += 1;
        }
        self.more |= keep < self.items.len();
        self.items.truncate(keep);
    }
}
