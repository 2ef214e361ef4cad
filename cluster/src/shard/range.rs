//! Ranges: which keys, as of when, in which order, how many, what of them.
//!
//! A range means what etcd's `Range` means, so that its door translates and
//! decides nothing: filters and order apply before the limit, `count` counts the
//! keys between the bounds whatever the filters say, `more` says that the limit
//! or the size of an answer left something out.
//!
//! `Gather` is the one place that knows it. It is fed keys in their order, by
//! a reader or by a transaction that sees its own writes, and may say that it
//! has seen enough.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use std::ops::ControlFlow;

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    reader::item,
    transaction::{Keys, item_bytes},
};
use crate::{
    mvcc::{
        record::{Head, Record},
        version::Version,
    },
    request::Item,
};

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Range {
    /// Which keys.
    pub keys: Keys,
    /// As of which version; none reads the newest.
    pub at: Option<Version>,
    /// At most so many; zero for no limit.
    pub limit: u32,
    /// What of them.
    pub show: Show,
    /// In which order.
    pub sort: Sort,
    /// Only keys created by these versions.
    pub created: Span,
    /// Only keys changed last by these versions.
    pub modified: Span,
    /// Whether to count all keys between the bounds, which costs a walk over
    /// them.
    pub count: bool,
}

/// What of each key is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Show {
    /// All of it.
    #[default]
    Items,
    /// All but its value.
    Heads,
    /// Only how many there are.
    Count,
}

/// An order of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Sort {
    /// By what.
    pub by: SortBy,
    /// Largest first.
    pub descending: bool,
}

/// What keys are ordered by. Equal ones keep the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SortBy {
    /// The key itself.
    #[default]
    Key,
    /// Changes since it was created: etcd's version of a key.
    Changes,
    /// The version that created it.
    Created,
    /// The version that changed it last.
    Modified,
    /// Its value.
    Value,
}

/// Versions from one to another, both meant; zero for no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Span {
    /// The lowest.
    pub from: Version,
    /// The highest.
    pub to: Version,
}

/// What a range came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RangeResult {
    /// The keys.
    pub items: Vec<Item>,
    /// Whether more would have been shown without limit.
    pub more: bool,
    /// Keys between the bounds, if they were to be counted.
    pub count: u64,
}

/// A range whose answer must be sorted as a whole and is too large for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Archive, Serialize, Deserialize)]
#[error("an answer that is sorted as a whole takes at most {bytes_max} bytes")]
pub struct TooLarge {
    /// The limit.
    pub bytes_max: u64,
}

impl Range {
    /// All of these keys as they are now, in their order.
    pub fn of(keys: impl Into<Keys>) -> Self {
        Self {
            keys: keys.into(),
            at: None,
            limit: 0,
            show: Show::Items,
            sort: Sort::default(),
            created: Span::default(),
            modified: Span::default(),
            count: false,
        }
    }

    /// The same as of a version.
    #[must_use]
    pub fn at(self, version: Version) -> Self {
        Self { at: Some(version), ..self }
    }

    /// The first so many; zero for all.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// Without values.
    #[must_use]
    pub fn heads(self) -> Self {
        Self { show: Show::Heads, ..self }
    }

    /// Only how many there are.
    #[must_use]
    pub fn count_only(self) -> Self {
        Self { show: Show::Count, count: true, ..self }
    }

    /// Counted as well.
    #[must_use]
    pub fn counted(self) -> Self {
        Self { count: true, ..self }
    }

    /// In another order.
    #[must_use]
    pub fn sorted(self, by: SortBy, descending: bool) -> Self {
        Self { sort: Sort { by, descending }, ..self }
    }

    /// Whether its keys come in their own order, so that it can be cut anywhere.
    pub fn is_in_order(&self) -> bool {
        self.sort == Sort::default()
    }

    /// Whether it shows the first so many in another order than that of the keys, so that
    /// most of what is met need not be held.
    pub fn is_sorted_and_cut(&self) -> bool {
        self.limit > 0 && !self.is_in_order()
    }

    fn passes(&self, head: &Head) -> bool {
        self.created.holds(head.created) && self.modified.holds(head.modified)
    }

