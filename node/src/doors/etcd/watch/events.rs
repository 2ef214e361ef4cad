//! One watch: what happens to its keys, as responses of its stream.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actors::client::{Client, ClientError, Happened, Places, Standing, Watching};
use cluster::{
    mvcc::version::Version,
    request::Fault,
    shard::watch::{Event, EventKind, Place, Watch},
};
use prost::Message;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until},
};

use super::{
    responses::{Responses, Told},
    room::{Gathering, NoRoom},
};
use crate::doors::etcd::{
    faults::EtcdFault,
    gateway::{Gateway, revision},
    proto::{
        etcdserverpb::WatchResponse,
        mvccpb::{self, KeyValue, event::EventType},
    },
    translate::key_value,
};

/// Pause after a question that nobody answered.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause of a watch in a hurry whose replica is behind.
const BEHIND_PAUSE: Duration = Duration::from_millis(20);

/// What a client ordered.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: i64,
    pub(super) watch: Watch,
    /// The first version that matters.
    pub(super) from: Version,
    /// The newest version when it was ordered.
    pub(super) now: Version,
    /// Whether it wants to hear of progress.
    pub(super) progress: bool,
    /// Whether a revision may come in several responses.
    pub(super) fragment: bool,
}

/// A watch under way.
struct Follower {
    gateway: Arc<Gateway>,
    client: Client,
    order: Order,
    standing: Arc<Standing>,
    responses: Responses,
    /// Events of a version that is not told whole yet.
    held: Vec<mvccpb::Event>,
    /// The room they take.
    gathering: Gathering,
    /// Where those begin.
    stood: Places,
    /// When to tell of progress next.
    tell_at: Instant,
}

/// Tells a watch's events until the client goes, cancels it, or what it wants is
/// gone.
pub(super) async fn follow(
    gateway: Arc<Gateway>,
    client: Client,
    order: Order,
    standing: Arc<Standing>,
    (responses, gathering): (Responses, Gathering),
    catching_up: Arc<Semaphore>,
) {
    let begun = loop {
        let watch = order.watch.clone();
        match client.watch(gateway.volume(), watch, Some(order.from)).await {
            Ok(watching) => break watching,
            Err(error) => tracing::debug!(%error, "a watch of the etcd door waits for its shard"),
        }
        tokio::select! {
            () = responses.closed() => return,
            () = sleep(PAUSE) => {}
        }
    };
    standing.reached(Version(order.from.0.saturating_sub(1)));
    let tell_at = Instant::now() + gateway.config.progress;
    let (over, held, stood) = (standing.clone(), Vec::new(), begun.places().clone());
    let follower =
        Follower { gateway, client, order, standing, responses, held, gathering, stood, tell_at };
    follower.run(begun, &catching_up).await;
    over.over();
}

impl Follower {
    async fn run(mut self, mut watching: Watching, catching_up: &Semaphore) {
        // Held while this watch reads what others of its stream may have to wait for.
        let mut permit: Option<SemaphorePermit<'_>> = None;
        loop {
            let next = tokio::select! {
                next = watching.next() => next,
                () = self.standing.hurried() => {
                    watching.hurry();
                    continue;
                }
                () = sleep_until(self.tell_at), if self.order.progress => {
                    self.tell_at = Instant::now() + self.gateway.config.progress;
                    watching.hurry();
                    match watching.next().await {
                        Ok(happened) if self.is_progress(&happened) => {
                            self.stood.insert(happened.shard, happened.upto);
                            if self.tell(happened.upto.version).await.is_none() {
                                return;
                            }
                            continue;
                        }
                        next => next,
                    }
                }
            };
            let happened = match next {
                Ok(happened) => happened,
                Err(error) => match self.fail(error).await {
                    Some(()) => continue,
                    None => return,
                },
            };
            match self.gathering.take(happened.events.iter().map(Event::bytes).sum()).await {
                Ok(()) => {}
                Err(NoRoom::Now) => {
                    drop((happened, permit.take()));
                    watching = self.begin_anew().await;
                    continue;
                }
                Err(NoRoom::Ever(most)) => {
                    self.gathering.end();
                    return self.end_too_large(most).await;
                }
            }
            let behind = happened.upto.version < happened.now || !happened.upto.is_whole();
            let quick = self.responses.is_quick();
            if self.take(happened).await.is_none() {
                return;
            }
            drop(permit.take());
            if (behind || !quick) && !self.gathering.has_turn() {
                permit = catching_up.acquire().await.ok();
            }
        }
    }

    /// Drops what was gathered and could not be sent; waits for the turn and reads it
    /// again.
    async fn begin_anew(&mut self) -> Watching {
        self.held.clear();
        // Nobody's turn is spent on waiting for a reader.
        self.responses.await_reader().await;
        self.gathering.begin_anew().await;
        let (volume, watch) = (self.gateway.volume(), self.order.watch.clone());
        self.client.watch_after(volume, watch, self.stood.clone())
    }

