//! One ordered, resumable list out of the pages of several shards.
//!
//! Every shard is asked as of the same version, so the list is a cut: nothing
//! written while it runs appears in it. The next item is the smallest head of
//! all shards, known only while every shard that has more to give has a head
//! here; so the merge first says which pages it wants. The place reached
//! ([`Cursor`]) is the version and the last key given out, nothing else, and
//! another process may go on from it.

use std::collections::{BTreeMap, VecDeque};

use crate::{ids::ShardId, mvcc::version::Version, request::Item};

/// Where a list stands: enough to go on, in another process too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The version the whole list is read at.
    pub at: Version,
    /// The last key given out; none at the beginning.
    pub after: Option<Vec<u8>>,
}

/// A token that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token of a list: start the list anew")]
pub struct CursorError;

impl Cursor {
    /// The cursor as a token of printable characters: `<version>.<hex of key>`.
    pub fn to_token(&self) -> String {
        use std::fmt::Write;
        let mut token = format!("{:x}", self.at.0);
        if let Some(after) = &self.after {
            token.push('.');
            for byte in after {
                // Writing into a String cannot fail.
                let _ = write!(token, "{byte:02x}");
            }
        }
        token
    }

    /// Reads a token.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_token(token: &str) -> Result<Self, CursorError> {
        let (at, after) = match token.split_once('.') {
            Some((at, after)) => (at, Some(key_from_hex(after)?)),
            None => (token, None),
        };
        let at = u64::from_str_radix(at, 16).map_err(|_| CursorError)?;
        Ok(Self { at: Version(at), after })
    }
}

fn key_from_hex(text: &str) -> Result<Vec<u8>, CursorError> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(CursorError);
    }
    (0..text.len())
        .step_by(2)
        .map(|at| {
            let digits = text.get(at..at + 2).ok_or(CursorError)?;
            u8::from_str_radix(digits, 16).map_err(|_| CursorError)
        })
        .collect()
}

/// A page the merge needs before it can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageWanted {
    /// Of which shard.
    pub shard: ShardId,
    /// Keys strictly after this.
    pub after: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Source {
    items: VecDeque<Item>,
    after: Option<Vec<u8>>,
    drained: bool,
}

/// The merge of one list.
#[derive(Debug)]
pub struct Merge {
    sources: BTreeMap<ShardId, Source>,
}

impl Merge {
    /// A list over `shards` that goes on after `after`.
    pub fn new(shards: impl IntoIterator<Item = ShardId>, after: Option<&[u8]>) -> Self {
        let source = || Source { after: after.map(<[u8]>::to_vec), ..Source::default() };
        Self { sources: shards.into_iter().map(|shard| (shard, source())).collect() }
    }

    /// Pages needed before [`Self::pop`] can give the next item.
    pub fn wanted(&self) -> Vec<PageWanted> {
        self.sources
            .iter()
            .filter(|(_, source)| source.items.is_empty() && !source.drained)
            .map(|(shard, source)| PageWanted { shard: *shard, after: source.after.clone() })
            .collect()
    }

    /// Takes a page in. `more` says whether the shard has further items.
    pub fn feed(&mut self, shard: ShardId, items: Vec<Item>, more: bool) {
        let Some(source) = self.sources.get_mut(&shard) else { return };
        // A page without items cannot move the place; believing its `more`
        // would ask for it for ever.
        source.drained = !more || items.is_empty();
        if let Some(last) = items.last() {
            source.after = Some(last.key.clone());
        }
        source.items.extend(items);
    }

    /// The next item in order; none while a page is wanted or at the end.
    pub fn pop(&mut self) -> Option<Item> {
        if self.sources.values().any(|source| source.items.is_empty() && !source.drained) {
            return None;
        }
        let next = self
            .sources
            .values_mut()
            .filter(|source| !source.items.is_empty())
            .min_by(|a, b| head(a).cmp(&head(b)))?;
        next.items.pop_front()
    }

    /// Whether everything was given out.
    pub fn is_done(&self) -> bool {
        self.sources.values().all(|source| source.drained && source.items.is_empty())
    }
}

fn head(source: &Source) -> Option<&[u8]> {
    source.items.front().map(|item| item.key.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str) -> Item {
        Item {
            key: key.into(),
            value: Vec::new(),
            value_bytes: 0,
            created: Version(1),
            modified: Version(1),
            changes: 1,
            modified_ms: 0,
            lease: crate::ids::LeaseId(0),
        }
    }

    /// Feeds pages of two items out of sorted lists until the merge is done.
    fn run(lists: &[&[&str]], after: Option<&str>) -> Vec<String> {
        let ids = (1..).map(ShardId).take(lists.len());
        let mut merge = Merge::new(ids, after.map(str::as_bytes));
        let mut out = Vec::new();
        while !merge.is_done() {
            for wanted in merge.wanted() {
                let list = lists[usize::try_from(wanted.shard.0).unwrap() - 1];
                let mut rest = list.iter().filter(|key| {
                    wanted.after.as_deref().is_none_or(|after| key.as_bytes() > after)
                });
                let page: Vec<Item> = rest.by_ref().take(2).map(|key| item(key)).collect();
                merge.feed(wanted.shard, page, rest.next().is_some());
            }
            while let Some(item) = merge.pop() {
                out.push(String::from_utf8(item.key).unwrap());
            }
        }
        out
    }

    #[test]
    fn pages_of_many_shards_come_out_in_one_order() {
        let lists: [&[&str]; 3] = [&["a", "d", "e", "z"], &["b", "c", "f"], &[]];
        assert_eq!(run(&lists, None), ["a", "b", "c", "d", "e", "f", "z"]);
    }

    #[test]
    fn a_list_resumes_after_any_key_without_gap_or_double() {
        let lists: [&[&str]; 2] = [&["a", "c", "e", "g"], &["b", "d", "f"]];
        let all = run(&lists, None);
        for (place, key) in all.iter().enumerate() {
            assert_eq!(run(&lists, Some(key)), all[place + 1..]);
        }
    }

    #[test]
    fn nothing_comes_out_while_a_shard_may_still_hold_a_smaller_key() {
        let mut merge = Merge::new([ShardId(1), ShardId(2)], None);
        merge.feed(ShardId(1), vec![item("a")], false);
        assert_eq!(merge.pop(), None);
        merge.feed(ShardId(2), vec![item("A")], false);
        assert_eq!(merge.pop().map(|item| item.key), Some(b"A".to_vec()));
    }

    #[test]
    fn a_shard_that_promises_more_but_gives_nothing_ends_the_list() {
        let mut merge = Merge::new([ShardId(1)], None);
        merge.feed(ShardId(1), Vec::new(), true);
        assert!(merge.is_done());
    }

    #[test]
    fn a_cursor_reads_back_whatever_the_key() {
        for after in [None, Some(Vec::new()), Some(b"a.b\0\xff".to_vec())] {
            let cursor = Cursor { at: Version(0xfeed), after };
            assert_eq!(Cursor::from_token(&cursor.to_token()), Ok(cursor));
        }
        for bad in ["", "x", "1.f", "1.zz", "1.\u{e9}\u{e9}"] {
            assert_eq!(Cursor::from_token(bad), Err(CursorError), "{bad}");
        }
    }
}
