//! Streams of watches that rest, go away and come back elsewhere, and what they were
//! told: shared by the workloads that have them.

use std::time::Duration;

use actors::client::{Client, ClientError, Places, Watching};
use cluster::{
    mvcc::version::Version,
    request::{Fault, Item},
    shard::{
        transaction::Keys,
        watch::{Event, EventKind, Place, Watch},
    },
};

use super::{Player, Shared, Wrong};
use crate::oracle::watched::{Piece, State, Telling, Told};

/// Answers that bring a stream to what is there, once the world is whole.
const TRIES_MAX: u32 = 40;

/// Streams of all keys with a prefix, in one volume.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// Appended to the name of the clients' volume.
    home: &'static str,
    prefix: &'static str,
    known: Shared<Known>,
}

/// What clients were told.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) telling: Telling,
    /// The first of what must never be.
    pub(super) wrong: Wrong,
    streams: Vec<Stream>,
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

/// A stream under way, and its turn.
pub(super) type Open = (Watching, u64);

impl Streams {
    pub(super) fn new(home: &'static str, prefix: &'static str) -> Self {
        Self { home, prefix, known: Shared::default() }
    }

    pub(super) fn volume(&self, player: &Player) -> String {
        format!("{}-{}", player.volume, self.home)
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock()
    }

    pub(super) fn accuse(&self, player: &Player, what: String) {
        player.accuse(&mut self.lock().wrong, what);
    }

    /// So many that begin with the first version.
    pub(super) fn open(&self, count: u32) {
        let mut known = self.lock();
        known.telling.open(count);
        known.streams.extend((0..count).map(|_| Stream::default()));
    }

    /// Lets a watcher share its client with others, as streams of one door do: with it
    /// they share what is asked.
    pub(super) fn join_door(&self, player: &mut Player) {
        if player.rng.chance(700_000) {
            player.client = self.lock().door.get_or_insert_with(|| player.client.clone()).clone();
            player.trace.count("watcher at a door");
        }
    }

    /// Goes on with a stream for a while: some answers, until it goes away. `leap` says
    /// what else happens then.
    pub(super) async fn advance(
        &self,
        player: &mut Player,
        stream: usize,
        watching: &mut Option<Open>,
        leap: impl FnOnce(&mut Player),
    ) {
        if watching.is_none() {
            *watching = self.begin(player, stream).await;
        }
        if let Some((open, turn)) = watching
            && (!self.step(player, stream, open, *turn).await || player.rng.chance(80_000))
        {
            *watching = None;
            leap(player);
        }
    }

    /// Lets a stream begin anew at a later version, which may lie in the future.
    pub(super) fn begin_later(&self, stream: usize, ahead: u64) {
        let mut known = self.lock();
        if let Some(own) = known.streams.get_mut(stream) {
            own.places.clear();
        }
        let from = known.telling.upto(stream).0 + ahead;
        known.telling.begin_anew(stream, Version(from));
    }

    /// Brings a stream to a version, and says whether it got there.
    pub(super) async fn catch_up(&self, player: &Player, stream: usize, at: Version) -> bool {
        let mut watching: Option<Open> = None;
        for _ in 0..=TRIES_MAX {
            if self.upto(stream) >= at {
                return true;
            }
            if watching.is_none() {
                watching = self.begin(player, stream).await;
            }
            if let Some((open, turn)) = &mut watching
                && !self.step(player, stream, open, *turn).await
            {
                watching = None;
            }
        }
        let upto = self.upto(stream);
        self.accuse(player, format!("stream {stream} stands at {upto}, not at {at}"));
        false
    }

    pub(super) fn upto(&self, stream: usize) -> Version {
        self.lock().telling.upto(stream)
    }

    /// Begins a stream, or goes on with it.
    async fn begin(&self, player: &Player, stream: usize) -> Option<Open> {
        let (places, from, turn) = {
            let mut known = self.lock();
            let from = known.telling.streams.get(stream)?.last()?.from;
            let stream = known.streams.get_mut(stream)?;
            stream.turn += 1;
            (stream.places.clone(), from, stream.turn)
        };
        let watch = Watch::of(Keys::prefix(self.prefix)).with_previous();
        let volume = self.volume(player);
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
                    self.accuse(player, "an event came from the future".to_owned());
                }
                player.trace.count("watch answered");
                let mut known = self.lock();
                let Some(own) = known.streams.get_mut(stream) else { return false };
                own.places.clone_from(watching.places());
                for _ in &happened.events {
                    player.count_operation();
                    player.trace.count("watch event");
                }
                let upto = whole(happened.upto);
                if let Err(wrong) = known.telling.hear(stream, happened.events, upto) {
                    player.accuse(&mut known.wrong, wrong);
                }
                true
            }
            Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
                player.trace.count("watch compacted");
                player.note(&format!("stream {stream} begins anew at {compacted}"));
                let mut known = self.lock();
                let Some(own) = known.streams.get_mut(stream) else { return false };
                own.places.clear();
                known.telling.begin_anew(stream, compacted);
                false
            }
            Err(error) => {
                player.failed("watch", &error);
                true
            }
        }
    }
}

/// The last version of which all was told up to a place.
pub(super) fn whole(upto: Place) -> Version {
    Version(upto.version.0.saturating_sub(u64::from(!upto.is_whole())))
}

impl Telling {
    /// So many streams that begin with the first version.
    pub(super) fn open(&mut self, count: u32) {
        self.streams.extend((0..count).map(|_| vec![Piece::starting(Version(1))]));
    }

    /// Up to which version a stream was told everything.
    pub(super) fn upto(&self, stream: usize) -> Version {
        let piece = self.streams.get(stream).and_then(|pieces| pieces.last());
        piece.map_or(Version(0), |piece| piece.upto)
    }

    /// What a stream is told from a version on, with what was before it let go of.
    pub(super) fn begin_anew(&mut self, stream: usize, from: Version) {
        if let Some(pieces) = self.streams.get_mut(stream) {
            pieces.push(Piece::starting(from));
        }
    }

    fn piece(&mut self, stream: usize) -> Option<&mut Piece> {
        self.streams.get_mut(stream).and_then(|pieces| pieces.last_mut())
    }

    /// A stream was told all up to a version.
    pub(super) fn reach(&mut self, stream: usize, upto: Version) {
        if let Some(piece) = self.piece(stream) {
            piece.upto = piece.upto.max(upto);
        }
    }

    /// A stream is told events, and with them all up to a version.
    pub(super) fn hear(
        &mut self,
        stream: usize,
        events: Vec<Event>,
        upto: Version,
    ) -> Result<(), String> {
        let Some(piece) = self.piece(stream) else { return Ok(()) };
        let early = events.iter().any(|event| event.item.modified < piece.from);
        piece.told.extend(events.into_iter().map(told));
        self.reach(stream, upto);
        if early {
            return Err(format!("stream {stream} was told what was before its beginning"));
        }
        Ok(())
    }
}

/// How long a watcher that rests does so.
pub(super) const REST_LONG: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(4));

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An event as it is judged.
fn told(event: Event) -> Told {
    let Event { kind, item, sub, previous } = event;
    Told {
        place: (item.modified, sub),
        key: text(&item.key),
        value: (kind == EventKind::Put).then(|| text(&item.value)),
        before: previous.map(|item| text(&item.value)),
    }
}

/// Keys and values as they were read.
pub(super) fn state(items: &[Item]) -> State {
    items.iter().map(|item| (text(&item.key), text(&item.value))).collect()
}
