//! The same transport over a simulated socket in virtual time: what the
//! simulator will do. Loss and delay come from a seed.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use cluster::ports::{entropy::Entropy, network::Network};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Instant, Sleep};
use transport::{Limits, Socket};

use crate::harness::{Seeded, World, eventually, start};

#[derive(Debug, Default)]
struct Inbox {
    packets: BTreeMap<(Instant, u64), (SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Net {
    seed: Arc<Seeded>,
    sequence: u64,
    cut: bool,
    inboxes: BTreeMap<SocketAddr, Inbox>,
}

#[derive(Debug)]
struct SimSocket {
    net: Arc<Mutex<Net>>,
    address: SocketAddr,
    sleep: Mutex<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn socket(net: &Arc<Mutex<Net>>, address: SocketAddr) -> Socket {
    net.lock().unwrap().inboxes.insert(address, Inbox::default());
    let sleep = Mutex::new(Box::pin(tokio::time::sleep(Duration::ZERO)));
    let socket = Arc::new(SimSocket { net: Arc::clone(net), address, sleep });
    Socket::Abstract(socket, Arc::new(quinn::TokioRuntime))
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut net = self.net.lock().unwrap();
        let (chance, delay) = (net.seed.next_u64(), net.seed.next_u64());
        net.sequence += 1;
        if net.cut || chance % 100 < 5 {
            return Ok(());
        }
        let at = (Instant::now() + Duration::from_micros(1_000 + delay % 10_000), net.sequence);
        let packet = (self.address, transmit.contents.to_vec());
        if let Some(inbox) = net.inboxes.get_mut(&transmit.destination) {
            inbox.packets.insert(at, packet);
            if let Some(waker) = inbox.waker.take() {
                waker.wake();
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut net = self.net.lock().unwrap();
            let inbox = net.inboxes.get_mut(&self.address).unwrap();
            let due = inbox.packets.first_key_value().map(|(key, _)| key.0);
            if due.is_some_and(|at| at <= Instant::now()) {
                let (_, (from, bytes)) = inbox.packets.pop_first().unwrap();
                buffers[0][..bytes.len()].copy_from_slice(&bytes);
                metas[0] = RecvMeta {
                    addr: from,
                    len: bytes.len(),
                    stride: bytes.len(),
                    ..RecvMeta::default()
                };
                return Poll::Ready(Ok(1));
            }
            inbox.waker = Some(cx.waker().clone());
            let Some(at) = due else { return Poll::Pending };
            drop(net);
            let mut sleep = self.sleep.lock().unwrap();
            sleep.as_mut().reset(at);
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_lossy_simulated_network_in_virtual_time_carries_everything() {
    let world = World::new(90);
    let net = Arc::new(Mutex::new(Net {
        seed: Seeded::new(5),
        sequence: 0,
        cut: false,
        inboxes: BTreeMap::new(),
    }));
    let node = |id: u128| {
        let mut config = world.config(id, Limits::default());
        let address = SocketAddr::from(([10, 0, 0, id as u8], 7_000));
        config.socket = socket(&net, address);
        start(config, id)
    };
    let (a, b) = (node(1), node(2));
    a.knows(&b);
    b.knows(&a);
    for number in 0..200 {
        let body = format!("request {number}");
        assert_eq!(a.ask(&b, &body).await, body);
        assert_eq!(b.ask(&a, &body).await, body);
    }
    net.lock().unwrap().cut = true;
    let begin = Instant::now();
    eventually("both notice", || {
        a.links().last() == Some(&(b.id, false)) && b.links().last() == Some(&(a.id, false))
    })
    .await;
    assert!(begin.elapsed() <= Duration::from_secs(4), "{:?}", begin.elapsed());
    net.lock().unwrap().cut = false;
    eventually("both meet again", || {
        a.links().last() == Some(&(b.id, true)) && b.links().last() == Some(&(a.id, true))
    })
    .await;
    // Hours of virtual time: connections are replaced by age, seen as no loss.
    let links = a.links().len();
    let generation = a.transport.generation_of(b.id).unwrap();
    tokio::time::sleep(Duration::from_hours(3)).await;
    assert!(a.transport.generation_of(b.id).unwrap() >= generation + 3);
    assert_eq!(a.links().len(), links);
    assert_eq!(a.ask(&b, "later").await, "later");
    let _ = a.transport.send(b.id, cluster::ports::network::Lane::Raft, bytes::Bytes::new());
}
