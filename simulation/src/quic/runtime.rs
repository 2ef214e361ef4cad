//! quinn's runtime: tokio's timers and tasks, and the host's clock.
//!
//! quinn closes a connection where its last handle is dropped, and reads the
//! time for that. A client dropped between two ticks is outside every runtime,
//! where tokio answers with the real clock: the timer of the closed connection
//! then depends on how long the run has taken so far, and with it what later
//! packets are answered with. The host's clock answers with its own time
//! everywhere.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

use crate::clock::HostClock;

/// The runtime of one host.
#[derive(Debug)]
pub(super) struct HostRuntime(pub(super) Arc<HostClock>);

impl Runtime for HostRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(task);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a world has no sockets of the system"))
    }

    fn now(&self) -> Instant {
        self.0.runtime_now()
    }
}
