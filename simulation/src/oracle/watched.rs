//! What watchers and readers of one store were told, judged together.
//!
//! Of each stream: its events are in order, each once, nothing is left out
//! between its beginning and its place; all streams tell the same; the value
//! before is the one told before; an acknowledged write is told. Of each range
//! that was read at a weak level: it shows what was there at the version it
//! names, all of it, and on one connection versions never fall.
//!
//! A restore puts another state in the place of what there was, and tells no events:
//! no piece reaches over it, and what is there afterwards begins with its state.
//!
//! Pure, and of nothing but the core's words: the test of the etcd door
//! (`node/tests/etcd_watches.rs`) includes this file and judges by it too.
//! Source: etcd's guarantees for watches and serializable reads.

use std::collections::BTreeMap;

use cluster::mvcc::version::Version;

/// Keys and their values.
pub type State = BTreeMap<String, String>;

/// A change as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its version, and its place among the changes of that version.
    pub place: (Version, u32),
    /// The key.
    pub key: String,
    /// Its value; none if it was deleted.
    pub value: Option<String>,
    /// The value before.
    pub before: Option<String>,
}

/// All that happened from a version up to another.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// The first version of which it may tell.
    pub from: Version,
    /// The last one of which it told everything.
    pub upto: Version,
    /// What it told.
    pub told: Vec<Told>,
}

/// What a range showed.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The version it says it shows.
    pub at: Version,
    /// What was there.
    pub found: State,
}

/// A state that came with no events: that of a restore.
#[derive(Clone, Debug)]
pub struct Base {
    /// The version to which the restore raised all others.
    pub at: Version,
    /// What was there then.
    pub state: State,
}

/// Everything that clients were told of one store.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// Streams, in pieces: a new one begins where history was let go of.
    pub streams: Vec<Vec<Piece>>,
    /// Acknowledged changes: version, key and value.
    pub written: Vec<(Version, String, Option<String>)>,
    /// Ranges read at a weak level, by connection.
    pub read: Vec<Vec<Shown>>,
    /// Restores, in order.
    pub bases: Vec<Base>,
}

impl Piece {
    /// A piece that has told nothing yet.
    pub fn starting(from: Version) -> Self {
        Self { from, upto: Version(from.0.saturating_sub(1)), told: Vec::new() }
    }

    fn covers(&self, version: Version) -> bool {
        version >= self.from && version <= self.upto
    }

    /// Whether it tells all that happened since a restore.
    fn begins_with(&self, base: &Base) -> bool {
        self.from >= base.at && self.from.0 <= base.at.0 + 1
    }

    /// In order, each once, and before is what was told before.
    fn check(&self, bases: &[Base]) -> Result<(), String> {
        let over = |base: &&Base| self.from < base.at && self.upto >= base.at;
        if let Some(base) = bases.iter().find(over) {
            let (from, upto) = (self.from, self.upto);
            return Err(format!("went from {from} to {upto}, over a restore at {}", base.at));
        }
        let base = bases.iter().find(|base| self.begins_with(base));
        let first = |key: &String| base.map(|base| base.state.get(key).cloned());
        let mut last = (Version(0), 0);
        let mut values = BTreeMap::new();
        for told in &self.told {
            if told.place <= last && last.0 > Version(0) {
                return Err(format!("told {:?} after {last:?}", told.place));
            }
            last = told.place;
            if let Some(known) = values.get(&told.key).cloned().or_else(|| first(&told.key))
                && known != told.before
            {
                return Err(format!("says that before {told:?} there was not {known:?}"));
            }
            values.insert(told.key.clone(), told.value.clone());
        }
        Ok(())
    }
}

/// What is there after changes up to a version, since a restore if there was one.
fn state_at<'t>(
    base: Option<&Base>,
    changes: impl Iterator<Item = &'t Told>,
    at: Version,
) -> State {
    let mut state = base.map(|base| base.state.clone()).unwrap_or_default();
    let from = base.map(|base| base.at).unwrap_or_default();
    for told in changes.filter(|told| told.place.0 > from && told.place.0 <= at) {
        match &told.value {
            Some(value) => state.insert(told.key.clone(), value.clone()),
            None => state.remove(&told.key),
        };
    }
    state
}

