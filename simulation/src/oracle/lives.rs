//! What was deleted stays deleted.
//!
//! Every value is written once, so a value is one life of its key. Once a life
//! ended, nobody may be shown it at the version of its end or later, whoever
//! answers; and the next life of the key begins without a past.
//!
//! A life whose end is not known exactly (a lease was over) ends for the judge
//! at the first version at which it was seen to be gone.
//! Source: row A5 of the bug catalogue.

use std::collections::BTreeMap;

use cluster::mvcc::version::Version;

/// Lives of keys, by their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives {
    /// Those that ended, and from which version on they are gone.
    ended: BTreeMap<String, Version>,
    /// The highest version at which each was shown, and by whom.
    shown: BTreeMap<String, (Version, String)>,
    wrong: Option<String>,
}

impl Lives {
    /// A life ended: at this version it is no more. The earliest one told counts.
    pub(crate) fn end(&mut self, value: &str, version: Version) {
        let end = self.ended.entry(value.to_owned()).or_insert(version);
        *end = (*end).min(version);
    }

    /// How many ended.
    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// One of those that ended, by a number drawn below how many they are.
    pub(crate) fn one_ended(&self, draw: usize) -> Option<&str> {
        self.ended.keys().nth(draw).map(String::as_str)
    }

    /// Somebody showed a life as of a version, and how often its key was changed
    /// in it: each is written once.
    pub(crate) fn show(&mut self, value: &str, at: Version, changes: u64, whence: &str) {
        if changes > 1 {
            let wrong =
                || format!("{whence} shows {value} with a past: change {changes} of its key");
            self.wrong.get_or_insert_with(wrong);
        }
        self.show_last(value, at, whence);
    }

    /// Somebody told that a life was there up to this version.
    pub(crate) fn show_last(&mut self, value: &str, at: Version, whence: &str) {
        if self.shown.get(value).is_none_or(|(last, _)| *last < at) {
            self.shown.insert(value.to_owned(), (at, whence.to_owned()));
        }
    }

    /// Judges everything.
    ///
    /// # Errors
    /// What came back, where, and since when it should be gone.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.wrong.clone().map_or(Ok(()), Err)?;
        for (value, end) in &self.ended {
            if let Some((at, whence)) = self.shown.get(value)
                && at >= end
            {
                return Err(format!("{whence} shows {value} at {at}, which is gone since {end}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(shown: &[(&str, u64)]) -> Lives {
        let mut lives = Lives::default();
        for (value, at) in shown {
            lives.show(value, Version(*at), 1, "n1");
        }
        lives.end("a#1", Version(5));
        lives.end("a#1", Version(7));
        lives
    }

    #[test]
    fn what_is_shown_before_its_end_and_what_lives_pass() {
        assert_eq!(lives(&[("a#1", 4), ("a#2", 9), ("a#1", 2)]).check(), Ok(()));
    }

    #[test]
    fn what_is_shown_at_its_end_or_later_came_back_whenever_that_was_told() {
        for at in [5, 9] {
            let wrong = lives(&[("a#1", at), ("a#1", 4)]).check().unwrap_err();
            assert!(wrong.contains("gone since"), "{wrong}");
            let mut late = lives(&[]);
            late.show_last("a#1", Version(at), "a watch");
            assert!(late.check().unwrap_err().contains("a watch"));
        }
    }

    #[test]
    fn a_new_life_with_a_past_is_found() {
        let mut lives = lives(&[]);
        lives.show("a#2", Version(9), 2, "n1");
        assert!(lives.check().unwrap_err().contains("a past"));
    }
}
