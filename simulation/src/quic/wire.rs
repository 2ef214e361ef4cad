//! Packets under way between the sockets of a world.
//!
//! Weather and cuts are the fabric's; here they fall on packets. A packet is
//! lost, doubled, late or overtaken on its own, has a bit flipped or comes
//! again much later, and quinn must cope.
//!
//! Packets arrive at the beginning of a tick, so no socket needs a timer.
//! Invariants: a packet reaches the binding that has its address when it
//! arrives, whoever that is; a binding that was replaced neither sends nor
//! receives; every draw comes from one stream.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
    time::Duration,
};

use cluster::units::Instant;
use transport::Socket;

use super::{runtime::HostRuntime, socket::SimulatedSocket};
use crate::{
    clock::HostClock,
    network::{Address, Fabric},
    rng::Rng,
    trace::Trace,
};

/// Bytes waiting at a socket before more are dropped: what the product asks of
/// the system.
const INBOX_BYTES_MAX: usize = transport::limits::SOCKET_BUFFER_BYTES;
/// First port of sockets that may have any.
const ANY_PORT: u16 = 10_000;
/// How much later a packet comes again: long enough that its keys are old.
const REPLAY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(10));
/// Packets with a long header belong to a handshake. Source: RFC 9000 §17.2.
const LONG_HEADER: u8 = 0x80;

/// One binding of an address: which boot of a host speaks there.
pub(super) type Binding = (SocketAddr, u64);

/// The packets of one world.
///
/// A lock, though there is one thread: sockets are `Sync` by contract. It is
/// never held across a call into a runtime.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    fabric: Fabric,
    trace: Trace,
    rng: Rng,
    queue: BTreeMap<(Instant, u64), Packet>,
    /// Entries of the queue so far: equal times keep their order.
    queued: u64,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    bindings: u64,
    next_port: u16,
    /// Arrival of the last packet of a direction that kept its place.
    order: BTreeMap<(SocketAddr, SocketAddr), Instant>,
}

