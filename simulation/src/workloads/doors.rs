//! Clients of streams with several watches each, as the etcd door has them: one reads
//! slowly, asks for progress, goes away, and goes on behind what it was told last.
//!
//! Judged: each watch tells its events in order, once, and leaves none out; and a
//! progress is a promise that all up to it was sent before, so that whoever goes on
//! behind it misses nothing. What is the door's own, how a page becomes responses, is
//! done here as it does it (`node/src/doors/etcd/watch/`).
//! Source: etcd's bug 15220, and row A1 of the bug catalogue.

use std::{sync::Arc, time::Duration};

use actors::client::{Client, ClientError, Standing, Watching, progress};
use cluster::{
    mvcc::version::Version,
    request::{Fault, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Step, Transaction},
        watch::{Event, Watch},
    },
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{Play, Player, Shared, Wrong, draw_rest, halve, streams::whole};
use crate::{oracle::watched::Telling, rng::Rng};

/// Watches of a stream, each of keys of its own.
const WATCHES: usize = 3;
/// Responses of a stream that wait for its reader.
const WAITING_MAX: usize = 4;
/// Pause after a question that nobody answered, and of a watch whose replica is behind.
const PAUSE: Duration = Duration::from_millis(200);
const BEHIND_PAUSE: Duration = Duration::from_millis(20);
/// Time within which a stream comes to what is there, once the world is whole.
const PATIENCE: Duration = Duration::from_secs(20);

/// The workload.
#[derive(Clone, Debug)]
pub struct Doors {
    writers: u32,
    streams: u32,
    keys: u32,
    rest: (Duration, Duration),
    /// Clients that began.
    begun: Shared<u32>,
    seen: Shared<Seen>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    /// Of each watch of a stream, what all streams were told.
    told: [Telling; WATCHES],
    /// Clients that have a stream, which nobody else may go on with.
    listening: u32,
    /// The last progress of each stream.
    progress: Vec<Version>,
    wrong: Wrong,
    /// The client that all streams share.
    door: Option<Client>,
}

/// What a stream says.
#[derive(Debug)]
enum Said {
    Events {
        watch: usize,
        events: Vec<Event>,
        upto: Version,
    },
    Progress(Version),
    /// What a watch was to tell next is let go of below a version.
    Gone {
        watch: usize,
        compacted: Version,
    },
}

/// One watch of a stream.
struct Follower {
    number: usize,
    watching: Watching,
    standing: Arc<Standing>,
    sender: mpsc::Sender<Said>,
    /// Events of a version that is not told whole yet.
    held: Vec<Event>,
}

fn volume(player: &Player) -> String {
    format!("{}-doors", player.volume)
}

fn prefix(watch: usize) -> String {
    format!("door/{watch}/")
}

impl Follower {
    /// Tells a watch's events until its reader is gone.
    async fn run(mut self) {
        loop {
            let next = tokio::select! {
                next = self.watching.next() => next,
                () = self.standing.hurried() => {
                    self.watching.hurry();
                    continue;
                }
            };
            let happened = match next {
                Ok(happened) => happened,
                Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
                    // A full disk let go of it. As at the door, the watch is over.
                    drop(self.sender.send(Said::Gone { watch: self.number, compacted }).await);
                    return;
                }
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (upto, now) = (whole(happened.upto), happened.now);
            let quiet = happened.events.is_empty();
            self.held.extend(happened.events);
            let complete = |event: &Event| event.item.modified <= upto;
            let count = self.held.iter().take_while(|event| complete(event)).count();
            let events: Vec<Event> = self.held.drain(..count).collect();
            if !events.is_empty() {
                let said = Said::Events { watch: self.number, events, upto };
                if self.sender.send(said).await.is_err() {
                    return;
                }
            }
            self.standing.reached(upto);
            if quiet && upto < now {
                tokio::time::sleep(BEHIND_PAUSE).await;
            }
        }
    }
}

