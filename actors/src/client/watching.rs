//! Watching: a stream of what happens to some keys, from any version on.
//!
//! A [`Watching`] holds a place per shard and asks for what comes next; a replica
//! that has nothing new keeps the question for some seconds. So the stream goes
//! at the pace of its reader: what is not asked for is not sent, and costs no
//! memory anywhere; watches that ask the same share the question (`feeds`). A node
//! that dies, a leader that changes, a replica that is
//! behind cost a pause; the place is the client's.
//!
//! Events of one shard come in their order; a volume of kind *single* has one
//! shard, so there all do. Over several shards the order is that of each key.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{
    ids::ShardId,
    mvcc::version::Version,
    ports::network::BoxFuture,
    request::{Fault, ReadLevel, ShardBody, ShardResult},
    shard::{
        range::Range,
        transaction::Keys,
        watch::{Event, Events, Place, Watch},
    },
};
use futures_util::{Stream, StreamExt, stream, stream::FuturesUnordered};

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    feeds::{self, Alike, Answered, Feed},
    write::strange_result,
};

/// How long a replica keeps a question that has no answer yet. A node that dies
/// in silence is noticed after this.
const WAIT: Duration = Duration::from_secs(5);

/// Where a stream stands: enough to go on, in another process too.
pub type Places = BTreeMap<ShardId, Place>;

/// Part of what happened in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Where.
    pub shard: ShardId,
    /// What, in order. None is a progress: nothing else happened up to here.
    pub events: Vec<Event>,
    /// All of it up to here.
    pub upto: Place,
    /// The newest version of that shard.
    pub now: Version,
}

/// A watch under way.
pub struct Watching {
    client: Client,
    volume: Arc<str>,
    watch: Watch,
    places: Places,
    asked: FuturesUnordered<BoxFuture<Asked>>,
    feeds: BTreeMap<ShardId, Arc<Feed>>,
    /// Shards nobody asks at the moment.
    idle: Vec<ShardId>,
    /// How long the next questions may wait for an answer.
    wait: Duration,
}

type Asked = (ShardId, Answered);

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching")
            .field("volume", &self.volume)
            .field("watch", &self.watch)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Watches keys of a volume from a version on, that one included; from now
    /// on if none is named. Everything that is acknowledged after this returned
    /// will be told.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(
        &self,
        volume: &str,
        watch: Watch,
        from: Option<Version>,
    ) -> Result<Watching, ClientError> {
        let mut trial = self.trial(format!("watch of volume {volume}"));
        loop {
            let shards = self.shards_of(&mut trial, volume, &watch.keys).await?;
            let mut places = Places::new();
            for shard in &shards {
                let place = match from {
                    Some(from) => Some(Place::before(from)),
                    None => self.now_of(*shard).await?.map(Place::after),
                };
                places.extend(place.map(|place| (*shard, place)));
            }
            if places.len() == shards.len() {
                return Ok(self.watch_after(volume, watch, places));
            }
        }
    }

    /// Goes on where an earlier stream stood.
    pub fn watch_after(&self, volume: &str, watch: Watch, places: Places) -> Watching {
        let idle = places.keys().copied().collect();
        let (client, volume, asked) = (self.clone(), volume.into(), FuturesUnordered::new());
        let feeds = BTreeMap::new();
        Watching { client, volume, watch, places, asked, feeds, idle, wait: WAIT }
    }

    /// The newest version of a shard, confirmed by its majority; none if it must
    /// be found again.
    async fn now_of(&self, shard: ShardId) -> Result<Option<Version>, ClientError> {
        let mut trial = self.trial(format!("watch of {shard}"));
        let range = Range::of(Keys::range("", "")).heads().limit(1);
        let body = || ShardBody::Range { range: range.clone(), level: ReadLevel::Strong };
        match self.ask_shard(&mut trial, shard, Who::Leader, &body).await? {
            Reply::Reroute => Ok(None),
            Reply::Result(ShardResult::Range { now, .. }) => Ok(Some(now)),
            Reply::Result(other) => Err(strange_result(&trial, &other)),
        }
    }

    /// Asks one shard once for what happens next.
    async fn poll(
        self,
        shard: ShardId,
        watch: Watch,
        after: Place,
        volume: Arc<str>,
        wait: Duration,
    ) -> Answered {
        let mut trial = self.trial(format!("watch of volume {volume}")).patient(wait);
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let body = || ShardBody::Watch { watch: watch.clone(), after, wait_ms };
        let reply = self.ask_shard(&mut trial, shard, Who::Anyone, &body).await;
        match reply? {
            Reply::Reroute => Ok(None),
            Reply::Result(ShardResult::Events(events)) => Ok(Some(Arc::new(events))),
            Reply::Result(other) => Err(strange_result(&trial, &other)),
        }
    }
}