#[derive(Clone, Debug)]
struct Packet {
    from: SocketAddr,
    sender: Address,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Inbox {
    owner: Address,
    /// Of its host, which has something to do once a packet is there.
    clock: Arc<HostClock>,
    binding: u64,
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
    waker: Option<Waker>,
}

impl Wire {
    pub(super) fn new(rng: Rng, fabric: Fabric, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            fabric,
            trace,
            rng,
            queue: BTreeMap::new(),
            queued: 0,
            inboxes: BTreeMap::new(),
            bindings: 0,
            next_port: ANY_PORT,
            order: BTreeMap::new(),
        })))
    }

    /// Sockets bound so far.
    pub(super) fn bindings(&self) -> u64 {
        self.with(|state| state.bindings)
    }

    /// Binds an address to the present boot of its owner.
    pub(super) fn bind(
        &self,
        owner: Address,
        address: SocketAddr,
        clock: Arc<HostClock>,
    ) -> Socket {
        let binding = self.with(|state| state.bind(owner, address, clock.clone()));
        let (wire, runtime) = (self.clone(), Arc::new(HostRuntime(clock.clone())));
        Socket::Abstract(Arc::new(SimulatedSocket { wire, address, binding, clock }), runtime)
    }

    /// Binds any port of a host.
    pub(super) fn bind_any(&self, owner: Address, clock: Arc<HostClock>) -> Socket {
        let port = self.with(|state| {
            let port = state.next_port;
            state.next_port = port.checked_add(1).unwrap_or(ANY_PORT);
            port
        });
        self.bind(owner, SocketAddr::new(owner.socket().ip(), port), clock)
    }

    /// Silences all sockets of a host.
    pub(crate) fn fall(&self, host: Address) {
        // Wakers go outside the lock: they may be the last hold on a task.
        let fallen = self.with(|state| {
            let of = |inbox: &Inbox| inbox.owner == host;
            let addresses: Vec<_> =
                state.inboxes.iter().filter(|(_, inbox)| of(inbox)).map(|(at, _)| *at).collect();
            addresses.iter().filter_map(|at| state.inboxes.remove(at)).collect::<Vec<_>>()
        });
        drop(fallen);
    }

    /// When the next packet arrives.
    pub(super) fn due(&self) -> Option<Instant> {
        self.with(|state| state.queue.first_key_value().map(|((due, _), _)| *due))
    }

    /// Moves time to `now` and hands over what arrived.
    pub(super) fn advance(&self, now: Instant) {
        for waker in self.with(|state| state.advance(now)) {
            waker.wake();
        }
    }

    pub(super) fn send(&self, from: Binding, to: SocketAddr, bytes: &[u8], at: Instant) {
        self.with(|state| state.send(from, to, bytes, at));
    }

    pub(super) fn receive(&self, at: Binding) -> Option<(SocketAddr, Vec<u8>)> {
        self.with(|state| {
            let inbox = state.inbox(at)?;
            let packet = inbox.packets.pop_front()?;
            inbox.bytes -= packet.1.len();
            Some(packet)
        })
    }

    pub(super) fn wake_later(&self, at: Binding, waker: &Waker) {
        let before =
            self.with(|state| state.inbox(at).and_then(|inbox| inbox.waker.replace(waker.clone())));
        drop(before);
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn bind(&mut self, owner: Address, address: SocketAddr, clock: Arc<HostClock>) -> u64 {
        self.bindings += 1;
        let inbox = Inbox {
            owner,
            clock,
            binding: self.bindings,
            packets: VecDeque::new(),
            bytes: 0,
            waker: None,
        };
        self.inboxes.insert(address, inbox);
        self.bindings
    }

    fn inbox(&mut self, (address, binding): Binding) -> Option<&mut Inbox> {
        self.inboxes.get_mut(&address).filter(|inbox| inbox.binding == binding)
    }

    fn send(&mut self, from: Binding, to: SocketAddr, bytes: &[u8], at: Instant) {
        let Some(sender) = self.inbox(from).map(|inbox| inbox.owner) else { return };
        self.trace.mix(at, bytes);
        self.trace.count("packet");
        let weather = self.fabric.weather();
        let handshake = bytes.first().is_some_and(|first| first & LONG_HEADER != 0);
        if handshake && self.rng.chance(weather.packet_stall_ppm) {
            return self.trace.count("handshake packet stalled");
        }
        if self.rng.chance(weather.drop_ppm) {
            return self.trace.count("packet lost");
        }
        let mut packet = Packet { from: from.0, sender, to, bytes: bytes.to_vec() };
        if self.rng.chance(weather.duplicate_ppm) {
            self.trace.count("packet doubled");
            let due = at + weather.delay(&mut self.rng);
            self.enqueue(due, packet.clone());
        }
        if self.rng.chance(weather.packet_replay_ppm) {
            self.trace.count("packet replayed");
            let due = at + self.rng.between(REPLAY.0, REPLAY.1);
            self.enqueue(due, packet.clone());
        }
        if self.rng.chance(weather.packet_flip_ppm) {
            self.trace.count("packet flipped");
            let bit = self.rng.index(packet.bytes.len() * 8);
            packet.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let due = self.due(from.0, to, at);
        self.enqueue(due, packet);
    }

    /// When a packet arrives: behind those before it, unless it is late or
    /// overtakes.
    fn due(&mut self, from: SocketAddr, to: SocketAddr, at: Instant) -> Instant {
        let weather = self.fabric.weather();
        let due = at + weather.delay(&mut self.rng);
        let late = due > at + weather.latency_max;
        if late || self.rng.chance(weather.reorder_ppm) {
            self.trace.count("packet reordered");
            return due;
        }
        let last = self.order.entry((from, to)).or_insert(due);
        *last = due.max(*last);
        *last
    }

    fn enqueue(&mut self, due: Instant, packet: Packet) {
        self.queued += 1;
        self.queue.insert((due, self.queued), packet);
    }

    fn advance(&mut self, now: Instant) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let packet = entry.remove();
            woken.extend(self.arrive(packet));
        }
        woken
    }

    fn arrive(&mut self, packet: Packet) -> Option<Waker> {
        let inbox = self.inboxes.get_mut(&packet.to)?;
        if self.fabric.is_cut(packet.sender, inbox.owner) {
            self.trace.count("packet cut off");
            return None;
        }
        if inbox.bytes + packet.bytes.len() > INBOX_BYTES_MAX {
            self.trace.count("socket buffer full");
            return None;
        }
        inbox.clock.disturb();
        inbox.bytes += packet.bytes.len();
        inbox.packets.push_back((packet.from, packet.bytes));
        inbox.waker.take()
    }
}
