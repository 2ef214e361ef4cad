//! Bodies of answers that hold room: they come in pieces, as they are read, and are given
//! up if they are not.

use std::{
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use actors::client::Room;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};
use tonic::codegen::http;

use super::{PIECE_BYTES, Piece, Pieces, WhileWaitedFor, body_of};
use crate::doors::etcd::faults::EtcdFault;

/// How long a large answer stands still, in all, before it is given up.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// Bytes a second that must be read of one that takes longer.
const READ_PACE_MIN: usize = 64 << 10;

/// An answer that holds room until it is read.
pub(in crate::doors::etcd) fn answer(body: impl Pieces, room: Arc<Room>) -> impl Pieces {
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        send_pieces(body, &sender, Patience::of(UNREAD_MAX)).await;
        drop(room);
    });
    read(pieces)
}

/// A stream whose messages hold room by themselves.
pub(in crate::doors::etcd) fn stream(body: impl Pieces, turn: WhileWaitedFor) -> impl Pieces {
    let (sender, pieces) = mpsc::channel(1);
    let patience = Patience { waits: Some(turn.0), ..Patience::of(UNREAD_MAX) };
    tokio::spawn(async move { send_pieces(body, &sender, patience).await });
    read(pieces)
}

/// Pieces as they come.
fn read(mut pieces: mpsc::Receiver<Piece>) -> impl Pieces {
    let mut done = false;
    body_of(move |context| {
        if done {
            return Poll::Ready(None);
        }
        // Without trailers, be they empty, it was given up.
        let cut = || Err(EtcdFault::TooManyRequests.into());
        let frame = ready!(pieces.poll_recv(context)).unwrap_or_else(cut);
        done = !frame.as_ref().is_ok_and(Frame::is_data);
        Poll::Ready(Some(frame))
    })
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

/// Sends an answer as it is read; gives it up if it is not. Pieces of what is large are
/// copied: the last one must not keep the whole.
async fn send_pieces(mut body: impl Pieces, pieces: &mpsc::Sender<Piece>, mut patience: Patience) {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
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
    use http_body_util::Full;
    use tokio::time::sleep;
    use tonic::body::Body;

    use super::*;

    fn sevens(bytes: usize) -> Body {
        Body::new(Full::from(vec![7; bytes]))
    }

    #[tokio::test]
    async fn an_answer_holds_its_room_until_it_is_read() {
        let bound = Arc::new(Semaphore::new(1 << 20));
        let room = Arc::new(Room::of(bound.clone()));
        assert!(room.grow(300_000).await);
        let mut answer = answer(sevens(300_000), room);
        let mut read = 0;
        while read < 200_000 {
            read += answer.frame().await.unwrap().unwrap().into_data().unwrap().len();
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
    async fn an_answer_that_is_read_a_little_at_a_time_is_given_up_all_the_same() {
        let body = sevens(16 << 20);
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
}
