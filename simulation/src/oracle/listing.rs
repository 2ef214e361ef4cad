//! Does a list show one moment?
//!
//! What is promised: a strong list is read as of one moment; it misses nothing
//! acknowledged before it began, shows nothing begun after its first page was
//! there, and no client's later change without its earlier one. Keys come in
//! order, each once. A key is put once and perhaps deleted once, by one client.
//!
//! How it is judged: what a list shows of one key bounds the moment from below
//! (the change was called) or above (it had returned). Per client, and for all
//! clients against the list's own times, the greatest lower bound must not lie
//! above the least upper one.
//! Source: the root README's guarantees; Wing and Gong for the windows.

use std::{collections::BTreeMap, fmt};

use cluster::units::Instant;

/// When something was asked, and when it was answered; none if its outcome is
/// unknown: it happens later, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The call.
    pub called: Instant,
    /// The return.
    pub returned: Option<Instant>,
}

/// The life of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its one owner.
    pub client: u32,
    /// When it was put.
    pub put: Window,
    /// When it was deleted, if it was tried.
    pub deleted: Option<Window>,
}

/// A list that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Who listed.
    pub client: u32,
    /// The keys in the order in which they came.
    pub keys: Vec<String>,
    /// When it began.
    pub began: Instant,
    /// When its first page was there: the moment it shows is not later.
    pub stood: Instant,
    /// Whether the list was strong. A weaker one shows some moment of each
    /// shard and only promises order and truth.
    pub strong: bool,
}

/// Bounds of the moment a list shows, with the keys that set them.
#[derive(Clone, Debug)]
struct Bounds<'a> {
    from: (Instant, &'a str),
    to: (Instant, &'a str),
}

/// Judges all lists against the lives of all keys.
///
/// # Errors
/// The first list that shows no one moment.
pub fn check(lives: &BTreeMap<String, Life>, lists: &[Listed]) -> Result<(), String> {
    lists.iter().try_for_each(|list| check_list(lives, list).map_err(|why| told(list, &why)))
}

fn told(list: &Listed, why: &impl fmt::Display) -> String {
    let ms = |at: Instant| at.as_nanos() / 1_000_000;
    let (began, stood) = (ms(list.began), ms(list.stood));
    format!("a list of c{} [{began}..{stood} ms] {why}", list.client)
}

fn check_list(lives: &BTreeMap<String, Life>, list: &Listed) -> Result<(), String> {
    let mut pairs = list.keys.iter().zip(list.keys.iter().skip(1));
    if let Some((first, second)) = pairs.find(|(first, second)| first >= second) {
        return Err(format!("is not in order: {first} before {second}"));
    }
    if let Some(invented) = list.keys.iter().find(|key| !lives.contains_key(*key)) {
        return Err(format!("shows {invented}, which nobody ever put"));
    }
    if !list.strong {
        return Ok(());
    }
    let whole = Bounds { from: (list.began, "its beginning"), to: (list.stood, "its first page") };
    let mut by_client: BTreeMap<u32, Bounds<'_>> = BTreeMap::new();
    for (key, life) in lives {
        let seen = list.keys.binary_search(key).is_ok();
        let bounds = by_client.entry(life.client).or_insert_with(|| whole.clone());
        bounds.narrow(key, life, seen, list);
        if bounds.from.0 > bounds.to.0 {
            let (after, before) = (bounds.from.1, bounds.to.1);
            let verb = if seen { "shows" } else { "misses" };
            return Err(format!(
                "{verb} {key} of c{}: what it shows is after {after} and before {before}",
                life.client
            ));
        }
    }
    Ok(())
}

impl<'a> Bounds<'a> {
    fn after(&mut self, at: Instant, key: &'a str) {
        if at > self.from.0 {
            self.from = (at, key);
        }
    }

    fn before(&mut self, at: Option<Instant>, key: &'a str) {
        if let Some(at) = at.filter(|at| *at < self.to.0) {
            self.to = (at, key);
        }
    }

    fn narrow(&mut self, key: &'a str, life: &Life, seen: bool, list: &Listed) {
        if seen {
            self.after(life.put.called, key);
            self.before(life.deleted.and_then(|deleted| deleted.returned), key);
            return;
        }
        // Not there: not put yet, or deleted already. Which of the two is known
        // when the list's own times leave only one.
        let deleted = life.deleted.filter(|deleted| deleted.called <= list.stood);
        let put_before = life.put.returned.is_some_and(|returned| returned < list.began);
        match deleted {
            Some(deleted) if put_before => self.after(deleted.called, key),
            Some(_) => {}
            None => self.before(life.put.returned, key),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(ms)
    }

    fn window(called: u64, returned: u64) -> Window {
        Window { called: at(called), returned: Some(at(returned)) }
    }

    fn life(client: u32, put: Window, deleted: Option<Window>) -> Life {
        Life { client, put, deleted }
    }

    fn listed(keys: &[&str], began: u64, stood: u64) -> Listed {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Listed { client: 9, keys, began: at(began), stood: at(stood), strong: true }
    }

    fn lives() -> BTreeMap<String, Life> {
        let unknown = Window { called: at(5), returned: None };
        [
            ("a", life(1, window(0, 10), None)),
            ("b", life(1, window(20, 30), Some(window(60, 70)))),
            ("c", life(1, window(40, 50), None)),
            ("d", life(2, unknown, None)),
        ]
        .map(|(key, life)| (key.to_owned(), life))
        .into()
    }

    fn judge(keys: &[&str], began: u64, stood: u64) -> Result<(), String> {
        check(&lives(), &[listed(keys, began, stood)])
    }

    #[test]
    fn a_list_of_one_moment_passes() {
        assert_eq!(judge(&[], 0, 5), Ok(()));
        assert_eq!(judge(&["a"], 12, 15), Ok(()));
        assert_eq!(judge(&["a", "b"], 12, 45), Ok(()));
        assert_eq!(judge(&["a", "b", "c"], 12, 45), Ok(()));
        assert_eq!(judge(&["a", "c", "d"], 80, 90), Ok(()));
        assert_eq!(judge(&["a", "c"], 80, 90), Ok(()));
    }

    #[test]
    fn a_list_that_misses_what_was_acknowledged_is_found() {
        assert!(judge(&[], 12, 15).is_err());
        assert!(judge(&["c"], 80, 90).is_err());
    }

    #[test]
    fn a_list_that_shows_what_was_deleted_before_or_put_after_is_found() {
        assert!(judge(&["a", "b", "c"], 80, 90).is_err());
        assert!(judge(&["a", "b", "c"], 12, 35).is_err());
    }

    #[test]
    fn a_later_change_without_an_earlier_one_of_the_same_client_is_found() {
        assert!(judge(&["a", "c"], 12, 45).is_err(), "c was put after b");
    }

    #[test]
    fn disorder_doubles_and_inventions_are_found_at_every_level() {
        for keys in [&["c", "a"][..], &["a", "a", "c"], &["a", "c", "x"]] {
            let list = Listed { strong: false, ..listed(keys, 80, 90) };
            assert!(check(&lives(), &[list]).is_err(), "{keys:?}");
        }
        let old = Listed { strong: false, ..listed(&[], 80, 90) };
        assert_eq!(check(&lives(), &[old]), Ok(()));
    }
}
