//! Clients write, delete and let go of history; others watch, fall behind, go
//! away and come back through another member.
//!
//! Judged of each stream: its events are in order, each once, nothing is left
//! out between its beginning and its place, what was compacted is refused by
//! name; all streams tell the same; the value before is the one told before; an
//! acknowledged write is told; and whoever saw everything has what a read shows.
//! Source: etcd's watch guarantees, and row A1 of the bug catalogue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::client::{ClientError, Places, Watching};
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    mvcc::version::Version,
    ports::network::BoxFuture,
    request::{Fault, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Step, Transaction},
        watch::{Event, EventKind, Watch},
    },
};

use super::{Player, Workload, halve};
use crate::rng::Rng;

/// What all keys begin with.
const PREFIX: &str = "watch/";
/// Versions that a compaction leaves.
const KEPT: u64 = 12;
/// Longest a stream may lag at the end, once the world is whole.
const TRIES_MAX: u32 = 40;

/// The workload.
#[derive(Clone, Debug)]
pub struct Watches {
    writers: u32,
    watchers: u32,
    keys: u32,
    rest: (Duration, Duration),
    seen: Arc<Mutex<Seen>>,
}

/// What clients were told. A lock, though there is one thread: client tasks
/// must be `Send`.
#[derive(Debug, Default)]
struct Seen {
    /// Clients that began.
    begun: u32,
    /// Acknowledged changes of one key: its version, key and value.
    written: Vec<(Version, String, Option<String>)>,
    streams: Vec<Stream>,
    wrong: Option<String>,
}

/// A change as it was told: where, key, value, value before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    place: (Version, u32),
    key: String,
    value: Option<String>,
    before: Option<String>,
}

/// One stream, in pieces: a new one begins where history was let go of.
#[derive(Clone, Debug, Default)]
struct Stream {
    pieces: Vec<Piece>,
    places: Places,
    /// Whose turn it is: what a client hears that began before another one did
    /// is not this stream's any more.
    turn: u64,
}

/// All that happened from a version up to another.
#[derive(Clone, Debug, Default)]
struct Piece {
    from: Version,
    upto: Version,
    told: Vec<Told>,
}