    pub(super) fn is_full(&self, items: usize) -> bool {
        self.limit > 0 && items >= usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// Brings what was read in the order of keys into the order asked for, and
    /// keeps what the limit lets through. Values that were only needed for the
    /// order go.
    pub fn arrange(&self, result: &mut RangeResult) {
        self.keep_first(result);
        if self.show == Show::Heads {
            for item in &mut result.items {
                item.value = Vec::new();
            }
        }
    }

    /// The same of a part of what was read, values and all: what others stand before in
    /// the part is not among the first of the whole.
    pub fn keep_first(&self, result: &mut RangeResult) {
        self.sort.apply(&mut result.items);
        if self.is_full(result.items.len()) {
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
            result.more |= result.items.len() > limit;
            result.items.truncate(limit);
        }
    }

    /// Whether values must be read: to be shown, or to sort by them.
    pub fn needs_values(&self) -> bool {
        self.show == Show::Items || self.sort.by == SortBy::Value
    }
}

impl Sort {
    fn apply(self, items: &mut [Item]) {
        let compare = |a: &Item, b: &Item| match self.by {
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::Changes => a.changes.cmp(&b.changes),
            SortBy::Created => a.created.cmp(&b.created),
            SortBy::Modified => a.modified.cmp(&b.modified),
            SortBy::Value => a.value.cmp(&b.value),
        };
        // Turning the list round would turn equal ones round too.
        items.sort_by(|a, b| if self.descending { compare(b, a) } else { compare(a, b) });
    }

    /// Whether a key stands before an item whose key is smaller: equal ones do not.
    fn puts_before(self, key: &[u8], record: &Record<'_>, item: &Item) -> bool {
        let head = &record.head;
        let order = match self.by {
            SortBy::Key => key.cmp(&item.key[..]),
            SortBy::Changes => head.changes.cmp(&item.changes),
            SortBy::Created => head.created.cmp(&item.created),
            SortBy::Modified => head.modified.cmp(&item.modified),
            SortBy::Value => record.value.cmp(&item.value[..]),
        };
        if self.descending { order.is_gt() } else { order.is_lt() }
    }
}

impl Span {
    fn holds(self, version: Version) -> bool {
        version >= self.from && (self.to == Version(0) || version <= self.to)
    }
}

/// Takes in keys in their order and keeps what a range shows.
#[derive(Debug)]
pub(super) struct Gather<'r> {
    range: &'r Range,
    bytes_max: usize,
    bytes: usize,
    result: RangeResult,
    too_large: bool,
    /// Whether what the limit of a sorted range leaves out is let go of on the way.
    lets_go: bool,
    /// So many of the items are the first of all that were met, in their order.
    first: usize,
}

impl<'r> Gather<'r> {
    /// For an answer of about so many bytes. One in order is cut there and says
    /// that there is more; one in another order fails.
    pub(super) fn new(range: &'r Range, bytes_max: usize) -> Self {
        Self {
            range,
            bytes_max,
            bytes: 0,
            result: RangeResult::default(),
            too_large: false,
            lets_go: false,
            first: 0,
        }
    }

    /// The same holding of a sorted range with a limit little more than that shows: twice
    /// as many and twice the bytes. It fails only if what is shown is too large.
    pub(super) fn letting_go(self) -> Self {
        Self { lets_go: self.range.is_sorted_and_cut(), ..self }
    }

    /// Takes the next key in; `Break` says that the rest does not matter.
    pub(super) fn take(&mut self, key: &[u8], record: &Record<'_>) -> ControlFlow<()> {
        let range = self.range;
        self.result.count += u64::from(range.count);
        if range.show == Show::Count || !range.passes(&record.head) {
            return ControlFlow::Continue(());
        }
        if self.lets_go {
            return self.take_sorted(key, record);
        }
        let items = self.result.items.len();
        let full = items > 0 && self.bytes >= self.bytes_max;
        if range.is_in_order() && (full || range.is_full(items)) {
            self.result.more = true;
            return if range.count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        }
        if full {
            self.too_large = true;
            return ControlFlow::Break(());
        }
        let item = item(key, record, range.needs_values());
        self.bytes += item_bytes(&item);
        self.result.items.push(item);
        ControlFlow::Continue(())
    }

