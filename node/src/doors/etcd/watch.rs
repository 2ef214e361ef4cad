//! etcd's service Watch: what happens to keys, many watches in one stream.
//!
//! A stream is a [`Session`] that takes requests in their order, and a task for
//! each watch. A watch is a place and a question to the store (see
//! `cluster::shard::watch`), so nothing is buffered here for a slow reader: a
//! watch asks again only when its answer was taken. What waits is bounded by
//! [`RESPONSES_WAITING_MAX`] responses of a stream, one answer of each watch, and
//! [`CATCHING_UP_MAX`] answers of watches that are behind, about a megabyte each.
//!
//! Events of one revision come in one response, unless the client asked for
//! fragments. A revision in a header without events is a promise that all before
//! it was sent: it is taken from the watch's place, never from the newest revision.
//!
//! Source: etcd's watch server (its `watch.go`), and its bugs: progress ahead of
//! events, watchers that were moved back in time.

mod events;
mod session;

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use self::session::Session;
use super::{
    gateway::{Gateway, needs_leader},
    proto::etcdserverpb::{WatchRequest, WatchResponse, watch_server::Watch},
};

/// Responses of one stream that wait for its reader.
const RESPONSES_WAITING_MAX: usize = 4;
/// Watches of one stream that read the past at a time.
const CATCHING_UP_MAX: usize = 4;
/// The id of a response that speaks of no watch, or of all.
const NO_WATCH: i64 = -1;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct WatchService(pub(super) Arc<Gateway>);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, extensions, asked) = request.into_parts();
        let client = self.0.admit_stream(&metadata, &extensions).await?;
        let (sender, mut responses) = mpsc::channel(RESPONSES_WAITING_MAX);
        let session = Session::new(self.0.clone(), client, needs_leader(&metadata), sender);
        tokio::spawn(Box::pin(session.run(asked)));
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| responses.poll_recv(context)))))
    }
}
