//! Messages of a stream as gRPC frames them, each in bytes that go with it.
//!
//! tonic's encoder has a buffer for each stream that grows to its largest message and
//! is kept as long as the stream lives: ten thousand watches that once heard of a large
//! value would hold it ten thousand times. So a service whose streams may be long gives
//! tonic an empty one, and this in its place ([`stream`], [`in_place`]).

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{BufMut, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body::Frame;
use prost::Message;
use tonic::{Code, Response, Status, body::Body, codegen::http};

use super::bodies::{PIECE_BYTES, PREFIX_BYTES, Piece, body_of};

/// What tonic encodes itself: nothing.
pub(super) type Unused<M> = futures_util::stream::Empty<Result<M, Status>>;

/// The body that goes in the place of tonic's. Behind a lock because what comes along
/// with a response is cloned; it is taken once.
#[derive(Clone)]
struct InPlace(Arc<Mutex<Option<Body>>>);

/// An answer of a stream of messages.
pub(super) fn stream<M, S>(messages: S) -> Response<Unused<M>>
where
    M: Message + 'static,
    S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
{
    let mut frames = Frames { messages: Some(messages), ended: None };
    let body = Body::new(body_of(move |context| frames.poll_frame(context)));
    let mut response = Response::new(futures_util::stream::empty());
    response.extensions_mut().insert(InPlace(Arc::new(Mutex::new(Some(body)))));
    response
}

/// The answer as it is to be sent.
pub(super) fn in_place(mut response: http::Response<Body>) -> http::Response<Body> {
    let Some(InPlace(body)) = response.extensions_mut().remove() else { return response };
    let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
    response.map(|empty| body.unwrap_or(empty))
}

/// Messages, and then how they ended.
struct Frames<S> {
    /// None once there are no more.
    messages: Option<S>,
    /// What is to be said then.
    ended: Option<Status>,
}

impl<M, S> Frames<S>
where
    M: Message,
    S: Stream<Item = Result<M, Status>> + Unpin,
{
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let mut frames = BytesMut::new();
        if self.fill(&mut frames, context) {
            return Poll::Pending;
        }
        if !frames.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(frames.freeze()))));
        }
        Poll::Ready(self.ended.take().map(|status| {
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers)?;
            Ok(Frame::trailers(trailers))
        }))
    }

    /// Adds what is ready, as far as it is small; whether to wait for more.
    fn fill(&mut self, frames: &mut BytesMut, context: &mut Context<'_>) -> bool {
        while let Some(messages) = &mut self.messages
            && frames.len() < PIECE_BYTES
        {
            match messages.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(message))) => {
                    put(&message, frames);
                    continue;
                }
                Poll::Ready(Some(Err(status))) => self.ended = Some(status),
                Poll::Ready(None) => self.ended = Some(Status::new(Code::Ok, "")),
                Poll::Pending => return frames.is_empty(),
            }
            self.messages = None;
        }
        false
    }
}

/// Adds a message behind its flag and its length.
pub(super) fn put(message: &impl Message, to: &mut BytesMut) {
    let bytes = message.encoded_len();
    to.reserve(PREFIX_BYTES + bytes);
    to.put_u8(0);
    // None is larger: requests and responses have bounds of some MiB.
    to.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
    // It grows, so there is always room.
    let _ = message.encode(to);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream::iter;
    use http_body_util::BodyExt;

    use super::{super::proto::etcdserverpb::WatchResponse, *};

    fn response(reason: &str) -> WatchResponse {
        WatchResponse { cancel_reason: reason.into(), ..WatchResponse::default() }
    }

    async fn frames(messages: Vec<Result<WatchResponse, Status>>) -> Vec<Frame<Bytes>> {
        let plain = stream(iter(messages)).map(|_| Body::empty());
        let (_, _, extensions) = plain.into_parts();
        let mut response = http::Response::new(Body::empty());
        *response.extensions_mut() = extensions;
        let mut body = in_place(response).into_body();
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap());
        }
        frames
    }

    fn data(frame: &Frame<Bytes>) -> &[u8] {
        frame.data_ref().unwrap()
    }

    #[tokio::test]
    async fn small_messages_go_together_and_a_large_one_goes_with_its_bytes() {
        let large = "x".repeat(PIECE_BYTES);
        let told = ["a", "bb", &large, "c"].map(|reason| Ok(response(reason)));
        let [first, last, trailers] = &frames(told.into()).await[..] else { panic!() };
        assert_eq!(data(first)[..8], [0, 0, 0, 0, 3, 50, 1, b'a']);
        assert_eq!(data(first)[8..17], [0, 0, 0, 0, 4, 50, 2, b'b', b'b']);
        assert_eq!(data(first).len(), 17 + 5 + 4 + PIECE_BYTES);
        assert_eq!(data(last), [0, 0, 0, 0, 3, 50, 1, b'c']);
        assert_eq!(trailers.trailers_ref().unwrap()["grpc-status"], "0");
    }

    #[tokio::test]
    async fn what_was_said_before_an_end_comes_before_it() {
        let told =
            vec![Ok(response("a")), Err(Status::new(Code::Unavailable, "why")), Ok(response("b"))];
        let [first, trailers] = &frames(told).await[..] else { panic!() };
        assert_eq!(data(first).len(), 8);
        let trailers = trailers.trailers_ref().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"14".parse().unwrap(), &"why".parse().unwrap())
        );
    }
}