    /// Sends what happened; none once the client is gone.
    async fn take(&mut self, happened: Happened) -> Option<()> {
        let shard = happened.shard;
        let whole = happened.upto.is_whole();
        let upto = if whole { happened.upto.version } else { before(happened.upto.version) };
        let any = !happened.events.is_empty();
        self.held.extend(happened.events.into_iter().map(event));
        let sent = self.send_whole(upto, happened.upto.version, whole).await?;
        self.stood.insert(shard, if whole { happened.upto } else { Place::after(upto) });
        if self.held.is_empty() {
            self.gathering.end();
        } else if sent {
            self.gathering.keep_last();
        }
        if any {
            // News are a progress too.
            self.tell_at = Instant::now() + self.gateway.config.progress;
        }
        self.standing.reached(upto);
        if !any && upto < happened.now {
            // A replica that is behind must not be asked in a circle.
            sleep(BEHIND_PAUSE).await;
        }
        Some(())
    }

    /// Sends the events of all versions that are complete, if there are any: in one
    /// response, or in pieces of a request's size if the client asked for that.
    async fn send_whole(&mut self, upto: Version, last: Version, whole: bool) -> Option<bool> {
        let open = revision(last);
        let complete = |event: &mvccpb::Event| {
            whole || event.kv.as_ref().is_some_and(|kv| kv.mod_revision < open)
        };
        let count = self.held.iter().take_while(|event| complete(event)).count();
        if count == 0 {
            return Some(false);
        }
        let events: Vec<_> = self.held.drain(..count).collect();
        self.gateway.counts.events.fetch_add(count as u64, Ordering::Relaxed);
        let pieces = if self.order.fragment { self.pieces(events) } else { vec![events] };
        let last = pieces.len() - 1;
        let told = pieces.into_iter().enumerate().map(|(at, events)| {
            let response = WatchResponse { events, fragment: at < last, ..self.response(upto) };
            Told { response, rooms: self.gathering.rooms() }
        });
        self.responses.send_together(told).await?;
        Some(true)
    }

    fn pieces(&self, events: Vec<mvccpb::Event>) -> Vec<Vec<mvccpb::Event>> {
        let most = usize::try_from(self.gateway.config.request.bytes()).unwrap_or(usize::MAX);
        let mut pieces = Vec::new();
        let mut bytes = most;
        for event in events {
            let more = event.encoded_len();
            bytes += more;
            match pieces.last_mut() {
                Some(piece) if bytes <= most => Vec::push(piece, event),
                Some(_) | None => {
                    pieces.push(vec![event]);
                    bytes = more;
                }
            }
        }
        pieces
    }

    /// Whether it only says how far nothing happened, and all before was told.
    fn is_progress(&self, happened: &Happened) -> bool {
        happened.events.is_empty() && happened.upto.is_whole() && self.held.is_empty()
    }

    /// Tells that nothing happened up to a version.
    async fn tell(&mut self, upto: Version) -> Option<()> {
        self.standing.reached(upto);
        self.responses.send(self.response(upto)).await
    }

    /// Ends a watch that can never tell what happened next.
    async fn end_too_large(&self, most: usize) {
        let cancel_reason = format!(
            "etcdserver: a revision is larger than the {most} bytes that the door may hold for \
             readers of watches: ask without the values of before, or for fewer keys"
        );
        let over = WatchResponse { canceled: true, cancel_reason, ..self.response(Version(0)) };
        self.responses.send(over).await;
    }

    /// What an error means: none if the watch is over.
    async fn fail(&mut self, error: ClientError) -> Option<()> {
        if error.is_retryable() {
            tracing::debug!(%error, "a watch of the etcd door was not answered");
            sleep(PAUSE).await;
            return Some(());
        }
        // etcd names no revision where it ends a watch by itself.
        let canceled = WatchResponse { canceled: true, ..self.response(Version(0)) };
        let over = if let Some(compacted) = compacted_at(&error) {
            WatchResponse { compact_revision: revision(compacted), ..canceled }
        } else {
            let cancel_reason = EtcdFault::from(error).text().into_owned();
            WatchResponse { cancel_reason, ..canceled }
        };
        self.responses.send(over).await;
        None
    }

    fn response(&self, upto: Version) -> WatchResponse {
        let (header, watch_id) = (Some(self.gateway.header(upto)), self.order.id);
        WatchResponse { header, watch_id, ..WatchResponse::default() }
    }
}

/// The compacted version, if that is why a watch has nothing to tell.
fn compacted_at(error: &ClientError) -> Option<Version> {
    if let ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. } = error {
        return Some(*compacted);
    }
    None
}

fn before(version: Version) -> Version {
    Version(version.0.saturating_sub(1))
}

/// An event as etcd shows it: of a deleted key the key and the revision only.
fn event(event: Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    let kv = match event.kind {
        EventKind::Put => key_value(event.item),
        EventKind::Delete => KeyValue {
            mod_revision: revision(event.item.modified),
            key: event.item.key,
            ..KeyValue::default()
        },
    };
    let prev_kv = event.previous.map(key_value);
    mvccpb::Event { r#type: kind as i32, kv: Some(kv), prev_kv }
}
