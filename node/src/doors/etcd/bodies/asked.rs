//! Bodies of requests: what has come of the present message takes its bytes, and must be
//! whole in time.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actors::client::Room;
use http_body::Body as _;
use tokio::time::{Sleep, sleep};
use tonic::body::Body;

use super::{PREFIX_BYTES, Piece, body_of};
use crate::doors::etcd::faults::EtcdFault;

/// How long a message of a request may take to come, once it has begun: 50 KB a
/// second for the largest that are usual.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

/// The body of a request, or of the requests of a stream, that takes its bytes of a room.
pub(in crate::doors::etcd) fn asked(body: Body, room: Arc<Room>) -> Body {
    let mut asked = Asked { body, framing: Framing::default(), due: Due::default(), room };
    Body::new(body_of(move |context| asked.poll_frame(context)))
}

#[derive(Debug)]
struct Asked {
    body: Body,
    framing: Framing,
    due: Due,
    room: Arc<Room>,
}

impl Asked {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.due.poll(context).map(|fault| Some(Err(fault.into())));
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(fault) = self.take(data)
        {
            return Poll::Ready(Some(Err(fault.into())));
        }
        Poll::Ready(frame)
    }

    /// Takes room for what has come of a message.
    fn take(&mut self, data: &[u8]) -> Result<(), EtcdFault> {
        let held = self.framing.pass(data);
        self.due.set(self.framing.is_under_way());
        if self.room.set(held) { Ok(()) } else { Err(EtcdFault::TooManyRequests) }
    }
}

/// When a message that has begun must be whole.
#[derive(Debug)]
pub(in crate::doors::etcd) struct Due {
    within: Duration,
    at: Option<Pin<Box<Sleep>>>,
}

impl Default for Due {
    fn default() -> Self {
        Self { within: WHOLE_WITHIN, at: None }
    }
}

impl Due {
    /// Part of a message has come and not all of it, or neither.
    pub(in crate::doors::etcd) fn set(&mut self, is_under_way: bool) {
        if !is_under_way {
            self.at = None;
        } else if self.at.is_none() {
            self.at = Some(Box::pin(sleep(self.within)));
        }
    }

    /// What to say once it is too late.
    pub(in crate::doors::etcd) fn poll(&mut self, context: &mut Context<'_>) -> Poll<EtcdFault> {
        let due = self.at.as_mut().map_or(Poll::Pending, |due| due.as_mut().poll(context));
        due.map(|()| EtcdFault::Timeout)
    }
}

/// Where a body stands in its messages.
#[derive(Debug, Default)]
struct Framing {
    prefix: Vec<u8>,
    /// Bytes of the present message that have come, its prefix included.
    come: usize,
    /// Bytes of it that are to come.
    left: usize,
}

impl Framing {
    /// Whether part of a message has come, and not all of it.
    fn is_under_way(&self) -> bool {
        self.come > 0 && (self.left > 0 || self.prefix.len() < PREFIX_BYTES)
    }

    /// Takes in some bytes; how many of the last message have come with them.
    /// Those before it have been decoded by the time more is asked for.
    fn pass(&mut self, mut data: &[u8]) -> usize {
        while !data.is_empty() {
            if self.left == 0 && self.prefix.len() == PREFIX_BYTES {
                self.prefix.clear();
                self.come = 0;
            }
            let in_prefix = self.prefix.len() < PREFIX_BYTES;
            let wanted = if in_prefix { PREFIX_BYTES - self.prefix.len() } else { self.left };
            let (now, later) = data.split_at(wanted.min(data.len()));
            self.come += now.len();
            if in_prefix {
                self.prefix.extend_from_slice(now);
                if let [_, length @ ..] = &self.prefix[..]
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                }
            } else {
                self.left -= now.len();
            }
            data = later;
        }
        self.come
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{poll_fn, ready},
    };

    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tokio::{sync::Semaphore, time::Instant};

    use super::*;

    #[test]
    fn messages_are_counted_until_the_next_one_begins() {
        let message = |bytes: usize| {
            let length = u32::try_from(bytes).unwrap().to_be_bytes();
            [&[0][..], &length, &vec![7; bytes]].concat()
        };
        let bytes = [message(3), message(0), message(300)].concat();
        for step in [1, 2, 4, 5, 7, 1_000] {
            let mut framing = Framing::default();
            let held: Vec<_> = bytes.chunks(step).map(|chunk| framing.pass(chunk)).collect();
            assert_eq!(held.last(), Some(&305), "in steps of {step}");
            assert!(held.iter().all(|held| *held <= 305));
            if step == 1 {
                assert_eq!(held[..14], [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 1]);
            }
        }
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_whole_gives_its_room_back() {
        let bound = Arc::new(Semaphore::new(1_000));
        let room = Arc::new(Room::of(bound.clone()));
        let first = Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0, 0, 0, 1, 0, 7])));
        let stuck = stream::once(ready(first)).chain(stream::pending());
        let body = Body::new(StreamBody::new(stuck));
        let within = Duration::from_millis(100);
        let due = Due { within, at: None };
        let mut asked = Asked { body, framing: Framing::default(), due, room };
        let mut next = async || poll_fn(|context| asked.poll_frame(context)).await;
        let begun = Instant::now();
        assert!(next().await.unwrap().is_ok());
        assert_eq!(bound.available_permits(), 994);
        let status = next().await.unwrap().unwrap_err();
        assert_eq!(status.message(), "etcdserver: request timed out");
        assert!(begun.elapsed() >= within);
    }
}
