//! What happens to keys of a store, as a stream.
//!
//! A stream is a place in the history and nothing else: what nobody takes is not read, so
//! one that stands still holds the page of about a megabyte that it was about to tell and the
//! one behind it, however much happens meanwhile. History that is compacted before it was
//! told ends it, with an error; [`Events::next_revision`] says where another one goes on.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
    thread::{self, Thread},
    time::Duration,
};

use actors::client::{Client, Happened, Watching};
use cluster::{
    mvcc::version::Version,
    shard::{transaction::Keys, watch::Watch},
};
use futures_util::Stream;
use tokio::{sync::mpsc, time::sleep};

use super::{
    error::{StorageError, StorageResult},
    kinds::{Event, keys_of, signed},
    store::{MvccStore, VOLUME},
};

/// Pause after a question that the node did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Events of a store: a [`Stream`] for any runtime, or call by call with
/// [`Self::blocking_next`]. It ends after an error, and with the store.
#[derive(Debug)]
pub struct Events {
    pages: mpsc::Receiver<StorageResult<Page>>,
    at_hand: VecDeque<Event>,
    /// From where on others follow those at hand.
    then: i64,
    next: i64,
}

/// Part of what happened.
#[derive(Debug)]
struct Page {
    events: VecDeque<Event>,
    /// Everything before this revision has been told with it.
    then: i64,
}

impl MvccStore {
    /// Follows keys, from a revision on, that one included; zero from now on: every change
    /// after this returned is told. Events come in the order of their revisions, with what
    /// was there before.
    ///
    /// ```no_run
    /// # use clusterdb::storage::{Backend, BackendConfig, MvccStore, StorageError};
    /// # fn main() -> Result<(), StorageError> {
    /// let store = MvccStore::new(Backend::new(BackendConfig::default())?)?;
    /// let mut events = store.watch(b"job/", b"job0", 0)?;
    /// while let Some(event) = events.blocking_next() {
    ///     let event = event?;
    ///     println!("{} {:?}", event.event_type, event.kv.key);
    ///     // Kept beside what was done with it, to go on after a restart.
    ///     let resume = events.next_revision();
    /// #   let _ = resume;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a bound is too long, the revision is negative, or the node does not serve. That the
    /// revision is compacted is the stream's to say, as [`StorageError::Mvcc`].
    pub fn watch(
        &self,
        key: &[u8],
        range_end: &[u8],
        start_revision: i64,
    ) -> StorageResult<Events> {
        let keys = keys_of(key, range_end);
        let begun = self.run(move |client| begin(client, keys, start_revision))?;
        Ok(Events::of(self, begun))
    }
}

/// Where a stream begins.
pub(super) struct Begun {
    watching: Watching,
    next: i64,
}

/// Begins to follow keys.
pub(super) async fn begin(client: Client, keys: Keys, start_revision: i64) -> StorageResult<Begun> {
    let from = u64::try_from(start_revision).map_err(|_| {
        StorageError::InvalidArgument(format!("revision {start_revision} is negative"))
    })?;
    let from = (from > 0).then_some(Version(from));
    let watching = client.watch(VOLUME, Watch::of(keys).with_previous(), from).await?;
    let place = watching.places().values().next().copied().unwrap_or_default();
    let next = signed(from.map_or(place.version.0 + 1, |from| from.0));
    Ok(Begun { watching, next })
}

impl Events {
    /// What follows there.
    pub(super) fn of(store: &MvccStore, Begun { watching, next }: Begun) -> Self {
        let (sender, pages) = mpsc::channel(1);
        drop(store.begin(follow(watching, sender)));
        Self { pages, at_hand: VecDeque::new(), then: next, next }
    }

    /// Where another stream goes on: all before this revision was told. After some of the
    /// events of one revision it is still that one, so another stream tells those again.
    /// It rises while nothing happens, too, and compactions pass below it.
    pub fn next_revision(&self) -> i64 {
        self.next
    }

    /// The next event, waited for on this thread; none at the end.
    pub fn blocking_next(&mut self) -> Option<StorageResult<Event>> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(next) = Pin::new(&mut *self).poll_next(&mut context) {
                return next;
            }
            thread::park();
        }
    }
}

impl Stream for Events {
    type Item = StorageResult<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let event = self.at_hand.pop_front();
            let then = self.then;
            self.next = self.at_hand.front().map_or(then, |behind| behind.revision.main);
            if let Some(event) = event {
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(self.pages.poll_recv(context)) {
                Some(Ok(Page { events, then })) => (self.at_hand, self.then) = (events, then),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Reads page after page, each once there is room for it.
async fn follow(mut watching: Watching, pages: mpsc::Sender<StorageResult<Page>>) {
    while let Ok(room) = pages.reserve().await {
        let next = tokio::select! {
            next = watching.next() => next,
            () = pages.closed() => return,
        };
        match next {
            Ok(happened) => room.send(Ok(page(happened))),
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "a stream of an embedded store was not answered");
                sleep(PAUSE).await;
            }
            Err(error) => return room.send(Err(error.into())),
        }
    }
}

fn page(happened: Happened) -> Page {
    let Happened { events, upto, .. } = happened;
    let then = upto.version.0 + u64::from(upto.is_whole());
    Page { events: events.into_iter().map(Event::from).collect(), then: signed(then) }
}
