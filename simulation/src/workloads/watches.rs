//! Clients write, delete and let go of history; others watch, fall behind, go
//! away and come back through another member.
//!
//! They also read ranges of whatever replica answers. What they were told is
//! judged by `Telling`; whoever saw everything has what a read shows; what was
//! compacted is refused by name.
//! Source: etcd's watch guarantees, and row A1 of the bug catalogue.

use std::time::Duration;

use actors::client::ClientError;
use cluster::{
    mvcc::version::Version,
    request::{Fault, Item, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Step, StepResult, Transaction},
    },
};

use super::{
    Play, Player, Shared, draw_rest, halve,
    streams::{REST_LONG, Streams, state},
};
use crate::{oracle::watched::Shown, rng::Rng};

/// What all keys begin with.
const PREFIX: &str = "watch/";
/// Behind all keys.
const END: &str = "watch0";
/// Versions that a compaction leaves.
const KEPT: u64 = 12;

/// The workload.
#[derive(Clone, Debug)]
pub struct Watches {
    writers: u32,
    watchers: u32,
    /// Clients that only read.
    readers: u32,
    keys: u32,
    rest: (Duration, Duration),
    /// Clients that began.
    begun: Shared<u32>,
    streams: Streams,
}

impl Watches {
    /// Clients that write and clients that watch.
    pub fn new(writers: u32, watchers: u32, keys: u32, rest: (Duration, Duration)) -> Self {
        let streams = Streams::new("watched", PREFIX);
        Self { writers, watchers, readers: 0, keys, rest, begun: Shared::default(), streams }
    }

    /// Besides, clients that do nothing but read from any replica.
    #[must_use]
    pub fn with_readers(self, readers: u32) -> Self {
        Self { readers, ..self }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..140);
        Self::new(1 + rng.number(3), 1 + rng.number(3), 2 + rng.number(5), rest)
    }
}

impl Play for Watches {
    const NAME: &'static str = "watches";

    fn clients(&self) -> u32 {
        self.writers + self.watchers + self.readers
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.readers)
            || halve(&mut self.watchers)
            || halve(&mut self.writers)
            || halve(&mut self.keys)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        player.create_single(&self.streams.volume(&player)).await?;
        self.streams.open(self.watchers);
        Ok(())
    }

    async fn work(self, player: Player) {
        match self.begun.turn().checked_sub(self.writers) {
            None => self.write(player).await,
            Some(stream) if stream < self.watchers => self.follow(player, stream as usize).await,
            Some(_) => self.read(player).await,
        }
    }

    /// Brings every stream to what is there now, and compares.
    async fn look(self, player: Player) -> Result<(), ClientError> {
        let all = Range::of(Keys::prefix(PREFIX));
        let volume = self.streams.volume(&player);
        let read = player.client.range(&volume, all.clone(), ReadLevel::Strong).await?;
        for stream in 0..self.watchers as usize {
            self.streams.catch_up(&player, stream, read.at).await;
            let upto = self.streams.upto(stream);
            let then = player.client.range(&volume, all.clone().at(upto), ReadLevel::Strong).await;
            let Ok(then) = then else { continue };
            let verdict =
                self.streams.lock().telling.compare(stream, &state(&then.result.items), upto);
            if let Err(wrong) = verdict {
                self.streams.accuse(&player, format!("stream {stream} {wrong}"));
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let known = self.streams.lock();
        known.wrong.verdict()?;
        known.telling.check().map(drop)
    }
}

impl Watches {
    async fn write(&self, mut player: Player) {
        let volume = self.streams.volume(&player);
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
            self.streams.lock().telling.written.push((version, key, value));
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
        self.streams.join_door(&mut player);
        let mut watching = None;
        while !player.is_over() {
            let leap = |player: &mut Player| self.leap(player, stream);
            self.streams.advance(&mut player, stream, &mut watching, leap).await;
            if player.rng.chance(100_000) {
                self.read_any(&player).await;
                self.look_any(&player).await;
            }
            if player.rng.chance(100_000) {
                self.read_past(&mut player).await;
            }
            if player.rng.chance(100_000) {
                player.rest(REST_LONG).await;
            }
            player.rest(self.rest).await;
        }
    }

    /// Lets the last of several streams begin anew in the future at times.
    fn leap(&self, player: &mut Player, stream: usize) {
        let last = stream > 0 && stream + 1 == self.watchers as usize;
        if player.is_over() || !last || !player.rng.chance(200_000) {
            return;
        }
        player.trace.count("watch from the future");
        let ahead = 1 + player.rng.below(KEPT);
        self.streams.begin_later(stream, ahead);
    }

    async fn read(&self, mut player: Player) {
        while !player.is_over() {
            self.read_any(&player).await;
            self.look_any(&player).await;
            player.rest(self.rest).await;
        }
    }

    /// Reads all keys of any replica: another one each time, so versions may fall.
    async fn read_any(&self, player: &Player) {
        let all = Range::of(Keys::prefix(PREFIX));
        match player.client.range(&self.streams.volume(player), all, ReadLevel::Eventual).await {
            Ok(read) => {
                player.trace.count("weak range");
                let shown = Shown { at: read.at, found: state(&read.result.items) };
                self.streams.lock().telling.read.push(vec![shown]);
            }
            Err(error) => {
                player.failed("read a range weakly", &error);
            }
        }
    }

    /// The same by a transaction, in two halves that must be of one moment.
    async fn look_any(&self, player: &Player) {
        let middle = format!("{PREFIX}{}", self.keys / 2);
        let halves = Transaction::new()
            .then(Step::get(Keys::range(PREFIX, middle.as_str())))
            .then(Step::get(Keys::range(middle.as_str(), END)));
        let volume = self.streams.volume(player);
        match player.client.look(&volume, halves, ReadLevel::Eventual).await {
            Ok(looked) => {
                player.trace.count("weak look");
                let items = looked.results.iter().flatten().filter_map(read_items);
                let shown = Shown { at: looked.version, found: items.flat_map(state).collect() };
                self.streams.lock().telling.read.push(vec![shown]);
            }
            Err(error) => {
                player.failed("look weakly", &error);
            }
        }
    }

    /// Reads all keys as of a version that may just be let go of: what was there
    /// then, or a refusal by name.
    async fn read_past(&self, player: &mut Player) {
        let newest = self.streams.lock().telling.read.iter().flatten().map(|shown| shown.at).max();
        let Some(newest) = newest else { return };
        let at = Version(newest.0.saturating_sub(player.rng.below(KEPT * 2)).max(1));
        let all = Range::of(Keys::prefix(PREFIX)).at(at);
        let level =
            if player.rng.chance(500_000) { ReadLevel::Strong } else { ReadLevel::Eventual };
        match player.client.range(&self.streams.volume(player), all, level).await {
            Ok(read) => {
                player.trace.count("past read");
                let shown = Shown { at, found: state(&read.result.items) };
                self.streams.lock().telling.read.push(vec![shown]);
            }
            Err(ClientError::Fault { fault: Fault::Compacted { .. }, .. }) => {
                player.trace.count("past compacted");
            }
            Err(error) => {
                player.failed("read the past", &error);
            }
        }
    }
}

fn read_items(result: &StepResult) -> Option<&[Item]> {
    match result {
        StepResult::Read(read) => Some(&read.items),
        StepResult::Put { .. } | StepResult::Deleted { .. } | StepResult::Nested { .. } => None,
    }
}