impl Watching {
    /// What happens next; or, after some seconds of silence, how far nothing
    /// did. May be dropped at any time without losing anything. After an error
    /// the stream stands where it stood and may be asked again, but for
    /// [`Fault::Compacted`]: what it had to tell is gone.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Happened, ClientError> {
        loop {
            for shard in std::mem::take(&mut self.idle) {
                let question = self.question(shard);
                self.asked.push(Box::pin(async move { (shard, question.await) }));
            }
            self.wait = WAIT;
            let Some((shard, result)) = self.asked.next().await else {
                std::future::pending::<()>().await;
                continue;
            };
            self.idle.push(shard);
            let Some(told) = result? else { continue };
            let Events { mut events, upto, now, .. } = feeds::after(told, self.place(shard));
            fill(&self.client, &self.volume, &mut events).await?;
            self.places.insert(shard, upto);
            return Ok(Happened { shard, events, upto, now });
        }
    }

    /// What asks a shard: with all who ask it the same, unless this one is in a hurry.
    fn question(&mut self, shard: ShardId) -> BoxFuture<Answered> {
        let (after, wait) = (self.place(shard), self.wait);
        let (client, watch) = (&self.client, &self.watch);
        let ask = || -> BoxFuture<Answered> {
            Box::pin(client.clone().poll(shard, watch.clone(), after, self.volume.clone(), wait))
        };
        if wait.is_zero() {
            return ask();
        }
        let feed = self.feeds.entry(shard).or_insert_with(|| {
            let (principal, watch) = (client.principal.clone(), watch.clone());
            client.shared.feeds.feed(Alike { shard, principal, watch })
        });
        feed.after(after, ask)
    }

    fn place(&self, shard: ShardId) -> Place {
        self.places.get(&shard).copied().unwrap_or_default()
    }

    /// Takes back the questions that wait, so that the next ones are answered at
    /// once: with what happened, or how far nothing did.
    pub fn hurry(&mut self) {
        self.asked.clear();
        self.idle = self.places.keys().copied().collect();
        self.wait = Duration::ZERO;
    }

    /// Where the stream stands.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What happens as a stream; it ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Happened, ClientError>> {
        stream::unfold(Some(self), |watching| async move {
            let mut watching = watching?;
            match watching.next().await {
                Ok(happened) => Some((Ok(happened), Some(watching))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// Reads the values of before that were too large to come along.
async fn fill(client: &Client, volume: &str, events: &mut [Event]) -> Result<(), ClientError> {
    for event in events {
        let version = Version(event.item.modified.0.saturating_sub(1));
        let Some(previous) = &event.previous else { continue };
        if previous.value.len() as u64 == previous.value_bytes {
            continue;
        }
        let range = Range::of(previous.key.clone()).at(version);
        let read = client.range(volume, range, ReadLevel::Strong).await;
        event.previous = match read {
            Ok(read) => read.result.items.into_iter().next(),
            // Let go of: as etcd, that tells of none then. An empty value would be a lie.
            Err(ClientError::Fault { fault: Fault::Compacted { .. }, .. }) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}
