//! Connections of the door: how many at a time, and how long one may say nothing.
//!
//! Whoever comes beyond the bound waits in the system's own queue until somebody
//! goes, as at etcd's. A connection that does not say what it wants is closed, or
//! strangers who say nothing would keep all others out: within TLS, too, whose handshake
//! says nothing yet (what is counted are words within it). A system that has no file
//! descriptor left is asked again after a pause, not in a circle and not never.
//!
//! Source: etcd's limit of its listeners (`transport/limit_listen.go`).

use std::{
    future::ready,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
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
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpIncoming};

use super::{ALIVE_EVERY, ALIVE_WITHIN, gateway::Gateway, gathered::Gathered, tls::Handshakes};

/// First words of a connection: the preface of HTTP/2, and less than any request of
/// HTTP/1.1 has.
const FIRST_WORDS: usize = 24;
/// Pause after the system could not give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What comes in, at most `most` at a time.
pub(super) fn incoming(
    listener: TcpListener,
    gateway: &Arc<Gateway>,
) -> impl Stream<Item = io::Result<Connection<TcpStream>>> + use<> {
    let gateway = gateway.clone();
    in_places(listener, gateway.config.connections)
        .map(move |(stream, place)| Ok(Connection::new(stream, place, gateway.clone())))
}

/// The same within TLS: handshakes are made beside each other, each in its place.
pub(super) fn secured(
    listener: TcpListener,
    gateway: &Arc<Gateway>,
    handshakes: Handshakes,
) -> impl Stream<Item = io::Result<Connection<TlsStream<TcpStream>>>> + use<> {
    let (gateway, most) = (gateway.clone(), gateway.config.connections);
    let shake = move |(stream, place)| {
        let (handshakes, gateway) = (handshakes.clone(), gateway.clone());
        tokio::spawn(async move {
            match handshakes.shake(stream).await {
                Ok(secured) => Some(Ok(Connection::new(secured, place, gateway))),
                Err(error) => {
                    tracing::debug!(%error, "a handshake at the etcd door came to nothing");
                    None
                }
            }
        })
    };
    let shaken = in_places(listener, most).map(shake).buffer_unordered(most);
    shaken.filter_map(|shaken| ready(shaken.ok().flatten()))
}

/// What comes, each in a place of `most`.
fn in_places(
    listener: TcpListener,
    most: usize,
) -> impl Stream<Item = (TcpStream, OwnedSemaphorePermit)> {
    let incoming =
        TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(ALIVE_EVERY));
    let places = Arc::new(Semaphore::new(most));
    stream::unfold((incoming, places), move |(mut incoming, places)| async move {
        let place = places.clone().acquire_owned().await.ok()?;
        let stream = accept(&mut incoming).await?;
        Some(((stream, place), (incoming, places)))
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
pub(super) struct Connection<S> {
    gathered: Gathered<S>,
    silent: Option<Silent>,
    /// Where its bytes are counted.
    gateway: Arc<Gateway>,
    _place: OwnedSemaphorePermit,
}

/// A connection that has not said what it wants.
#[derive(Debug)]
struct Silent {
    /// Bytes of its first words that are missing.
    left: usize,
    until: Pin<Box<Sleep>>,
}

impl<S> Connection<S> {
    fn new(stream: S, place: OwnedSemaphorePermit, gateway: Arc<Gateway>) -> Self {
        let silent = Silent { left: FIRST_WORDS, until: Box::pin(sleep(ALIVE_WITHIN)) };
        Self { gathered: Gathered::new(stream), silent: Some(silent), gateway, _place: place }
    }
}

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.gathered.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.gathered.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        self.gateway.counts.received.fetch_add(bytes as u64, Ordering::Relaxed);
        let Some(silent) = &mut self.silent else { return read };
        silent.left = silent.left.saturating_sub(bytes);
        if silent.left == 0 {
            self.silent = None;
        } else if read.is_pending() && silent.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.gathered.poll_write(context, bytes);
        if let Poll::Ready(Ok(bytes)) = written {
            self.gateway.counts.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        written
    }

    // Not vectored: see `gathered`.

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathered.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathered.poll_shutdown(context)
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
