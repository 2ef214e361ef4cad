//! What a volume is after restores, by version.
//!
//! Each restore begins an era: all versions rise over a gap that nobody may ever see,
//! and what was saved is there, as it was, but for its versions, which all rose by the
//! same number. What an era's own changes did to it, the streams of watches tell
//! (`watched.rs`).
//!
//! Source: `cluster/docs/decisions/2026-11-26-restore.md`; row B2 of the bug catalogue.

use std::{collections::BTreeSet, sync::Arc};

use cluster::{
    mvcc::version::Version,
    request::Item,
    shard::restore::{SavedId, SavedLease},
};

/// A saved snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    /// Its name.
    pub(crate) id: SavedId,
    /// The version that was saved.
    pub(crate) version: Version,
    /// Its keys, in order.
    pub(crate) items: Vec<Item>,
    /// Its leases.
    pub(crate) leases: Vec<SavedLease>,
}

/// What began with a restore.
#[derive(Clone, Debug)]
pub(crate) struct Era {
    /// The version to which all others rose.
    pub(crate) at: Version,
    /// By how much more than they had to.
    pub(crate) bump: u64,
    /// What was restored.
    pub(crate) saved: Arc<Saved>,
}

/// All eras of a volume, and the versions that anybody saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eras {
    eras: Vec<Era>,
    seen: BTreeSet<Version>,
}

impl Era {
    /// A saved key as it is after the restore.
    fn raised(&self, item: &Item) -> Item {
        let base = self.at.0.saturating_sub(self.bump).saturating_sub(self.saved.version.0);
        let above = |version: Version| Version(version.0 + base);
        Item { created: above(item.created), modified: above(item.modified), ..item.clone() }
    }

    /// All keys as they are right after the restore.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item> {
        self.saved.items.iter().map(|item| self.raised(item))
    }

    /// What was shown of one key later fits what was saved of it.
    fn check_item(&self, item: &Item) -> Result<(), String> {
        let saved = self.items().find(|saved| saved.key == item.key);
        let fits = match &saved {
            Some(saved) if item.modified <= self.at => saved == item,
            Some(saved) if item.created <= self.at => {
                item.created == saved.created && item.changes > saved.changes
            }
            None if item.modified <= self.at => false,
            Some(_) | None => item.created > self.at,
        };
        if fits {
            return Ok(());
        }
        Err(format!(
            "after the restore at {} there is {item:?}, where {saved:?} was saved",
            self.at
        ))
    }
}

impl Eras {
    /// A restore began; whether that was not known.
    pub(crate) fn begin(&mut self, era: Era) -> bool {
        let fresh = self.eras.iter().all(|known| known.at != era.at);
        if fresh {
            self.eras.push(era);
            self.eras.sort_by_key(|era| era.at);
        }
        fresh
    }

    /// Somebody saw a version.
    pub(crate) fn see(&mut self, version: Version) {
        self.seen.insert(version);
    }

    /// The newest version that anybody saw.
    pub(crate) fn newest(&self) -> Version {
        self.seen.last().copied().unwrap_or_default()
    }

    /// That of a version.
    pub(crate) fn of(&self, at: Version) -> Option<&Era> {
        self.eras.iter().rfind(|era| era.at <= at)
    }

    /// The newest.
    pub(crate) fn last(&self) -> Option<&Era> {
        self.eras.last()
    }

    /// What was shown as of a version fits what was restored before it.
    ///
    /// # Errors
    /// What does not.
    pub(crate) fn check_shown(&self, at: Version, items: &[Item]) -> Result<(), String> {
        let Some(era) = self.of(at) else { return Ok(()) };
        items.iter().try_for_each(|item| era.check_item(item))
    }

    /// Nobody saw a version between the last one before a restore and its own.
    ///
    /// # Errors
    /// Who did.
    pub(crate) fn check(&self) -> Result<(), String> {
        for Era { at, bump, .. } in &self.eras {
            let gap = Version(at.0.saturating_sub(*bump) + 1)..*at;
            if let Some(seen) = self.seen.range(gap).next() {
                return Err(format!("version {seen} was seen, just below a restore at {at}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cluster::ids::LeaseId;

    use super::*;

    fn item(created: u64, modified: u64, changes: u64) -> Item {
        Item {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            value_bytes: 1,
            created: Version(created),
            modified: Version(modified),
            changes,
            modified_ms: 0,
            lease: LeaseId(0),
        }
    }

    /// Version 5 was saved, 7 was the newest, and 100 more were added.
    fn eras() -> Eras {
        let saved = Saved {
            id: SavedId([0; 16]),
            version: Version(5),
            items: vec![item(2, 4, 3)],
            leases: Vec::new(),
        };
        let mut eras = Eras::default();
        let era = Era { at: Version(112), bump: 100, saved: Arc::new(saved) };
        assert!(eras.begin(era.clone()) && !eras.begin(era));
        eras
    }

    #[test]
    fn what_was_saved_is_there_with_raised_versions_and_later_changes_go_on_from_it() {
        let eras = eras();
        let shown = |item: Item| eras.check_shown(Version(113), &[item]);
        assert_eq!(shown(item(9, 11, 3)), Ok(()));
        assert_eq!(shown(item(9, 113, 4)), Ok(()));
        assert_eq!(shown(item(113, 113, 1)), Ok(()), "deleted and put again");
        for wrong in [item(2, 4, 3), item(9, 11, 4), item(9, 113, 3), item(10, 113, 4)] {
            assert!(shown(wrong.clone()).is_err(), "{wrong:?}");
        }
        let other = Item { key: b"other".to_vec(), ..item(9, 11, 3) };
        assert!(shown(other).is_err(), "nobody saved it");
        assert_eq!(eras.check_shown(Version(7), &[item(1, 7, 9)]), Ok(()), "before the restore");
    }

    #[test]
    fn versions_of_the_gap_are_found() {
        for (version, sound) in [(7, true), (12, true), (13, false), (111, false), (112, true)] {
            let mut eras = eras();
            eras.see(Version(version));
            assert_eq!(eras.check().is_ok(), sound, "{version}");
        }
    }
}
