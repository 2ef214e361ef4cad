//! A UDP socket as quinn wants one, over the wire.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::Wire;
use crate::clock::HostClock;

/// Datagrams a host hands over at once, as Linux takes them (GSO).
const SEGMENTS_MAX: usize = 10;

/// One bound socket of one boot.
#[derive(Debug)]
pub(super) struct SimulatedSocket {
    pub(super) wire: Wire,
    pub(super) address: SocketAddr,
    /// The binding of the address this socket is; a later one mutes it.
    pub(super) binding: u64,
    pub(super) clock: Arc<HostClock>,
}

/// The wire takes everything at once.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for SimulatedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let now = self.clock.world_now();
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for bytes in transmit.contents.chunks(segment) {
            self.wire.send((self.address, self.binding), transmit.destination, bytes, now);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let place = |(buffer, meta): (&mut IoSliceMut<'_>, &mut RecvMeta), from, bytes: &[u8]| {
            // A datagram longer than the buffer is cut, as the system does it.
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta { addr: from, len, stride: len, ..RecvMeta::default() };
        };
        let mut slots = buffers.iter_mut().zip(metas.iter_mut());
        let mut count = 0;
        while slots.len() > 0 {
            let Some((from, bytes)) = self.wire.receive((self.address, self.binding)) else {
                break;
            };
            if let Some(slot) = slots.next() {
                place(slot, from, &bytes);
                count += 1;
            }
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        self.wire.wake_later((self.address, self.binding), cx.waker());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
