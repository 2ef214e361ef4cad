//! A connection whose answers leave together.
//!
//! Whoever has an answer wakes the task that drives its connection, and tokio runs at
//! once what was woken last: a put that a thousand watchers of fifty connections hear
//! would cost a thousand system calls and packets. So a driver that wants to write lets
//! the tasks run first that are ready, and then writes what all of them had to say. On
//! an idle node that costs a turn of the scheduler; on a busy one an answer waits for
//! the tasks that stood in line before it.
//!
//! The codec of HTTP/2 copies short answers one behind the other only for streams that
//! take one slice at a time, and then writes the head of a long one by itself: such a
//! head is kept for a moment and goes with what follows.
//!
//! Source: the same technique as `transport`'s drivers of QUIC.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

/// Shorter pieces wait for what follows: the head of a frame, and what was said before it.
const HEAD_BYTES_MAX: usize = 2 << 10;

/// The writing half of a connection; reads pass by it.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    pub(super) stream: S,
    /// Whether the others had their turn since the last flush.
    gave_way: bool,
    /// What waits for what follows, at most [`HEAD_BYTES_MAX`].
    head: Vec<u8>,
}

impl<S> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, gave_way: false, head: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes from the head and then from `bytes`; how many of those were taken.
    fn poll_both(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let pieces = [IoSlice::new(&self.head), IoSlice::new(bytes)];
            let stream = Pin::new(&mut self.stream);
            let written = if self.head.is_empty() {
                return stream.poll_write(context, bytes);
            } else if bytes.is_empty() {
                ready!(stream.poll_write(context, &self.head))?
            } else {
                ready!(stream.poll_write_vectored(context, &pieces))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(self.head.len());
            self.head.drain(..of_head);
            if written > of_head || (bytes.is_empty() && self.head.is_empty()) {
                return Poll::Ready(Ok(written - of_head));
            }
        }
    }

    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.gave_way {
            self.gave_way = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.head.is_empty() && bytes.len() < HEAD_BYTES_MAX {
            self.head.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_both(context, bytes)
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            ready!(self.poll_both(context, &[]))?;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.gave_way = false;
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            ready!(self.poll_both(context, &[]))?;
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// Takes a few bytes at a time, and counts how often it was asked to.
    #[derive(Debug, Default)]
    struct Slow {
        taken: Vec<u8>,
        calls: usize,
        most: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.as_mut().poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            let some = all.len().min(self.most);
            self.taken.extend_from_slice(&all[..some]);
            self.calls += 1;
            Poll::Ready(Ok(some))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn write(gathered: &mut Gathered<impl AsyncWrite + Unpin>, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = poll_fn(|context| gathered.poll_write(context, bytes)).await.unwrap();
            bytes = &bytes[taken..];
        }
    }

    #[tokio::test]
    async fn what_is_written_comes_whole_and_in_order_whatever_the_stream_takes_at_a_time() {
        let pieces: Vec<Vec<u8>> = (0..9_u8).map(|n| vec![n; 700 * usize::from(n)]).collect();
        for most in [1, 699, 700, 2_100, 5_000, 1 << 20] {
            let mut gathered = Gathered::new(Slow { most, ..Slow::default() });
            for (number, piece) in pieces.iter().enumerate() {
                write(&mut gathered, piece).await;
                if number % 3 == 0 {
                    poll_fn(|context| gathered.poll_flush(context)).await.unwrap();
                    assert_eq!(gathered.stream.taken, pieces[..=number].concat(), "{most}");
                }
            }
            poll_fn(|context| gathered.poll_shutdown(context)).await.unwrap();
            assert_eq!(gathered.stream.taken, pieces.concat(), "{most}");
        }
    }

    #[tokio::test]
    async fn a_head_goes_with_its_body() {
        let mut gathered = Gathered::new(Slow { most: 1 << 20, ..Slow::default() });
        write(&mut gathered, &[1; 9]).await;
        write(&mut gathered, &[2; 16_384]).await;
        poll_fn(|context| gathered.poll_flush(context)).await.unwrap();
        assert_eq!((gathered.stream.calls, gathered.stream.taken.len()), (1, 9 + 16_384));
    }

    #[tokio::test]
    async fn others_have_their_turn_once_before_each_flush() {
        let (near, mut far) = duplex(64);
        let mut gathered = Gathered::new(near);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(gathered.poll_write(&mut context, b"word").is_pending());
            assert!(gathered.poll_write(&mut context, b"word").is_ready());
            assert!(gathered.poll_flush(&mut context).is_ready());
        }
        drop(gathered);
        let mut told = String::new();
        far.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, "wordword");
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_is_an_error() {
        let mut gathered = Gathered::new(Slow::default());
        write(&mut gathered, b"word").await;
        let flushed = poll_fn(|context| gathered.poll_flush(context)).await;
        assert_eq!(flushed.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
