//! Questions of watches that many ask alike: asked once, answered to all.
//!
//! A thousand watchers of one key would ask a replica a thousand times for the same
//! news, and each question costs far more than handing an answer on. So watches of one
//! client that ask the same of one shard, as the same principal, share a [`Feed`]:
//! whoever stands where somebody is asking already waits for that answer, and whoever
//! comes late takes it from the few pages that are kept. A watch still is a place and
//! nothing else: what a page no longer holds is asked for from that place, as if there
//! were no feed. So a reader that is slow loses nothing and holds nothing, and the
//! pages may be dropped at any time.
//!
//! Bounds: [`PAGES_MAX`] of one feed, [`FEEDS_BYTES_MAX`] of a client and all its
//! clones, and none once nothing happened for some seconds. A feed is forgotten with
//! its last watch.
//!
//! Source: etcd's gRPC proxy, which joins watches of the same keys.

use std::{
    collections::{BTreeMap, VecDeque},
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use cluster::{
    auth::Principal,
    ids::ShardId,
    ports::network::BoxFuture,
    shard::watch::{Event, Events, Place, Watch},
};
use futures_util::{FutureExt, future::WeakShared};
use tokio::sync::Semaphore;

use super::{error::ClientError, room::Room};

/// Answers of one feed that are kept for who comes late: tasks that were woken for the
/// same answer are some milliseconds apart, and so many answers are not.
const PAGES_MAX: usize = 64;
/// Bytes of answers that all feeds keep together.
const FEEDS_BYTES_MAX: usize = 8 << 20;
/// Fewer feeds than this are not worth a look at which of them are forgotten.
const FEEDS_SWEPT_MIN: usize = 64;

/// What came of a question; none if its shard must be found again.
pub(super) type Answered = Result<Option<Arc<Events>>, ClientError>;

/// Weak: one that nobody waits for any more must not stand still here with all it
/// holds, as the turn to refresh the client's map.
type Question = WeakShared<BoxFuture<Answered>>;

/// What makes two questions the same, but for their place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alike {
    pub(super) shard: ShardId,
    pub(super) principal: Principal,
    pub(super) watch: Watch,
}

/// The feeds of one client. A mutex guards them, for a client is no actor and any of
/// its clones may watch; it is never held across an await.
pub(super) struct Feeds {
    feeds: Mutex<Known>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Known {
    feeds: BTreeMap<Alike, Weak<Feed>>,
    /// As many feeds as make another look for forgotten ones worth it.
    sweep_at: usize,
}

impl Default for Feeds {
    fn default() -> Self {
        Self { feeds: Mutex::default(), room: Arc::new(Semaphore::new(FEEDS_BYTES_MAX)) }
    }
}

impl Feeds {
    /// That of all who ask this.
    pub(super) fn feed(&self, alike: Alike) -> Arc<Feed> {
        let mut known = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = known.feeds.get(&alike).and_then(Weak::upgrade) {
            return feed;
        }
        if known.feeds.len() >= known.sweep_at {
            known.feeds.retain(|_, feed| feed.strong_count() > 0);
            known.sweep_at = (2 * known.feeds.len()).max(FEEDS_SWEPT_MIN);
        }
        let feed = Arc::new(Feed { told: Mutex::default(), room: self.room.clone() });
        known.feeds.insert(alike, Arc::downgrade(&feed));
        feed
    }
}

/// What is asked and was told of late to all who ask the same. A mutex guards it, for
/// the reason of [`Feeds`]; it is never held across an await.
pub(super) struct Feed {
    told: Mutex<Told>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Told {
    pages: VecDeque<Page>,
    /// What somebody is asking, and after which place.
    asked: Option<(Place, Question)>,
}

/// An answer that is kept.
struct Page {
    after: Place,
    events: Arc<Events>,
    /// Given back with it.
    _room: Room,
}

impl Feed {
    /// What happened after a place: as it was told to others, as somebody is asking,
    /// or as it comes of `ask`.
    pub(super) fn after(
        self: &Arc<Self>,
        place: Place,
        ask: impl FnOnce() -> BoxFuture<Answered>,
    ) -> BoxFuture<Answered> {
        let mut told = self.told();
        let holds = |page: &&Page| page.after <= place && place < page.events.upto;
        if let Some(page) = told.pages.iter().rev().find(holds) {
            return Box::pin(ready(Ok(Some(page.events.clone()))));
        }
        let asking = told.asked.as_ref();
        let asking = asking.and_then(|(after, question)| Some((*after, question.upgrade()?)));
        if let Some((after, question)) = asking {
            drop(told);
            return if after == place { Box::pin(question) } else { ask() };
        }
        let question = self.question(place, ask()).shared();
        told.asked = question.downgrade().map(|asked| (place, asked));
        drop(told);
        Box::pin(question)
    }