impl Telling {
    /// Whether a stream that saw everything up to a version has what was read
    /// there. One that lost its beginning is not judged.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&self, stream: usize, found: &State, upto: Version) -> Result<(), String> {
        let Some([others @ .., piece]) = self.streams.get(stream).map(Vec::as_slice) else {
            return Ok(());
        };
        let base = self.base(upto);
        if !base.map_or(others.is_empty(), |base| piece.begins_with(base)) {
            return Ok(());
        }
        let state = state_at(base, piece.told.iter(), upto);
        if state == *found {
            return Ok(());
        }
        Err(format!("was told {state:?} up to {upto}, where a read shows {found:?}"))
    }

    /// Judges everything. Returns how many ranges could be judged: of those
    /// after a gap in what all streams know together, only the order is.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn check(&self) -> Result<usize, String> {
        let mut all: BTreeMap<(Version, u32), &Told> = BTreeMap::new();
        for (number, piece) in self.pieces() {
            piece.check(&self.bases).map_err(|wrong| format!("stream {number} {wrong}"))?;
            for told in &piece.told {
                let other = all.entry(told.place).or_insert(told);
                if **other != *told {
                    return Err(format!("streams disagree: {other:?} and {told:?}"));
                }
            }
        }
        for (number, piece) in self.pieces() {
            self.check_whole(piece, &all).map_err(|wrong| format!("stream {number} {wrong}"))?;
        }
        self.check_read(&all)
    }

    fn pieces(&self) -> impl Iterator<Item = (usize, &Piece)> {
        let numbered = self.streams.iter().enumerate();
        numbered.flat_map(|(number, stream)| stream.iter().map(move |piece| (number, piece)))
    }

    /// Nothing is left out of a piece that anybody knows of.
    fn check_whole(
        &self,
        piece: &Piece,
        all: &BTreeMap<(Version, u32), &Told>,
    ) -> Result<(), String> {
        let mine: BTreeMap<_, _> = piece.told.iter().map(|told| (told.place, told)).collect();
        let missing = |(place, _): &(&(Version, u32), &&Told)| {
            piece.covers(place.0) && !mine.contains_key(*place)
        };
        if let Some((_, told)) = all.iter().find(missing) {
            return Err(format!("left out {told:?}"));
        }
        for (version, key, value) in &self.written {
            let told = || {
                let same = |told: &&Told| told.key == *key && told.value == *value;
                let subs = mine.range((*version, 0)..=(*version, u32::MAX));
                subs.map(|(_, told)| *told).any(|told| same(&told))
            };
            if piece.covers(*version) && !told() {
                return Err(format!("left out {key} = {value:?} at {version}, acknowledged"));
            }
        }
        Ok(())
    }

    /// The last restore up to a version.
    fn base(&self, at: Version) -> Option<&Base> {
        self.bases.iter().rfind(|base| base.at <= at)
    }

    /// Up to which version streams know everything together, from one on.
    fn known(&self, from: Version) -> Version {
        let mut pieces: Vec<&Piece> = self.pieces().map(|(_, piece)| piece).collect();
        pieces.sort_by_key(|piece| piece.from);
        let mut known = from;
        for piece in pieces {
            if piece.from.0 <= known.0 + 1 {
                known = known.max(piece.upto);
            }
        }
        known
    }

    fn check_read(&self, all: &BTreeMap<(Version, u32), &Told>) -> Result<usize, String> {
        let mut known: BTreeMap<Version, Version> = BTreeMap::new();
        let mut judged = 0;
        for connection in &self.read {
            let mut last = Version(0);
            for Shown { at, found } in connection {
                if *at < last {
                    return Err(format!("a connection read version {at} after {last}"));
                }
                last = *at;
                let base = self.base(*at);
                let from = base.map(|base| base.at).unwrap_or_default();
                if *at > *known.entry(from).or_insert_with(|| self.known(from)) {
                    continue;
                }
                judged += 1;
                let state = state_at(base, all.values().copied(), *at);
                if state != *found {
                    return Err(format!("a range shows {found:?} at {at}, where {state:?} was"));
                }
            }
        }
        Ok(judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: u64, key: &str, value: Option<&str>, before: Option<&str>) -> Told {
        Told {
            place: (Version(version), 0),
            key: key.into(),
            value: value.map(Into::into),
            before: before.map(Into::into),
        }
    }

    fn telling(streams: &[&[Told]]) -> Telling {
        let piece = |told: &&[Told]| {
            vec![Piece { from: Version(1), upto: Version(9), told: told.to_vec() }]
        };
        let written = vec![(Version(2), "a".to_owned(), Some("1".to_owned()))];
        let streams = streams.iter().map(piece).collect();
        Telling { streams, written, ..Telling::default() }
    }

    fn shown(at: u64, value: Option<&str>) -> Shown {
        let found = value.map(|value| ("a".to_owned(), value.to_owned()));
        Shown { at: Version(at), found: found.into_iter().collect() }
    }

    fn life() -> [Told; 3] {
        [
            told(2, "a", Some("1"), None),
            told(3, "a", None, Some("1")),
            told(4, "a", Some("2"), None),
        ]
    }

    #[test]
    fn streams_that_tell_everything_once_in_order_pass() {
        let all = life();
        assert_eq!(telling(&[&all, &all]).check(), Ok(0));
        let found = [("a".to_owned(), "2".to_owned())].into();
        assert_eq!(telling(&[&all]).compare(0, &found, Version(9)), Ok(()));
    }

    #[test]
    fn disorder_doubles_holes_forks_and_wrong_values_of_before_are_found() {
        let (a, b) = (told(2, "a", Some("1"), None), told(3, "b", Some("1"), None));
        let wrong = |streams: &[&[Told]]| telling(streams).check().unwrap_err();
        assert!(wrong(&[&[b.clone(), a.clone()]]).contains("after"));
        assert!(wrong(&[&[a.clone(), a.clone()]]).contains("after"));
        let first = std::slice::from_ref(&a);
        assert!(wrong(&[&[a.clone(), b.clone()], first]).contains("left out"));
        assert!(wrong(&[std::slice::from_ref(&b)]).contains("acknowledged"));
        assert!(wrong(&[first, &[told(2, "a", Some("9"), None)]]).contains("disagree"));
        assert!(wrong(&[&[a.clone(), told(3, "a", None, None)]]).contains("before"));
        let missed = telling(&[&[a]]).compare(0, &State::new(), Version(9));
        assert!(missed.unwrap_err().contains("a read shows"));
    }

    #[test]
    fn after_a_restore_there_is_its_state_and_no_stream_goes_over_it() {
        let state: State = [("b".to_owned(), "9".to_owned())].into();
        let piece = |from, upto, told: &[Told]| Piece {
            from: Version(from),
            upto: Version(upto),
            told: told.to_vec(),
        };
        let judge = |pieces: &[Piece], read: &[Shown]| {
            let bases = vec![Base { at: Version(20), state: state.clone() }];
            let (streams, read) = (vec![pieces.to_vec()], vec![read.to_vec()]);
            Telling { streams, read, bases, ..Telling::default() }.check()
        };
        let before = piece(1, 4, &life());
        let after = |value| piece(20, 22, &[told(21, "b", None, value)]);
        let restored = Shown { at: Version(20), found: state.clone() };
        let read = [shown(4, Some("2")), restored, shown(21, None), shown(23, None)];
        assert_eq!(judge(&[before.clone(), after(Some("9"))], &read), Ok(3));
        let wrong = |pieces: &[Piece], read: &[Shown]| judge(pieces, read).unwrap_err();
        assert!(wrong(&[piece(1, 22, &life())], &[]).contains("over a restore"));
        assert!(wrong(&[before.clone(), after(None)], &[]).contains("before"));
        let pieces = [before, after(Some("9"))];
        assert!(wrong(&pieces, &[shown(20, None)]).contains("a range shows"));
        assert!(wrong(&pieces, &[shown(20, Some("2"))]).contains("a range shows"), "the past");
    }

    #[test]
    fn a_range_shows_what_was_there_and_versions_never_fall() {
        let read = |connections: &[&[Shown]]| {
            let read = connections.iter().map(|shown| shown.to_vec()).collect();
            Telling { read, ..telling(&[&life()]) }.check()
        };
        let (early, gone, late) = (shown(2, Some("1")), shown(3, None), shown(5, Some("2")));
        let other = std::slice::from_ref(&early);
        assert_eq!(read(&[&[early.clone(), gone, late.clone()], other]), Ok(4));
        assert!(read(&[&[late, early]]).unwrap_err().contains("after"));
        assert!(read(&[&[shown(3, Some("1"))]]).unwrap_err().contains("a range shows"));
        assert!(read(&[&[shown(4, None)]]).unwrap_err().contains("a range shows"));
        assert_eq!(read(&[&[shown(10, None)]]), Ok(0), "nobody knows what was there");
    }
}