impl Doors {
    /// Clients that write, and that have a stream each.
    pub fn new(writers: u32, streams: u32, keys: u32, rest: (Duration, Duration)) -> Self {
        Self { writers, streams, keys, rest, begun: Shared::default(), seen: Shared::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..140);
        Self::new(1 + rng.number(3), 1 + rng.number(2), 1 + rng.number(3), rest)
    }
}

impl Play for Doors {
    const NAME: &'static str = "doors";

    fn clients(&self) -> u32 {
        self.writers + self.streams
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.streams) || halve(&mut self.writers) || halve(&mut self.keys)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        player.create_single(&volume(&player)).await?;
        let mut seen = self.seen.lock();
        seen.progress.extend((0..self.streams).map(|_| Version(0)));
        for told in &mut seen.told {
            told.open(self.streams);
        }
        Ok(())
    }

    async fn work(self, player: Player) {
        match self.begun.turn().checked_sub(self.writers) {
            Some(stream) => self.listen(player, stream as usize).await,
            None => self.write(player).await,
        }
    }

    /// Brings every stream to what is there now.
    async fn look(self, mut player: Player) -> Result<(), ClientError> {
        while self.seen.lock().listening > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let now = newest(&player.client, &volume(&player)).await;
        for stream in 0..self.streams as usize {
            let comes = self.come_to(&mut player, stream, now);
            if tokio::time::timeout(PATIENCE, comes).await.is_err() {
                let what = format!("stream {stream} tells of no progress to {now}");
                player.accuse(&mut self.seen.lock().wrong, what);
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let seen = self.seen.lock();
        seen.wrong.verdict()?;
        seen.told.iter().try_for_each(|told| told.check().map(drop))
    }
}

impl Doors {
    /// Changes a key of one watch, or of all at once.
    async fn write(&self, mut player: Player) {
        let mut made = 0_u32;
        while !player.is_over() {
            made += 1;
            let value = format!("{}-{made}", player.number);
            let key = player.rng.number(self.keys);
            let one = player.rng.index(WATCHES);
            let all = player.rng.chance(300_000);
            let watches = (0..WATCHES).filter(|watch| all || *watch == one);
            let keys: Vec<_> =
                watches.map(|watch| (watch, format!("{}{key}", prefix(watch)))).collect();
            let puts = keys.iter().fold(Transaction::new(), |puts, (_, key)| {
                puts.then(Step::put(key.as_str(), value.as_str()))
            });
            match player.client.transact(&volume(&player), puts).await {
                Ok(done) => {
                    player.count_operation();
                    let mut seen = self.seen.lock();
                    for (watch, key) in keys {
                        let written = (done.version, key, Some(value.clone()));
                        seen.told[watch].written.push(written);
                    }
                }
                Err(error) => {
                    player.failed("change", &error);
                }
            }
            player.rest(self.rest).await;
        }
    }

    /// Has a stream for a while, then another one that goes on behind it.
    async fn listen(&self, mut player: Player, stream: usize) {
        player.client = self.seen.lock().door.get_or_insert_with(|| player.client.clone()).clone();
        self.seen.lock().listening += 1;
        while !player.is_over() {
            let stay = player.rng.between(Duration::from_millis(500), Duration::from_secs(8));
            let until = tokio::time::Instant::now() + stay;
            let over = player.over.clone();
            let gone = move |_: Version| {
                over.load(std::sync::atomic::Ordering::Relaxed)
                    || tokio::time::Instant::now() >= until
            };
            self.have_stream(&mut player, stream, gone).await;
            player.trace.count("stream left");
            player.rest(self.rest).await;
        }
        self.seen.lock().listening -= 1;
    }

    /// Reads a stream until `gone` says so of the last progress.
    async fn have_stream(
        &self,
        player: &mut Player,
        stream: usize,
        gone: impl Fn(Version) -> bool + Send + Sync,
    ) {
        let (sender, mut said) = mpsc::channel(WAITING_MAX);
        let mut followers = FuturesUnordered::new();
        let mut standings = Vec::new();
        for number in 0..WATCHES {
            let Some((follower, standing)) = self.begin(player, stream, number, &sender).await
            else {
                return;
            };
            followers.push(follower.run());
            standings.push(standing);
        }
        let (client, volume) = (player.client.clone(), volume(player));
        let asks = async {
            loop {
                tokio::time::sleep(BEHIND_PAUSE).await;
                let now = progress(standings.clone(), newest(&client, &volume)).await;
                if sender.send(Said::Progress(now)).await.is_err() {
                    return;
                }
            }
        };
        let reads = async {
            loop {
                let Some(next) = said.recv().await else { return };
                let is_over = matches!(next, Said::Gone { .. });
                if gone(self.hear(player, stream, next)) || is_over {
                    return;
                }
                player.rest(self.rest).await;
            }
        };
        tokio::select! {
            () = asks => {}
            () = reads => {}
            () = async { while followers.next().await.is_some() {} } => {}
        }
    }

    /// Begins one watch of a stream behind what it was told last.
    async fn begin(
        &self,
        player: &Player,
        stream: usize,
        number: usize,
        sender: &mpsc::Sender<Said>,
    ) -> Option<(Follower, Arc<Standing>)> {
        let upto = self.seen.lock().told[number].upto(stream);
        let (watch, from) =
            (Watch::of(Keys::prefix(prefix(number))).with_previous(), Version(upto.0 + 1));
        match player.client.watch(&volume(player), watch, Some(from)).await {
            Ok(watching) => {
                let standing = Arc::new(Standing::default());
                standing.reached(upto);
                let (sender, held) = (sender.clone(), Vec::new());
                let told = standing.clone();
                Some((Follower { number, watching, standing, sender, held }, told))
            }
            Err(error) => {
                player.failed("begin a watch", &error);
                None
            }
        }
    }

    /// Takes what a stream says; its last progress.
    fn hear(&self, player: &Player, stream: usize, said: Said) -> Version {
        let mut seen = self.seen.lock();
        let last = seen.progress.get(stream).copied().unwrap_or_default();
        match said {
            Said::Events { watch, events, upto } => {
                if let Some(late) = events.iter().find(|event| event.item.modified <= last) {
                    let what = format!("stream {stream} told {late:?} after a progress to {last}");
                    player.accuse(&mut seen.wrong, what);
                }
                player.trace.count("event at a door");
                player.count_operation();
                if let Err(wrong) = seen.told[watch].hear(stream, events, upto) {
                    player.accuse(&mut seen.wrong, wrong);
                }
                last
            }
            Said::Gone { watch, compacted } => {
                player.trace.count("watch compacted");
                seen.told[watch].begin_anew(stream, compacted);
                last
            }
            Said::Progress(version) => {
                player.trace.count("progress at a door");
                if version < last {
                    let what = format!("a progress to {version} came after one to {last}");
                    player.accuse(&mut seen.wrong, what);
                }
                for told in &mut seen.told {
                    told.reach(stream, version);
                }
                if let Some(last) = seen.progress.get_mut(stream) {
                    *last = version;
                }
                version
            }
        }
    }

    /// Has streams until one tells of a progress to a version.
    async fn come_to(&self, player: &mut Player, stream: usize, now: Version) {
        let last = || self.seen.lock().progress.get(stream).copied().unwrap_or_default();
        while last() < now {
            self.have_stream(player, stream, |upto| upto >= now).await;
            tokio::time::sleep(BEHIND_PAUSE).await;
        }
    }
}

/// The newest version, confirmed by a majority; asked for until it is.
async fn newest(client: &Client, volume: &str) -> Version {
    loop {
        let none = Range::of(Keys::range("", "")).limit(1).heads();
        if let Ok(read) = client.range(volume, none, ReadLevel::Strong).await {
            return read.now;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
