//! Clients write, delete and let go of history; others watch, fall behind, go
//! away and come back through another member.
//!
//! They also read ranges of whatever replica answers. What they were told is
//! judged by [`Telling`]; whoever saw everything has what a read shows; what was
//! compacted is refused by name.
//! Source: etcd's watch guarantees, and row A1 of the bug catalogue.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::client::{Client, ClientError, Places, Watching};
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    mvcc::version::Version,
    ports::network::BoxFuture,
    request::{Fault, Item, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Step, Transaction},
        watch::{Event, EventKind, Watch},
    },
};

use super::{Player, Workload, halve};
use crate::{
    oracle::watched::{Piece, Shown, State, Telling, Told},
    rng::Rng,
};

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
    telling: Telling,
    streams: Vec<Stream>,
    wrong: Option<String>,
    /// The client that watchers share.
    door: Option<Client>,
}

/// Where a stream goes on.
#[derive(Clone, Debug, Default)]
struct Stream {
    places: Places,
    /// Whose turn it is: what a client hears that began before another one did
    /// is not this stream's any more.
    turn: u64,
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
        let policy = VolumePolicy::new(VolumeKind::Single, 3, 1);
        player.client.create_volume(&volume(&player), policy).await?;
        let mut seen = self.lock();
        for _ in 0..self.watchers {
            seen.telling.streams.push(vec![Piece::starting(Version(1))]);
            seen.streams.push(Stream::default());
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
            self.lock().telling.written.push((version, key, value));
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
        if player.rng.chance(700_000) {
            // As streams of one door do: they share a client, and with it what is asked.
            player.client = self.lock().door.get_or_insert(player.client).clone();
            player.trace.count("watcher at a door");
        }
        let mut watching = None;
        while !player.is_over() {
            if watching.is_none() {
                watching = self.begin(&player, stream).await;
            }
            if let Some((open, turn)) = &mut watching
                && (!self.step(&player, stream, open, *turn).await || player.rng.chance(80_000))
            {
                watching = None;
                self.leap(&mut player, stream);
            }
            if player.rng.chance(100_000) {
                self.read_any(&player).await;
            }
            if player.rng.chance(100_000) {
                self.read_past(&mut player).await;
            }
            if player.rng.chance(100_000) {
                player.rest((Duration::from_millis(500), Duration::from_secs(4))).await;
            }
            player.rest(self.rest).await;
        }
    }

    /// Lets the last of several streams begin anew in the future at times.
    fn leap(&self, player: &mut Player, stream: usize) {
        let mut seen = self.lock();
        let last = stream > 0 && stream + 1 == seen.streams.len();
        if player.is_over() || !last || !player.rng.chance(200_000) {
            return;
        }
        player.trace.count("watch from the future");
        let ahead = 1 + player.rng.below(KEPT);
        if let Some(own) = seen.streams.get_mut(stream) {
            own.places.clear();
        }
        if let Some(pieces) = seen.telling.streams.get_mut(stream)
            && let Some(upto) = pieces.last().map(|piece| piece.upto)
        {
            pieces.push(Piece::starting(Version(upto.0 + ahead)));
        }
    }

    /// Reads all keys of any replica: another one each time, so versions may fall.
    async fn read_any(&self, player: &Player) {
        let all = Range::of(Keys::prefix(PREFIX));
        match player.client.range(&volume(player), all, ReadLevel::Eventual).await {
            Ok(read) => {
                player.trace.count("weak range");
                let shown = Shown { at: read.at, found: state(read.result.items) };
                self.lock().telling.read.push(vec![shown]);
            }
            Err(error) => {
                player.failed("read a range weakly", &error);
            }
        }
    }

    /// Reads all keys as of a version that may just be let go of: what was there
    /// then, or a refusal by name.
    async fn read_past(&self, player: &mut Player) {
        let newest = self.lock().telling.read.iter().flatten().map(|shown| shown.at).max();
        let Some(newest) = newest else { return };
        let at = Version(newest.0.saturating_sub(player.rng.below(KEPT * 2)).max(1));
        let all = Range::of(Keys::prefix(PREFIX)).at(at);
        let level =
            if player.rng.chance(500_000) { ReadLevel::Strong } else { ReadLevel::Eventual };
        match player.client.range(&volume(player), all, level).await {
            Ok(read) => {
                player.trace.count("past read");
                let shown = Shown { at, found: state(read.result.items) };
                self.lock().telling.read.push(vec![shown]);
            }
            Err(ClientError::Fault { fault: Fault::Compacted { .. }, .. }) => {
                player.trace.count("past compacted");
            }
            Err(error) => {
                player.failed("read the past", &error);
            }
        }
    }

    /// Begins a stream, or goes on with it.
    async fn begin(&self, player: &Player, stream: usize) -> Option<(Watching, u64)> {
        let (places, from, turn) = {
            let mut seen = self.lock();
            let from = seen.telling.streams.get(stream)?.last()?.from;
            let stream = seen.streams.get_mut(stream)?;
            stream.turn += 1;
            (stream.places.clone(), from, stream.turn)
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
                let Some(own) = seen.streams.get_mut(stream) else { return false };
                own.places.clone_from(watching.places());
                let piece = seen.telling.streams.get_mut(stream).and_then(|own| own.last_mut());
                let Some(piece) = piece else { return false };
                let early = happened.events.iter().any(|event| event.item.modified < piece.from);
                for event in happened.events {
                    player.count_operation();
                    player.trace.count("watch event");
                    piece.told.push(told(event));
                }
                let whole = happened.upto.is_whole();
                let upto = happened.upto.version.0.saturating_sub(u64::from(!whole));
                piece.upto = piece.upto.max(Version(upto));
                if early {
                    let wrong = format!("stream {stream} was told what was before its beginning");
                    player.accuse(&mut seen.wrong, wrong);
                }
                true
            }
            Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
                player.trace.count("watch compacted");
                player.note(&format!("stream {stream} begins anew at {compacted}"));
                let mut seen = self.lock();
                let Some(own) = seen.streams.get_mut(stream) else { return false };
                own.places.clear();
                if let Some(pieces) = seen.telling.streams.get_mut(stream) {
                    pieces.push(Piece::starting(compacted));
                }
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
            let verdict = self.lock().telling.compare(stream, &state(then.result.items), upto);
            if let Err(wrong) = verdict {
                self.wrong(&player, format!("stream {stream} {wrong}"));
            }
        }
        Ok(())
    }

    fn upto(&self, stream: usize) -> Version {
        let seen = self.lock();
        let piece = seen.telling.streams.get(stream).and_then(|pieces| pieces.last());
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

fn state(items: Vec<Item>) -> State {
    items.into_iter().map(|item| (text(&item.key), text(&item.value))).collect()
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
        seen.telling.check().map(drop)
    }
}
