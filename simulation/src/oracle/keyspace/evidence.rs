//! What others saw of versions that nobody is known to have made.
//!
//! A version that no answer names was made by a change of unknown outcome, and there
//! may be many of those to choose from. What anybody was shown narrows the choice
//! before the search tries it: an item that was changed last at that version is what
//! the change wrote, and a key that was shown at a later version as it was before was
//! not touched by it.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    mvcc::version::Version,
    request::Item,
    shard::transaction::{StepResult, Transacted},
};

use super::{Answer, Operation, model::Space};

/// What is known of versions without a maker.
#[derive(Debug, Default)]
pub(super) struct Evidence(BTreeMap<Version, Gap>);

/// One such version.
#[derive(Debug, Default)]
struct Gap {
    /// Items that it changed last, as they were shown.
    wrote: Vec<Item>,
    /// Keys that it did not touch.
    untouched: BTreeSet<Vec<u8>>,
}

impl Evidence {
    pub(super) fn of(
        begin: Version,
        operations: &[&Operation],
        makers: &BTreeMap<Version, usize>,
    ) -> Self {
        let mut shown = Vec::new();
        for operation in operations {
            if let Some((_, answer)) = &operation.answered {
                items_of(answer, &mut shown);
            }
        }
        let last = shown.iter().map(|(upto, item)| item.modified.max(*upto)).max();
        let versions = begin.0 + 1..=last.map_or(0, |last| last.0);
        let gaps = versions.map(Version).filter(|version| !makers.contains_key(version));
        let mut all = Self(gaps.map(|version| (version, Gap::default())).collect());
        for (upto, item) in shown {
            if let Some(gap) = all.0.get_mut(&item.modified) {
                gap.wrote.push(item.clone());
            }
            let since = Version(item.modified.0 + 1);
            if since <= upto {
                for (_, gap) in all.0.range_mut(since..=upto) {
                    gap.untouched.insert(item.key.clone());
                }
            }
        }
        all
    }

    /// Whether a change of unknown outcome may have led from here to there.
    pub(super) fn allows(&self, before: &Space, after: &Space) -> bool {
        let Some(gap) = self.0.get(&before.next()) else { return true };
        let rows = after.rows();
        let wrote = |item: &Item| {
            let found = rows.get(&item.key);
            found.is_some_and(|found| {
                let value = if item.value.is_empty() { Vec::new() } else { found.value.clone() };
                Item { value, ..found.clone() } == *item
            })
        };
        let old = before.rows();
        let touched = |key: &Vec<u8>| old.get(key) != rows.get(key);
        gap.wrote.iter().all(wrote) && !gap.untouched.iter().any(touched)
    }
}

/// The items of an answer, each with the last version at which it is known to have been
/// so.
fn items_of<'a>(answer: &'a Answer, out: &mut Vec<(Version, &'a Item)>) {
    let before = |version: &Version| Version(version.0.saturating_sub(1));
    match answer {
        Answer::Item(found) => out.extend(found.iter().map(|item| (item.modified, item))),
        Answer::Range { result, at, .. } => out.extend(result.items.iter().map(|item| (*at, item))),
        Answer::Deleted { version, previous, .. } => {
            out.extend(previous.iter().map(|item| (before(version), item)));
        }
        Answer::Transacted(Transacted { version, changed, results, .. }) => {
            let upto = if *changed { before(version) } else { *version };
            for result in results.iter().flatten() {
                let items = match result {
                    StepResult::Put { previous } => previous.as_slice(),
                    StepResult::Deleted { previous, .. } => previous,
                    StepResult::Read(read) => &read.items,
                    StepResult::Nested { .. } => &[],
                };
                out.extend(items.iter().map(|item| (upto, item)));
            }
        }
        Answer::Written { .. }
        | Answer::Refused(_)
        | Answer::Compacted
        | Answer::Gone(_)
        | Answer::Future => {}
    }
}
