//! Bodies of requests and answers under way, within the bounds of the door.
//!
//! A request takes its bytes as they arrive, and is refused when there are no more:
//! it must not wait, because those that hold part of the bound may wait for it. A
//! message that has begun must be whole in time (`asked`). An answer took its bytes
//! as it was gathered ([`actors::client::Room`]), and gives them back when it is on its
//! way. Whoever does not read a large answer holds what others wait for, so its stream
//! ends after a while, counted over all its pieces and longer the more was read
//! (`answer`); that of watches only while others wait ([`WhileWaitedFor`]).
//!
//! What is not counted: an answer of [`PIECE_BYTES`] and less once it is made, a
//! piece of a larger one that the connection has taken, and the second copy of an
//! answer while it is encoded.

mod answer;
mod asked;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::Semaphore;
use tonic::Status;

pub(super) use self::{
    answer::{answer, stream},
    asked::{Due, asked},
};

/// Bytes of a piece of a large answer.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// What gRPC writes before each message: a flag and a length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Marks a request whose sender counts it, and its answer, by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountsItself;

/// Marks a stream that nobody need read, as long as nobody waits: whoever does has
/// taken the one permit.
#[derive(Clone, Debug)]
pub(super) struct WhileWaitedFor(pub(super) Arc<Semaphore>);

/// What comes of a body at a time.
pub(super) type Piece = Result<Frame<Bytes>, Status>;

/// Any body here.
pub(super) trait Pieces:
    http_body::Body<Data = Bytes, Error = Status> + Send + Unpin + 'static
{
}

impl<B> Pieces for B where B: http_body::Body<Data = Bytes, Error = Status> + Send + Unpin + 'static {}

/// A body of what this says when it is polled.
pub(super) fn body_of(
    poll: impl FnMut(&mut Context<'_>) -> Poll<Option<Piece>> + Send + 'static,
) -> impl Pieces {
    StreamBody::new(poll_fn(poll))
}
