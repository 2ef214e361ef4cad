//! Bodies of requests and answers under way, within the bounds of the door.
//!
//! A request takes its bytes as they arrive, and is refused when there are no more:
//! it must not wait, because those that hold part of the bound may wait for it. A
//! message that has begun must be whole within [`WHOLE_WITHIN`]. An answer took its bytes
//! as it was gathered ([`Room`]), and gives them back when it is on its way. Whoever
//! does not read a large answer holds what others wait for, so its stream ends after
//! [`UNREAD_MAX`], counted over all its pieces and longer the more was read
//! ([`READ_PACE_MIN`]); that of watches only while others wait ([`WhileWaitedFor`]).
//!
//! What is not counted: an answer of [`PIECE_BYTES`] and less once it is made, a
//! piece of a larger one that the connection has taken, and the second copy of an
//! answer while it is encoded.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actors::client::Room;
use bytes::Bytes;
use http_body::Frame;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, Sleep, sleep, timeout},
};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use super::{faults::EtcdFault, frames::in_place};

/// Bytes of a piece of a large answer.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// How long a large answer stands still, in all, before it is given up.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// Bytes a second that must be read of one that takes longer.
const READ_PACE_MIN: usize = 64 << 10;
/// How long a message of a request may take to come, once it has begun: 50 KB a
/// second for the largest that are usual.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// What gRPC writes before each message: a flag and a length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Marks a request whose sender counts it, and its answer, by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountsItself;

/// Marks a stream that nobody need read, as long as nobody waits: whoever does has
/// taken the one permit.
#[derive(Clone, Debug)]
pub(super) struct WhileWaitedFor(pub(super) Arc<Semaphore>);

/// A service whose requests and answers are counted.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    service: S,
    bound: Arc<Semaphore>,
}

impl<S> Bounded<S> {
    pub(super) fn new(service: S, bound: &Arc<Semaphore>) -> Self {
        Self { service, bound: bound.clone() }
    }
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if request.extensions_mut().remove::<CountsItself>().is_some() {
            let answered = self.service.call(request);
            return Box::pin(async move { Ok(in_place(answered.await?)) });
        }
        let room = Arc::new(Room::of(self.bound.clone()));
        let asked = |body| Asked {
            body,
            framing: Framing::default(),
            due: Due::default(),
            room: room.clone(),
        };
        let answered = self.service.call(request.map(|body| Body::new(asked(body))));
        Box::pin(async move {
            let mut response = in_place(answered.await?);
            // What was asked is held until it is answered, or longer by a stream.
            drop(room);
            if let Some(turn) = response.extensions_mut().remove::<WhileWaitedFor>() {
                return Ok(response.map(|body| Body::new(Answer::stream(body, turn))));
            }
            Ok(match response.extensions_mut().remove::<Arc<Room>>() {
                Some(room) => response.map(|body| Body::new(Answer::new(body, room))),
                None => response,
            })
        })
    }
}

/// The body of a request, or of the requests of a stream.
struct Asked {
    body: Body,
    framing: Framing,
    due: Due,
    room: Arc<Room>,
}

impl Asked {
    /// Takes room for what has come of a message.
    fn take(&mut self, data: &[u8]) -> Result<(), EtcdFault> {
        let held = self.framing.pass(data);
        self.due.set(self.framing.is_under_way());
        if self.room.set(held) { Ok(()) } else { Err(EtcdFault::TooManyRequests) }
    }
}

impl http_body::Body for Asked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
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

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// When a message that has begun must be whole.
#[derive(Debug)]
pub(super) struct Due {
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
    pub(super) fn set(&mut self, is_under_way: bool) {
        if !is_under_way {
            self.at = None;
        } else if self.at.is_none() {
            self.at = Some(Box::pin(sleep(self.within)));
        }
    }

    /// What to say once it is too late.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<EtcdFault> {
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

type Piece = Result<Frame<Bytes>, Status>;

/// The body of an answer that holds room: it comes in pieces, as they are read.
pub(super) struct Answer {
    pieces: mpsc::Receiver<Piece>,
    done: bool,
}

impl Answer {
    pub(super) fn new<B>(body: B, room: Arc<Room>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Send + Unpin + 'static,
    {
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            send_pieces(body, &sender, Patience::of(UNREAD_MAX)).await;
            drop(room);
        });
        Self { pieces, done: false }
    }

    /// A stream whose messages hold room by themselves.
    pub(super) fn stream<B>(body: B, turn: WhileWaitedFor) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Send + Unpin + 'static,
    {
        let (sender, pieces) = mpsc::channel(1);
        let patience = Patience { waits: Some(turn.0), ..Patience::of(UNREAD_MAX) };
        tokio::spawn(async move { send_pieces(body, &sender, patience).await });
        Self { pieces, done: false }
    }
}

/// How long an answer may stand still.
struct Patience {
    most: Duration,
    left: Duration,
    /// Taken while anybody waits for what it holds; none if somebody always may.
    waits: Option<Arc<Semaphore>>,
}

impl Patience {
    fn of(most: Duration) -> Self {
        Self { most, left: most, waits: None }
    }

