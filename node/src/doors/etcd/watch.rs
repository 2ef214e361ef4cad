//! etcd's service Watch: what happens to keys, many watches in one stream.
//!
//! A stream is a [`Session`] that takes requests in their order, and a task for
//! each watch. A watch is a place and a question to the store (see
//! `cluster::shard::watch`), so nothing need be kept for a slow reader: **what gets no
//! room is dropped, and read again from its place.** What waits for readers is bounded
//! in bytes: [`OWN_BYTES`] of each stream, so that small news never wait for the readers
//! of others, and one bound of the door for all that is more. Whoever got no room
//! waits for the door's turn, drops nothing from then on, and gives the turn back once
//! its revision is on its way; so no two hold part of the bound and wait for the rest.
//! While anybody has the turn, streams that nobody reads are given up (`bodies`).
//!
//! Events of one revision come in one response, or in fragments without anything in
//! between if the client asked for them. A revision in a header without events is a promise that all before
//! it was sent: it is taken from the watch's place, never from the newest revision.
//!
//! Source: etcd's watch server (its `watch.go`), and its bugs: progress ahead of
//! events, watchers that were moved back in time.

mod events;
mod responses;
mod room;
mod session;

pub(super) use responses::{Sent, Told, told};
pub(super) use room::{Gathering, NoRoom, Own, Watched};

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use self::{responses::Responses, session::Session};
use super::{
    bodies::{PIECE_BYTES, WhileWaitedFor},
    frames::{self, Unused},
    gateway::{Gateway, needs_leader},
    proto::etcdserverpb::{WatchRequest, WatchResponse, watch_server::Watch},
};

/// Responses of one stream that wait for its reader.
const RESPONSES_WAITING_MAX: usize = 4;
/// Bytes that the responses of one stream may take before they take the door's.
const OWN_BYTES: usize = PIECE_BYTES;
/// Watches of one stream that read the past at a time.
const CATCHING_UP_MAX: usize = 4;
/// The id of a response that speaks of no watch, or of all.
const NO_WATCH: i64 = -1;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct WatchService(pub(super) Arc<Gateway>);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Unused<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, extensions, asked) = request.into_parts();
        let client = self.0.admit_stream(&metadata, &extensions).await?;
        let (sender, responses) = mpsc::channel(RESPONSES_WAITING_MAX);
        let session =
            Session::new(self.0.clone(), client, needs_leader(&metadata), Responses::new(sender));
        tokio::spawn(Box::pin(session.run(asked)));
        let mut response = frames::stream(told(responses));
        response.extensions_mut().insert(WhileWaitedFor(self.0.watched.turn.clone()));
        Ok(response)
    }
}
