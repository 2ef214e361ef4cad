//! Responses of one stream, on their way from its watches to its reader.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::{Mutex, mpsc};
use tonic::Status;

use super::room::Rooms;
use crate::doors::etcd::proto::etcdserverpb::WatchResponse;

/// A response of a stream, and the room it holds.
#[derive(Debug)]
pub(in crate::doors::etcd) struct Told<R = WatchResponse> {
    pub(in crate::doors::etcd) response: R,
    pub(in crate::doors::etcd) rooms: Rooms,
}

impl From<WatchResponse> for Told {
    fn from(response: WatchResponse) -> Self {
        Self { response, rooms: Rooms::new() }
    }
}

/// What a client is sent, or why no more.
pub(in crate::doors::etcd) type Sent<R = WatchResponse> = Result<Told<R>, Status>;

/// Sends responses to the client; none once it is gone.
///
/// Pieces of one response come without anything in between: etcd's client puts them
/// together again only so.
#[derive(Clone, Debug)]
pub(super) struct Responses {
    sender: mpsc::Sender<Sent>,
    /// A lock in the order of arrival, held while pieces wait for the reader: whoever
    /// comes between would have to wait for it anyway.
    together: Arc<Mutex<()>>,
}

impl Responses {
    pub(super) fn new(sender: mpsc::Sender<Sent>) -> Self {
        Self { sender, together: Arc::default() }
    }

    pub(super) async fn send(&self, response: WatchResponse) -> Option<()> {
        self.send_together([Told::from(response)]).await
    }

    pub(super) async fn send_together(&self, told: impl IntoIterator<Item = Told>) -> Option<()> {
        let _alone = self.together.lock().await;
        for told in told {
            self.sender.send(Ok(told)).await.ok()?;
        }
        Some(())
    }

    /// Says why there are no more.
    pub(super) async fn end(&self, status: Status) {
        let _alone = self.together.lock().await;
        // Whoever is told may be gone already.
        drop(self.sender.send(Err(status)).await);
    }

    /// Returns once the client is gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Whether a response would go at once.
    pub(super) fn is_quick(&self) -> bool {
        self.sender.capacity() > 0
    }

    /// Waits until one would.
    pub(super) async fn await_reader(&self) {
        drop(self.sender.reserve().await);
    }
}

/// The responses as they are read. What one holds is free once the next is asked for:
/// by then it is on its way (`bodies`).
pub(in crate::doors::etcd) fn told<R>(
    mut responses: mpsc::Receiver<Sent<R>>,
) -> impl Stream<Item = Result<R, Status>> {
    let mut on_its_way = Rooms::new();
    stream::poll_fn(move |context| {
        on_its_way.clear();
        responses.poll_recv(context).map(|next| {
            next.map(|told| {
                told.map(|Told { response, rooms }| {
                    on_its_way = rooms;
                    response
                })
            })
        })
    })
}
