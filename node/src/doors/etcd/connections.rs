//! Connections of the door: how many at a time, and how long one may say nothing.
//!
//! Whoever comes beyond the bound waits in the system's own queue until somebody
//! goes, as at etcd's. A connection that does not say what it wants is closed, or
//! strangers who say nothing would keep all others out: within TLS, too, where its first
//! words only open the handshake. A system that has no file descriptor left is asked
//! again after a pause, not in a circle and not never.
//!
//! Source: etcd's limit of its listeners (`transport/limit_listen.go`).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

use super::{ALIVE_EVERY, ALIVE_WITHIN};

/// First words of a connection: the preface of HTTP/2. Those of TLS are longer, and
/// its handshake has a deadline of its own.
const FIRST_WORDS: usize = 24;
/// What comes after a handshake, whose last words may have brought the preface with
/// them: at the least the answer to our settings.
const WORDS_WITHIN_TLS: usize = 1;
/// Pause after the system could not give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What comes in, at most `most` at a time, and speaks TLS or not.
pub(super) fn incoming(
    listener: TcpListener,
    most: usize,
    tls: bool,
) -> impl Stream<Item = io::Result<Connection>> {
    let incoming =
        TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(ALIVE_EVERY));
    let places = Arc::new(Semaphore::new(most));
    stream::unfold((incoming, places), move |(mut incoming, places)| async move {
        let place = places.clone().acquire_owned().await.ok()?;
        let stream = accept(&mut incoming).await?;
        Some((Ok(Connection::new(stream, place, tls)), (incoming, places)))
    })
}

/// The next connection; none once the listener is gone.
async fn accept<C>(incoming: &mut (impl Stream<Item = io::Result<C>> + Unpin)) -> Option<C> {
    loop {
        match incoming.next().await? {
            Ok(connection) => return Some(connection),
            Err(error) if is_its_own(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the etcd door cannot take a connection and pauses");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a connection failed before it was taken, and no other one.
fn is_its_own(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    [Kind::ConnectionAborted, Kind::ConnectionReset, Kind::ConnectionRefused, Kind::Interrupted]
        .contains(&error.kind())
}

/// One connection in its place.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    silent: Option<Silent>,
    /// Whether it is within TLS from now on, and nobody waits for its words yet.
    secured: Option<AtomicBool>,
    _place: OwnedSemaphorePermit,
}

/// A connection that has not said what it wants.
#[derive(Debug)]
struct Silent {
    /// Bytes of its first words that are missing.
    left: usize,
    until: Pin<Box<Sleep>>,
}

impl Silent {
    fn new(left: usize) -> Self {
        Self { left, until: Box::pin(sleep(ALIVE_WITHIN)) }
    }
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, tls: bool) -> Self {
        let secured = tls.then(AtomicBool::default);
        Self { stream, silent: Some(Silent::new(FIRST_WORDS)), secured, _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    /// What serves it asks for it once: within TLS when the handshake is done.
    fn connect_info(&self) -> TcpConnectInfo {
        if let Some(secured) = &self.secured {
            secured.store(true, Ordering::Relaxed);
        }
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.secured.as_ref().is_some_and(|secured| secured.load(Ordering::Relaxed)) {
            self.secured = None;
            self.silent = Some(Silent::new(WORDS_WITHIN_TLS));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(silent) = &mut self.silent else { return read };
        silent.left = silent.left.saturating_sub(buffer.filled().len() - before);
        if silent.left == 0 {
            self.silent = None;
        } else if read.is_pending() && silent.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of a system without file descriptors, and of a connection that
    /// was gone before it was taken.
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;

    #[tokio::test]
    async fn a_system_without_file_descriptors_is_asked_again_after_a_pause() {
        let failing = |code| Err(io::Error::from_raw_os_error(code));
        let comes = [failing(ECONNABORTED), failing(EMFILE), failing(EMFILE), Ok("somebody")];
        let begun = tokio::time::Instant::now();
        let mut incoming = stream::iter(comes);
        assert_eq!(accept(&mut incoming).await, Some("somebody"));
        let waited = begun.elapsed();
        assert!(waited >= ACCEPT_PAUSE * 2, "{waited:?}: it asked in a circle");
        assert!(waited < ACCEPT_PAUSE * 20);
    }
}