    /// Asks, and keeps the answer for the others.
    fn question(self: &Arc<Self>, after: Place, ask: BoxFuture<Answered>) -> BoxFuture<Answered> {
        // Weak: a feed whose watches are gone goes with the question it holds.
        let feed = Arc::downgrade(self);
        Box::pin(async move {
            let answered = ask.await;
            if let Some(feed) = feed.upgrade() {
                feed.answered(after, answered.as_ref().ok().and_then(Option::as_ref));
            }
            answered
        })
    }

    fn answered(self: &Arc<Self>, after: Place, events: Option<&Arc<Events>>) {
        // This one, and whoever drives the question.
        let others = Arc::strong_count(self) > 2;
        let mut told = self.told();
        told.asked = None;
        match events {
            // It was quiet for long enough that nobody is late any more.
            Some(events) if events.events.is_empty() => told.pages.clear(),
            Some(events) if others => told.keep(after, events, &self.room),
            Some(_) | None => {}
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Keeps an answer, and drops older ones for it. One that finds no room is not
    /// kept: whoever comes late asks.
    fn keep(&mut self, after: Place, events: &Arc<Events>, bound: &Arc<Semaphore>) {
        let bytes = events.events.iter().map(bytes_of).sum();
        while self.pages.len() >= PAGES_MAX {
            self.pages.pop_front();
        }
        let room = Room::of(bound.clone());
        while !room.set(bytes) {
            if self.pages.pop_front().is_none() {
                return;
            }
        }
        self.pages.push_back(Page { after, events: events.clone(), _room: room });
    }
}

/// About what an event takes in memory.
fn bytes_of(event: &Event) -> usize {
    size_of::<Event>() + event.bytes()
}

/// What of an answer happened after a place: it may begin before.
pub(super) fn after(events: Arc<Events>, place: Place) -> Events {
    let told = |event: &Event| event.place() <= place;
    let first = events.events.partition_point(told);
    match Arc::try_unwrap(events) {
        Ok(mut own) => {
            own.events.drain(..first);
            own
        }
        Err(shared) => Events {
            events: shared.events.get(first..).unwrap_or_default().to_vec(),
            upto: shared.upto,
            more: shared.more,
            now: shared.now,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cluster::{ids::LeaseId, mvcc::version::Version, request::Item, shard::watch::EventKind};
    use tokio::sync::Notify;

    use super::*;

    fn alike(key: &str) -> Alike {
        let watch = Watch::of(cluster::shard::transaction::Keys::One(key.as_bytes().to_vec()));
        Alike { shard: ShardId(1), principal: Principal::Trusted, watch }
    }

    fn event(version: u64, sub: u32, bytes: usize) -> Event {
        let item = Item {
            key: b"k".to_vec(),
            value: vec![0; bytes],
            value_bytes: bytes as u64,
            modified: Version(version),
            created: Version(1),
            changes: version,
            modified_ms: 0,
            lease: LeaseId(0),
        };
        Event { kind: EventKind::Put, item, sub, previous: None }
    }

    fn events(all: &[(u64, u32)], upto: u64, bytes: usize) -> Arc<Events> {
        let events = all.iter().map(|(version, sub)| event(*version, *sub, bytes)).collect();
        let (upto, now) = (Place::after(Version(upto)), Version(upto));
        Arc::new(Events { events, upto, more: false, now })
    }

    fn answers(events: Arc<Events>) -> BoxFuture<Answered> {
        Box::pin(ready(Ok(Some(events))))
    }

    fn at(version: u64) -> Place {
        Place::after(Version(version))
    }

    /// Answers once it is let, and counts how often it was asked.
    #[derive(Default)]
    struct Server {
        asked: AtomicUsize,
        go: Notify,
    }

    impl Server {
        fn ask(self: &Arc<Self>, answer: Arc<Events>) -> BoxFuture<Answered> {
            let server = self.clone();
            Box::pin(async move {
                server.asked.fetch_add(1, Ordering::Relaxed);
                server.go.notified().await;
                Ok(Some(answer))
            })
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn who_asks_the_same_waits_for_one_answer() {
        let (feeds, server) = (Feeds::default(), Arc::new(Server::default()));
        let follow: Vec<_> = (0..5).map(|_| feeds.feed(alike("k"))).collect();
        let ask = || server.ask(events(&[(4, 0)], 4, 1));
        let all: Vec<_> = follow.iter().map(|feed| feed.after(at(3), ask)).collect();
        let behind = follow[0].after(at(2), || server.ask(events(&[(3, 0), (4, 0)], 4, 1)));
        server.go.notify_one();
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(after(answer.unwrap().unwrap(), at(3)).events.len(), 1);
        }
        assert_eq!(server.asked(), 1);
        server.go.notify_one();
        let told = behind.await.unwrap().unwrap();
        assert_eq!((told.events.len(), server.asked()), (2, 2), "at another place: by itself");
        let late = follow[4].after(at(3), || unreachable!("it is kept")).await.unwrap().unwrap();
        assert_eq!(after(late, at(3)).events.len(), 1);
    }

    #[tokio::test]
    async fn a_page_that_begins_before_a_place_is_cut_there() {
        let page = events(&[(2, 0), (2, 1), (3, 0)], 3, 1);
        let sub = |sub| Place { version: Version(2), sub };
        for (place, left) in [(at(1), 3), (sub(0), 2), (sub(1), 1), (at(2), 1), (at(3), 0)] {
            assert_eq!(after(page.clone(), place).events.len(), left, "{place:?}");
            assert_eq!(after(Arc::new((*page).clone()), place).events.len(), left, "{place:?}");
        }
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_is_asked_anew() {
        let (feeds, server) = (Feeds::default(), Arc::new(Server::default()));
        let feed = feeds.feed(alike("k"));
        drop(feed.after(at(3), || Box::pin(std::future::pending())));
        let asked = feed.after(at(3), || server.ask(events(&[], 3, 1)));
        server.go.notify_one();
        assert!(asked.await.unwrap().unwrap().events.is_empty());
        let refused = feed.after(at(3), || Box::pin(ready(Err(ClientError::EmptyKey))));
        assert_eq!(refused.await, Err(ClientError::EmptyKey));
        let asked = feed.after(at(3), || answers(events(&[(4, 0)], 4, 1)));
        assert_eq!(asked.await.unwrap().unwrap().upto, at(4), "an error is not kept");
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_holds_nothing() {
        let (feeds, turn) = (Feeds::default(), Arc::new(tokio::sync::Mutex::new(())));
        let feed = feeds.feed(alike("k"));
        let own = turn.clone();
        let ask = || -> BoxFuture<Answered> {
            Box::pin(async move {
                let _turn = own.lock().await;
                std::future::pending().await
            })
        };
        let mut asked = feed.after(at(3), ask);
        assert!((&mut asked).now_or_never().is_none() && turn.try_lock().is_err());
        drop(asked);
        assert!(turn.try_lock().is_ok(), "somebody else's turn");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_goes_when_it_is_quiet() {
        let feeds = Feeds::default();
        let (feed, _other) = (feeds.feed(alike("k")), feeds.feed(alike("k")));
        let large = FEEDS_BYTES_MAX / 3;
        for version in 1..=100 {
            let bytes = if version > 90 { large } else { 1 };
            let answer = events(&[(version, 0)], version, bytes);
            drop(feed.after(at(version - 1), || answers(answer)).await);
            let kept = feed.told().pages.len();
            assert!(kept <= PAGES_MAX, "{kept}");
        }
        assert_eq!(feed.told().pages.len(), 2, "of a third each, and a little more");
        let huge = events(&[(101, 0)], 101, FEEDS_BYTES_MAX);
        drop(feed.after(at(100), || answers(huge)).await);
        assert!(feed.told().pages.is_empty(), "it fits nowhere");
        drop(feed.after(at(101), || answers(events(&[(102, 0)], 102, 1))).await);
        assert_eq!(feed.told().pages.len(), 1);
        drop(feed.after(at(102), || answers(events(&[], 102, 1))).await);
        assert!(feed.told().pages.is_empty());
        assert_eq!(feeds.room.available_permits(), FEEDS_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_lone_watch_keeps_nothing_and_feeds_are_forgotten_with_their_watches() {
        let feeds = Feeds::default();
        let feed = feeds.feed(alike("k"));
        drop(feed.after(at(0), || answers(events(&[(1, 0)], 1, 1))).await);
        assert!(feed.told().pages.is_empty());
        for number in 0..10 * FEEDS_SWEPT_MIN {
            drop(feeds.feed(alike(&number.to_string())));
        }
        assert!(feeds.feeds.lock().unwrap().feeds.len() <= 2 * FEEDS_SWEPT_MIN);
        assert!(Arc::ptr_eq(&feed, &feeds.feed(alike("k"))));
    }
}