fn volume(player: &Player) -> String {
    format!("{}-watched", player.volume)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Watches {
    /// Clients that write and clients that watch.
    pub fn new(writers: u32, watchers: u32, keys: u32, rest: (Duration, Duration)) -> Self {
        Self { writers, watchers, keys, rest, seen: Arc::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let busy = Duration::from_millis(20 + rng.below(120));
        let rest = (Duration::from_millis(5), busy);
        Self::new(1 + rng.number(3), 1 + rng.number(3), 2 + rng.number(5), rest)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, player: &Player, what: String) {
        player.note(&what);
        self.lock().wrong.get_or_insert(what);
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        let policy = VolumePolicy { kind: VolumeKind::Single, replicas: 3, shards: 1 };
        player.client.create_volume(&volume(&player), policy).await?;
        let mut seen = self.lock();
        for _ in 0..self.watchers {
            let piece = Piece { from: Version(1), upto: Version(0), told: Vec::new() };
            seen.streams.push(Stream { pieces: vec![piece], ..Stream::default() });
        }
        Ok(())
    }

    async fn work(self, player: Player) {
        let turn = {
            let mut seen = self.lock();
            seen.begun += 1;
            seen.begun - 1
        };
        match usize::try_from(turn.wrapping_sub(self.writers)) {
            Ok(stream) if turn >= self.writers => self.follow(player, stream).await,
            Ok(_) | Err(_) => self.write(player).await,
        }
    }

    async fn write(&self, mut player: Player) {
        let volume = volume(&player);
        let mut made = 0_u32;
        while !player.is_over() {
            made += 1;
            let key = format!("{PREFIX}{}", player.rng.number(self.keys));
            let value = format!("{}-{made}", player.number);
            let outcome = match player.rng.below(20) {
                0..11 => {
                    let put = player.client.put(&volume, &key, value.as_str()).await;
                    put.map(|done| self.written(done.version, key, Some(value)))
                }
                11..15 => {
                    let gone = player.client.delete(&volume, &key).await;
                    gone.map(|done| {
                        let version = done.version.filter(|_| done.deleted > 0);
                        self.written(version, key, None);
                    })
                }
                15..19 => {
                    let other = format!("{PREFIX}{}", self.keys);
                    let both = Transaction::new()
                        .then(Step::put(key.as_str(), value.as_str()))
                        .then(Step::put(other.as_str(), value.as_str()));
                    player.client.transact(&volume, both).await.map(|done| {
                        self.written(Some(done.version), key, Some(value.clone()));
                        self.written(Some(done.version), other, Some(value));
                    })
                }
                _ => self.compact(&player, &volume).await,
            };
            match outcome {
                Ok(()) => player.count_operation(),
                Err(error) => {
                    player.failed("change", &error);
                }
            }
            player.rest(self.rest).await;
        }
    }

    fn written(&self, version: Option<Version>, key: String, value: Option<String>) {
        if let Some(version) = version {
            self.lock().written.push((version, key, value));
        }
    }

    async fn compact(&self, player: &Player, volume: &str) -> Result<(), ClientError> {
        let none = Range::of(Keys::range("", "")).limit(1).heads();
        let now = player.client.range(volume, none, ReadLevel::Strong).await?.now;
        let version = Version(now.0.saturating_sub(KEPT).max(1));
        match player.client.compact(volume, version).await {
            Ok(_) => {
                player.trace.count("compacted");
                Ok(())
            }
            Err(ClientError::Fault { fault: Fault::Compacted { .. }, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Watches with all the vices of a client: it rests, and goes away.
    async fn follow(&self, mut player: Player, stream: usize) {
        let mut watching = None;
        while !player.is_over() {
            if watching.is_none() {
                watching = self.begin(&player, stream).await;
            }
            if let Some((open, turn)) = &mut watching
                && (!self.step(&player, stream, open, *turn).await || player.rng.chance(80_000))
            {
                watching = None;
            }
            if player.rng.chance(100_000) {
                player.rest((Duration::from_millis(500), Duration::from_secs(4))).await;
            }
            player.rest(self.rest).await;
        }
    }

    /// Begins a stream, or goes on with it.
    async fn begin(&self, player: &Player, stream: usize) -> Option<(Watching, u64)> {
        let (places, from, turn) = {
            let mut seen = self.lock();
            let stream = seen.streams.get_mut(stream)?;
            stream.turn += 1;
            (stream.places.clone(), stream.pieces.last()?.from, stream.turn)
        };
        let watch = Watch::of(Keys::prefix(PREFIX)).with_previous();
        let volume = volume(player);
        if !places.is_empty() {
            player.trace.count("watch resumed");
            return Some((player.client.watch_after(&volume, watch, places), turn));
        }
        match player.client.watch(&volume, watch, Some(from)).await {
            Ok(watching) => Some((watching, turn)),
            Err(error) => {
                player.failed("begin a watch", &error);
                None
            }
        }
    }

    /// Takes what happened next; false if the stream must begin anew.
    async fn step(
        &self,
        player: &Player,
        stream: usize,
        watching: &mut Watching,
        turn: u64,
    ) -> bool {
        let next = watching.next().await;
        if self.lock().streams.get(stream).is_none_or(|stream| stream.turn != turn) {
            return false;
        }
        match next {
            Ok(happened) => {
                if happened.events.iter().any(|event| event.item.modified > happened.now) {
                    self.wrong(player, "an event came from the future".to_owned());
                }
                player.trace.count("watch answered");
                let mut seen = self.lock();
                let Some(stream) = seen.streams.get_mut(stream) else { return false };
                stream.places.clone_from(watching.places());
                let Some(piece) = stream.pieces.last_mut() else { return false };
                for event in happened.events {
                    player.count_operation();
                    player.trace.count("watch event");
                    piece.told.push(told(event));
                }
                let whole = happened.upto.is_whole();
                let upto = happened.upto.version.0.saturating_sub(u64::from(!whole));
                piece.upto = piece.upto.max(Version(upto));
                true
            }
            Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
                player.trace.count("watch compacted");
                player.note(&format!("stream {stream} begins anew at {compacted}"));
                let mut seen = self.lock();
                let Some(stream) = seen.streams.get_mut(stream) else { return false };
                stream.places.clear();
                let piece =
                    Piece { from: compacted, upto: Version(compacted.0 - 1), told: Vec::new() };
                stream.pieces.push(piece);
                false
            }
            Err(error) => {
                player.failed("watch", &error);
                true
            }
        }
    }

    /// Brings every stream to what is there now, and compares.
    async fn look(self, player: Player) -> Result<(), ClientError> {
        let all = Range::of(Keys::prefix(PREFIX));
        let volume = volume(&player);
        let read = player.client.range(&volume, all.clone(), ReadLevel::Strong).await?;
        let streams = self.lock().streams.len();
        for stream in 0..streams {
            let mut watching = None;
            let mut tries = 0;
            while self.upto(stream) < read.at {
                if watching.is_none() {
                    watching = self.begin(&player, stream).await;
                }
                if let Some((open, turn)) = &mut watching
                    && !self.step(&player, stream, open, *turn).await
                {
                    watching = None;
                }
                tries += 1;
                if tries > TRIES_MAX {
                    let (upto, at) = (self.upto(stream), read.at);
                    self.wrong(&player, format!("stream {stream} stands at {upto}, not at {at}"));
                    break;
                }
            }
            let upto = self.upto(stream);
            let then = player.client.range(&volume, all.clone().at(upto), ReadLevel::Strong).await;
            let Ok(then) = then else { continue };
            let items = then.result.items.into_iter();
            let found = items.map(|item| (text(&item.key), text(&item.value))).collect();
            let verdict =
                self.lock().streams.get(stream).map_or(Ok(()), |s| s.compare(&found, upto));
            if let Err(wrong) = verdict {
                self.wrong(&player, format!("stream {stream} {wrong}"));
            }
        }
        Ok(())
    }

    fn upto(&self, stream: usize) -> Version {
        let seen = self.lock();
        let piece = seen.streams.get(stream).and_then(|stream| stream.pieces.last());
        piece.map_or(Version(0), |piece| piece.upto)
    }
}

fn told(event: Event) -> Told {
    let Event { kind, item, sub, previous } = event;
    Told {
        place: (item.modified, sub),
        key: text(&item.key),
        value: (kind == EventKind::Put).then(|| text(&item.value)),
        before: previous.map(|item| text(&item.value)),
    }
}

impl Stream {
    /// Whether somebody who saw everything up to a version has what was read
    /// there.
    fn compare(&self, found: &BTreeMap<String, String>, upto: Version) -> Result<(), String> {
        let [piece] = &self.pieces[..] else { return Ok(()) };
        let mut state = BTreeMap::new();
        for told in piece.told.iter().filter(|told| told.place.0 <= upto) {
            match &told.value {
                Some(value) => state.insert(told.key.clone(), value.clone()),
                None => state.remove(&told.key),
            };
        }
        if state == *found {
            return Ok(());
        }
        Err(format!("was told {state:?} up to {upto}, where a read shows {found:?}"))
    }
}

impl Piece {
    fn covers(&self, version: Version) -> bool {
        version >= self.from && version <= self.upto
    }

    /// In order, each once, and before is what was told before.
    fn check(&self) -> Result<(), String> {
        let mut last = (Version(0), 0);
        let mut values = BTreeMap::new();
        for told in &self.told {
            if told.place <= last && last.0 > Version(0) {
                return Err(format!("told {:?} after {last:?}", told.place));
            }
            last = told.place;
            if let Some(known) = values.get(&told.key)
                && *known != told.before
            {
                return Err(format!("says that before {told:?} there was not {known:?}"));
            }
            values.insert(told.key.clone(), told.value.clone());
        }
        Ok(())
    }
}

impl Seen {
    fn check(&self) -> Result<(), String> {
        let mut all: BTreeMap<(Version, u32), &Told> = BTreeMap::new();
        for (number, stream) in self.streams.iter().enumerate() {
            for piece in &stream.pieces {
                piece.check().map_err(|wrong| format!("stream {number} {wrong}"))?;
                for told in &piece.told {
                    let other = all.entry(told.place).or_insert(told);
                    if **other != *told {
                        return Err(format!("streams disagree: {other:?} and {told:?}"));
                    }
                }
            }
        }
        for (number, stream) in self.streams.iter().enumerate() {
            for piece in &stream.pieces {
                self.check_whole(piece, &all)
                    .map_err(|wrong| format!("stream {number} {wrong}"))?;
            }
        }
        Ok(())
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
}

impl Workload for Watches {
    fn name(&self) -> &'static str {
        "watches"
    }

    fn clients(&self) -> u32 {
        self.writers + self.watchers
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.watchers) || halve(&mut self.writers) || halve(&mut self.keys)
    }

    fn setup(&self, player: Player) -> BoxFuture<Result<(), ClientError>> {
        Box::pin(self.clone().open(player))
    }

    fn run(&self, player: Player) -> BoxFuture<()> {
        Box::pin(self.clone().work(player))
    }

    fn observe(&self, player: Player) -> BoxFuture<Result<(), ClientError>> {
        Box::pin(self.clone().look(player))
    }

    fn check(&self) -> Result<(), String> {
        let seen = self.lock();
        seen.wrong.clone().map_or(Ok(()), Err)?;
        seen.check()
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

    fn seen(streams: &[&[Told]]) -> Seen {
        let piece =
            |told: &&[Told]| Piece { from: Version(1), upto: Version(9), told: told.to_vec() };
        let stream = |told| Stream { pieces: vec![piece(told)], ..Stream::default() };
        let written = vec![(Version(2), "a".to_owned(), Some("1".to_owned()))];
        Seen { streams: streams.iter().map(stream).collect(), written, ..Seen::default() }
    }

    #[test]
    fn streams_that_tell_everything_once_in_order_pass() {
        let all = [
            told(2, "a", Some("1"), None),
            told(3, "a", None, Some("1")),
            told(4, "a", Some("2"), None),
        ];
        assert_eq!(seen(&[&all, &all]).check(), Ok(()));
        let found = [("a".to_owned(), "2".to_owned())].into();
        assert_eq!(seen(&[&all]).streams[0].compare(&found, Version(9)), Ok(()));
    }

    #[test]
    fn disorder_doubles_holes_forks_and_wrong_values_of_before_are_found() {
        let (a, b) = (told(2, "a", Some("1"), None), told(3, "b", Some("1"), None));
        let wrong = |streams: &[&[Told]]| seen(streams).check().unwrap_err();
        assert!(wrong(&[&[b.clone(), a.clone()]]).contains("after"));
        assert!(wrong(&[&[a.clone(), a.clone()]]).contains("after"));
        let first = std::slice::from_ref(&a);
        assert!(wrong(&[&[a.clone(), b.clone()], first]).contains("left out"));
        assert!(wrong(&[std::slice::from_ref(&b)]).contains("acknowledged"));
        assert!(wrong(&[first, &[told(2, "a", Some("9"), None)]]).contains("disagree"));
        assert!(wrong(&[&[a.clone(), told(3, "a", None, None)]]).contains("before"));
        let missed = seen(&[&[a]]).streams[0].compare(&BTreeMap::new(), Version(9));
        assert!(missed.unwrap_err().contains("a read shows"));
    }
}
