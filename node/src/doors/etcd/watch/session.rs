//! One stream of watches: what its client asks, in order.

use std::{collections::BTreeMap, pin::pin, sync::Arc};

use actors::client::{Client, ClientError, Standing, progress};
use cluster::{
    mvcc::version::Version,
    request::{Fault, ReadLevel},
    shard::{range::Range, transaction::Keys, watch::Watch},
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tonic::Streaming;

use super::{
    CATCHING_UP_MAX, NO_WATCH,
    events::{Order, follow},
    responses::Responses,
    room::{Gathering, Own},
};
use crate::doors::etcd::{
    faults::EtcdFault,
    gateway::Gateway,
    metrics::One,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    translate::keys_of,
};

/// One watch of the stream; ends with it.
struct Running {
    standing: Arc<Standing>,
    task: JoinHandle<()>,
    _counted: One,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
        self.standing.over();
    }
}

/// One stream.
pub(super) struct Session {
    gateway: Arc<Gateway>,
    client: Client,
    needs_leader: bool,
    responses: Responses,
    watches: BTreeMap<i64, Running>,
    /// The id of the next watch whose client names none.
    next_id: i64,
    catching_up: Arc<Semaphore>,
    own: Own,
    /// The one answer to a request for progress that is under way.
    progress: Option<JoinHandle<()>>,
    _counted: One,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.abort();
        }
    }
}

impl Session {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        client: Client,
        needs_leader: bool,
        responses: Responses,
    ) -> Self {
        Self {
            _counted: gateway.counts.watch_streams.one(),
            gateway,
            client,
            needs_leader,
            responses,
            watches: BTreeMap::new(),
            next_id: 0,
            catching_up: Arc::new(Semaphore::new(CATCHING_UP_MAX)),
            own: Own::default(),
            progress: None,
        }
    }

    /// Serves until the client goes, or must be sent elsewhere.
    pub(super) async fn run(mut self, mut asked: Streaming<WatchRequest>) {
        let gateway = self.gateway.clone();
        let mut leaderless = pin!(gateway.leaderless(self.needs_leader));
        let mut asks = true;
        let ended = loop {
            tokio::select! {
                () = self.responses.closed() => return,
                request = asked.message(), if asks => match request {
                    Ok(Some(request)) => {
                        if self.take(request).await.is_none() {
                            return;
                        }
                    }
                    // It asks no more, and still listens.
                    Ok(None) => asks = false,
                    Err(status) => break status,
                },
                fault = &mut leaderless => break fault.into(),
            }
        };
        self.responses.end(ended).await;
    }

    /// Does what is asked; none once the client is gone.
    async fn take(&mut self, request: WatchRequest) -> Option<()> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                if self.watches.remove(&cancel.watch_id).is_none() {
                    return Some(());
                }
                let canceled = self.response(cancel.watch_id);
                self.send(WatchResponse { canceled: true, ..canceled }).await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.tell_progress();
                Some(())
            }
            // etcd passes by what it does not know.
            None => Some(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Option<()> {
        let order = match self.order_of(&request).await {
            Ok(order) => order,
            Err(reason) => {
                let none = self.response(NO_WATCH);
                let refused =
                    WatchResponse { created: true, canceled: true, cancel_reason: reason, ..none };
                return self.send(refused).await;
            }
        };
        let (id, standing) = (order.id, Arc::new(Standing::default()));
        let header = Some(self.gateway.header(order.now));
        let created =
            WatchResponse { header, watch_id: id, created: true, ..WatchResponse::default() };
        self.send(created).await?;
        let gathering = Gathering::new(self.gateway.watched.clone(), self.own.clone());
        let task = tokio::spawn(Box::pin(follow(
            self.gateway.clone(),
            self.client.clone(),
            order,
            standing.clone(),
            (self.responses.clone(), gathering),
            self.catching_up.clone(),
        )));
        let counted = self.gateway.counts.watches.one();
        self.watches.insert(id, Running { standing, task, _counted: counted });
        Some(())
    }

    /// What is to be watched; or why it is not.
    async fn order_of(&mut self, request: &WatchCreateRequest) -> Result<Order, String> {
        if request.start_revision < 0 {
            return Err(EtcdFault::Compacted.text().into_owned());
        }
        // An empty key is the first there can be.
        let first: &[u8] = if request.key.is_empty() { &[0] } else { &request.key };
        let keys = keys_of(first, &request.range_end);
        let told = |fault: EtcdFault| fault.text().into_owned();
        self.permit(&keys).await?;
        self.gateway.rates.take(|| vec![keys.clone()]).map_err(told)?;
        if !matches!(&request.range_end[..], [] | [0]) && *request.range_end <= *first {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        // A watch that has ended by itself is none any more.
        self.watches.retain(|_, watch| !watch.task.is_finished());
        if self.watches.len() >= self.gateway.config.watches {
            return Err(EtcdFault::TooManyRequests.text().into_owned());
        }
        let id = self.id_of(request.watch_id)?;
        let now = self.gateway.newest_or_own().await;
        let start = u64::try_from(request.start_revision).unwrap_or(0);
        let from = if start == 0 { Version(now.0 + 1) } else { Version(start) };
        let filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
        let watch = Watch {
            keys,
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            previous: request.prev_kv,
        };
        let (progress, fragment) = (request.progress_notify, request.fragment);
        Ok(Order { id, watch, from, now, progress, fragment })
    }

    /// Whether the caller may see these keys: refused at once, as etcd does, and
    /// not only where the watch asks.
    async fn permit(&self, keys: &Keys) -> Result<(), String> {
        let range = Range::of(keys.clone()).heads().limit(1);
        match self.client.range(self.gateway.volume(), range, ReadLevel::Eventual).await {
            Err(ClientError::Fault { fault: fault @ Fault::Denied(_), .. }) => {
                Err(EtcdFault::from(fault).status_text())
            }
            // What else fails is the watch's to repeat.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn id_of(&mut self, wanted: i64) -> Result<i64, String> {
        if wanted != 0 {
            return if self.watches.contains_key(&wanted) {
                Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
            } else {
                Ok(wanted)
            };
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    /// Tells how far all watches of the stream are, once they have told all that
    /// had happened when it was asked.
    fn tell_progress(&mut self) {
        if self.progress.as_ref().is_some_and(|progress| !progress.is_finished()) {
            // Whoever asks again while one is under way is answered by that one.
            return;
        }
        let standings: Vec<_> = self.watches.values().map(|watch| watch.standing.clone()).collect();
        let (gateway, responses) = (self.gateway.clone(), self.responses.clone());
        self.progress = Some(tokio::spawn(async move {
            let now = progress(standings, gateway.newest_or_own()).await;
            let header = Some(gateway.header(now));
            let told = WatchResponse { header, watch_id: NO_WATCH, ..WatchResponse::default() };
            responses.send(told).await;
        }));
    }

    fn response(&self, watch_id: i64) -> WatchResponse {
        let header = Some(self.gateway.header_now());
        WatchResponse { header, watch_id, ..WatchResponse::default() }
    }

    async fn send(&self, response: WatchResponse) -> Option<()> {
        self.responses.send(response).await
    }
}