    /// Takes a key of which only the first in another order are shown.
    fn take_sorted(&mut self, key: &[u8], record: &Record<'_>) -> ControlFlow<()> {
        let range = self.range;
        let last = self.first.checked_sub(1).and_then(|last| self.result.items.get(last));
        if range.is_full(self.first)
            && last.is_some_and(|last| !range.sort.puts_before(key, record, last))
        {
            self.result.more = true;
            return ControlFlow::Continue(());
        }
        let item = item(key, record, range.needs_values());
        self.bytes += item_bytes(&item);
        self.result.items.push(item);
        let twice = usize::try_from(range.limit).unwrap_or(usize::MAX).saturating_mul(2);
        if self.result.items.len() < twice && self.bytes < self.bytes_max.saturating_mul(2) {
            return ControlFlow::Continue(());
        }
        self.let_go();
        if self.too_large { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Lets go of all but the first, and judges those: as of a page, the last may be more
    /// than fits.
    fn let_go(&mut self) {
        self.range.keep_first(&mut self.result);
        self.first = self.result.items.len();
        let sizes = self.result.items.iter().map(item_bytes);
        self.bytes = sizes.sum();
        let last = self.result.items.last().map_or(0, item_bytes);
        self.too_large = self.first > 1 && self.bytes - last >= self.bytes_max;
    }

    /// Bytes of what was kept so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it came to.
    pub(super) fn finish(mut self) -> Result<RangeResult, TooLarge> {
        if self.lets_go {
            self.let_go();
        }
        if self.too_large {
            return Err(TooLarge { bytes_max: self.bytes_max as u64 });
        }
        self.range.arrange(&mut self.result);
        Ok(self.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::LeaseId,
        mvcc::{record::RecordKind, version::VersionKind},
    };

    /// Keys in their order with what they are sorted by, each drawn from a few.
    fn keys() -> Vec<(Vec<u8>, Head, Vec<u8>)> {
        let mut seed = 7_u64;
        let mut draw = |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % most
        };
        let key = |number: u32| {
            let created = 1 + draw(20);
            let head = Head {
                kind: RecordKind::Value,
                versions: VersionKind::Dense,
                created: Version(created),
                modified: Version(created + draw(20)),
                sub: 0,
                changes: 1 + draw(4),
                lease: LeaseId(0),
                other: 0,
            };
            (
                format!("k{number:03}").into_bytes(),
                head,
                vec![b'v'; 1 + usize::try_from(draw(30)).unwrap()],
            )
        };
        (0..200).map(key).collect()
    }

    fn gathered(mut gather: Gather<'_>) -> Result<(RangeResult, usize), TooLarge> {
        let mut held = 0;
        for (key, head, value) in keys() {
            let flow = gather.take(&key, &Record { head, value: &value });
            held = held.max(gather.result.items.len());
            if flow.is_break() {
                break;
            }
        }
        Ok((gather.finish()?, held))
    }

    #[test]
    fn what_is_let_go_of_is_not_among_the_first() {
        let orders = [SortBy::Key, SortBy::Changes, SortBy::Created, SortBy::Modified];
        for by in orders.into_iter().chain([SortBy::Value]) {
            for (descending, limit) in
                [(false, 1), (true, 1), (true, 7), (false, 50), (true, 200), (true, 500)]
            {
                let plain = Range::of(Keys::range("", "")).sorted(by, descending).limit(limit);
                let spanned =
                    Range { created: Span { from: Version(5), to: Version(15) }, ..plain.clone() };
                for range in [plain.clone(), plain.heads().counted(), spanned] {
                    if range.is_in_order() {
                        continue;
                    }
                    let (all, _) = gathered(Gather::new(&range, 1 << 20)).unwrap();
                    let (first, held) =
                        gathered(Gather::new(&range, 1 << 20).letting_go()).unwrap();
                    assert_eq!(first, all, "{range:?}");
                    assert!(held <= 2 * limit as usize, "{held} of {range:?}");
                }
            }
        }
    }

    #[test]
    fn only_what_is_shown_must_fit_an_answer() {
        let range =
            |limit| Range::of(Keys::range("", "")).sorted(SortBy::Modified, true).limit(limit);
        let bytes_max = 1_000;
        let few = range(5);
        assert!(gathered(Gather::new(&few, bytes_max)).is_err(), "all of them do not fit");
        assert_eq!(gathered(Gather::new(&few, bytes_max).letting_go()).unwrap().0.items.len(), 5);
        assert!(gathered(Gather::new(&range(150), bytes_max).letting_go()).is_err());
        // One that is too large by itself is shown by itself.
        assert_eq!(gathered(Gather::new(&range(1), 1).letting_go()).unwrap().0.items.len(), 1);
        assert!(gathered(Gather::new(&range(2), 1).letting_go()).is_err());
    }
}