    /// Begins anew if nobody waits; whether it did.
    fn renew(&mut self) -> bool {
        let nobody_waits = self.waits.as_ref().is_some_and(|turn| turn.available_permits() > 0);
        if nobody_waits {
            self.left = self.most;
        }
        nobody_waits
    }

    async fn send(&mut self, pieces: &mpsc::Sender<Piece>, piece: Piece, bytes: usize) -> bool {
        let mut sending = pin!(pieces.send(piece));
        loop {
            let begun = Instant::now();
            match timeout(self.left, &mut sending).await {
                Ok(sent) => {
                    let earned = Duration::from_millis((bytes * 1_000 / READ_PACE_MIN) as u64);
                    self.left = self.left.saturating_sub(begun.elapsed()) + earned;
                    return sent.is_ok();
                }
                Err(_) if self.renew() => {}
                Err(_) => return false,
            }
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        // Without trailers, be they empty, it was given up.
        let cut = || Err(EtcdFault::TooManyRequests.into());
        let frame = ready!(self.pieces.poll_recv(context)).unwrap_or_else(cut);
        self.done = !frame.as_ref().is_ok_and(Frame::is_data);
        Poll::Ready(Some(frame))
    }
}

/// Sends an answer as it is read; gives it up if it is not. Pieces of what is large are
/// copied: the last one must not keep the whole.
async fn send_pieces<B>(mut body: B, pieces: &mpsc::Sender<Piece>, mut patience: Patience)
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin,
{
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)) => frame,
            // A stream that has nothing to say must hear that its reader is gone.
            () = pieces.closed() => return,
        };
        let Some(frame) = frame else { break };
        patience.renew();
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) if data.len() <= PIECE_BYTES => {
                let bytes = data.len();
                if !patience.send(pieces, Ok(Frame::data(data)), bytes).await {
                    return;
                }
            }
            Ok(Ok(data)) => {
                for piece in data.chunks(PIECE_BYTES) {
                    let frame = Frame::data(Bytes::copy_from_slice(piece));
                    if !patience.send(pieces, Ok(frame), piece.len()).await {
                        return;
                    }
                }
            }
            Ok(Err(trailers)) => {
                patience.send(pieces, Ok(trailers), 0).await;
                return;
            }
            Err(status) => {
                patience.send(pieces, Err(status), 0).await;
                return;
            }
        }
    }
    patience.send(pieces, Ok(Frame::trailers(http::HeaderMap::new())), 0).await;
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

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
    async fn an_answer_holds_its_room_until_it_is_read() {
        let bound = Arc::new(Semaphore::new(1 << 20));
        let room = Arc::new(Room::of(bound.clone()));
        assert!(room.grow(300_000).await);
        let whole = Body::new(Once(Some(Bytes::from(vec![7; 300_000]))));
        let mut answer = Answer::new(whole, room);
        let mut read = 0;
        while read < 200_000 {
            let frame = poll_fn(|context| Pin::new(&mut answer).poll_frame(context)).await;
            read += frame.unwrap().unwrap().into_data().unwrap().len();
            assert_eq!(bound.available_permits(), (1 << 20) - 300_000);
        }
        drop(answer);
        timeout(Duration::from_secs(5), bound.acquire_many(1 << 20))
            .await
            .expect("what nobody reads is given up")
            .unwrap()
            .forget();
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_whole_gives_its_room_back() {
        let bound = Arc::new(Semaphore::new(1_000));
        let room = Arc::new(Room::of(bound.clone()));
        let body = Body::new(Stuck(Once(Some(Bytes::from_static(&[0, 0, 0, 1, 0, 7])))));
        let within = Duration::from_millis(100);
        let due = Due { within, at: None };
        let mut asked = Asked { body, framing: Framing::default(), due, room };
        let mut next = async || poll_fn(|context| Pin::new(&mut asked).poll_frame(context)).await;
        let begun = Instant::now();
        assert!(next().await.unwrap().is_ok());
        assert_eq!(bound.available_permits(), 994);
        let status = next().await.unwrap().unwrap_err();
        assert_eq!(status.message(), "etcdserver: request timed out");
        assert!(begun.elapsed() >= within);
    }

    #[tokio::test]
    async fn an_answer_that_is_read_a_little_at_a_time_is_given_up_all_the_same() {
        let body = Body::new(Once(Some(Bytes::from(vec![7; 16 << 20]))));
        let (sender, mut pieces) = mpsc::channel(1);
        let sent = tokio::spawn(async move {
            send_pieces(body, &sender, Patience::of(Duration::from_millis(100))).await;
        });
        let mut read = 0;
        // Slower than the least pace, and never so slow that one piece would end it.
        while !sent.is_finished() {
            sleep(Duration::from_millis(600)).await;
            read += usize::from(pieces.try_recv().is_ok());
        }
        assert!((1..20).contains(&read), "{read} pieces were read");
    }

    /// A body that does not end.
    struct Stuck(Once);

    impl http_body::Body for Stuck {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let frame = ready!(Pin::new(&mut self.0).poll_frame(context));
            frame.map_or(Poll::Pending, |frame| Poll::Ready(Some(frame)))
        }
    }

    /// A body of one frame.
    struct Once(Option<Bytes>);

    impl http_body::Body for Once {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }
    }
}
