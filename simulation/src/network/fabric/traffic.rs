//! What is under way: messages, requests and their answers, from who sends them to who
//! is handed them.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use cluster::{
    ids::{FIRST_TENANT, NodeId},
    limits::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX},
    ports::network::{Lane, Peer, RequestClass, RequestError, SendError},
    units::Instant,
};
use tokio::sync::oneshot;

use super::{
    super::{Address, Delivery, Ticket, link::Link, slots::Slot},
    State, pair,
};

/// Parcels under way on one direction of a link before its sender is refused,
/// as the product's bounded send queues do.
const UNDER_WAY_MAX: usize = 4_096;
/// Requests of one host under way to one node, as the product bounds streams.
const REQUESTS_MAX: usize = 1_024;
/// Time until a failed attempt to connect is reported to who asked.
const CONNECT_FAILS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(500));
/// Time until one whose handshake stalls is given up.
const HANDSHAKE_STALLS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(5));
/// How late a replayed message comes.
const REPLAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

pub(in crate::network) type Outcome = Result<Bytes, RequestError>;

/// An answer on its last step, to the task that asked.
#[derive(Debug)]
pub struct Reply {
    sender: oneshot::Sender<Outcome>,
    outcome: Outcome,
}

impl Reply {
    /// Tells the task, if it still waits.
    pub fn tell(self) {
        let _ = self.sender.send(self.outcome);
    }
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Parcels under way.
    pub(super) under_way: usize,
    /// Arrival of the last Raft message: the next comes no earlier.
    pub(super) raft_until: Instant,
    /// What waits for a cut to heal, as a stream's retransmissions do.
    pub(super) held: VecDeque<Parcel>,
}

#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) from: Slot,
    pub(super) to: Slot,
    /// The connection it rides on; none for a notice of the local transport.
    pub(super) connection: Option<u64>,
    /// The boot a notice is for.
    pub(super) boot: u64,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Message { lane: Lane, bytes: Bytes },
    Request { class: RequestClass, bytes: Bytes, ticket: Ticket },
    Answer { ticket: Ticket, outcome: Outcome },
    Notice { peer: NodeId, up: bool },
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) caller: Slot,
    pub(super) to: NodeId,
    pub(super) connection: Option<u64>,
    pub(super) sender: oneshot::Sender<Outcome>,
}

impl State {
    pub(super) fn send(
        &mut self,
        (from, boot): (Slot, u64),
        to: NodeId,
        lane: Lane,
        bytes: Bytes,
        at: Instant,
    ) -> Result<(), SendError> {
        if self.slots.boot(from) != boot || self.slots.node(from).is_none() {
            return Err(SendError::Closed);
        }
        let target = self.slots.of(Address::Node(to));
        if !self.knows_either((from, target)) {
            return Err(SendError::UnknownNode(to));
        }
        let bytes_max = match lane {
            Lane::Gossip => DATAGRAM_BYTES_MAX,
            Lane::Raft => FRAME_BYTES_MAX,
        };
        if bytes.len() > bytes_max {
            return Err(SendError::TooLarge { bytes: bytes.len(), bytes_max });
        }
        let ends = pair(from, target);
        let Some(connection) = self.links.get(&ends).and_then(Link::connection) else {
            self.trace.count("message without a connection");
            return Ok(());
        };
        if self.lanes.get(&(from, target)).is_some_and(|lane| lane.under_way >= UNDER_WAY_MAX) {
            self.trace.count("send queue full");
            return Err(SendError::Full(to));
        }
        self.trace.mix(at, &bytes);
        if self.rng.chance(self.weather.drop_ppm) {
            self.trace.count("message dropped");
            return Ok(());
        }
        let body = Body::Message { lane, bytes };
        let parcel = Parcel { from, to: target, connection: Some(connection), boot: 0, body };
        if self.rng.chance(self.weather.duplicate_ppm) {
            self.trace.count("message doubled");
            self.post(at, parcel.clone());
        }
        if self.rng.chance(self.weather.replay_ppm) {
            self.trace.count("message replayed");
            let due = at + self.rng.between(REPLAY.0, REPLAY.1);
            self.lanes.entry((from, target)).or_default().under_way += 1;
            self.enqueue(due, parcel.clone());
        }
        self.post(at, parcel);
        Ok(())
    }

    pub(super) fn request(
        &mut self,
        (from, boot): (Slot, u64),
        to: NodeId,
        class: RequestClass,
        bytes: Bytes,
        at: Instant,
    ) -> Result<oneshot::Receiver<Outcome>, RequestError> {
        let target = self.slots.of(Address::Node(to));
        if self.slots.boot(from) != boot || from == target {
            let cause = "this host is down or the same".to_owned();
            return Err(RequestError::Unreachable { node: to, cause });
        }
        if self.pending.values().filter(|p| p.caller == from && p.to == to).count() >= REQUESTS_MAX
        {
            return Err(RequestError::Busy(to));
        }
        self.trace.mix(at, &bytes);
        let ends = pair(from, target);
        if self.slots.node(from).is_none() {
            // A client dials at once.
            self.links.entry(ends).or_insert(Link::Down { dial_at: self.now });
            self.check_link(ends);
            self.links_stirred |= self.links.get(&ends).and_then(Link::due).is_some();
        }
        let connection = self.links.get(&ends).and_then(Link::connection);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let (sender, receiver) = oneshot::channel();
        self.pending.insert(ticket, Pending { caller: from, to, connection, sender });
        if connection.is_some() {
            let body = Body::Request { class, bytes, ticket };
            self.post(at, Parcel { from, to: target, connection, boot: 0, body });
        } else {
            let wait = if self.deaf(ends) { HANDSHAKE_STALLS } else { CONNECT_FAILS };
            let failed_at = at + self.rng.between(wait.0, wait.1);
            let cause = "no connection".to_owned();
            self.fail(failed_at, ticket, from, RequestError::Unreachable { node: to, cause });
        }
        Ok(receiver)
    }

    pub(super) fn answer(
        &mut self,
        (from, boot): (Slot, u64),
        ticket: Ticket,
        bytes: Bytes,
        at: Instant,
    ) {
        let alive = self.slots.boot(from) == boot;
        let Some(pending) = self.pending.get(&ticket).filter(|_| alive) else { return };
        let (to, connection) = (pending.caller, pending.connection);
        self.trace.mix(at, &bytes);
        let body = Body::Answer { ticket, outcome: Ok(bytes) };
        self.post(at, Parcel { from, to, connection, boot: 0, body });
    }

    /// Hands a request's failure to its caller, as its own transport does.
    pub(super) fn fail(&mut self, at: Instant, ticket: Ticket, caller: Slot, error: RequestError) {
        let body = Body::Answer { ticket, outcome: Err(error) };
        let boot = self.slots.boot(caller);
        self.enqueue(at, Parcel { from: caller, to: caller, connection: None, boot, body });
    }

    /// Sends a parcel on its way, with its delay.
    fn post(&mut self, at: Instant, parcel: Parcel) {
        let mut due = at.max(self.now) + self.weather.delay(&mut self.rng);
        let lane = self.lanes.entry((parcel.from, parcel.to)).or_default();
        lane.under_way += 1;
        let reliable = match parcel.body {
            Body::Message { lane: Lane::Gossip, .. } | Body::Notice { .. } => false,
            Body::Message { lane: Lane::Raft, .. } => {
                if self.rng.chance(self.weather.reorder_ppm) {
                    self.trace.count("message reordered");
                } else {
                    due = due.max(lane.raft_until);
                    lane.raft_until = due;
                }
                false
            }
            Body::Request { .. } | Body::Answer { .. } => true,
        };
        if reliable && self.rng.chance(self.weather.drop_ppm) {
            due = due + self.rng.between(Duration::ZERO, self.weather.spike_max);
        }
        self.enqueue(due, parcel);
    }

    pub(super) fn enqueue(&mut self, due: Instant, parcel: Parcel) {
        self.parcels += 1;
        self.queue.insert((due, self.parcels), parcel);
    }

    /// What becomes of a parcel whose time has come.
    pub(super) fn arrive(&mut self, parcel: Parcel) -> Option<Delivery> {
        let (from, to) = (parcel.from, parcel.to);
        let boot = self.slots.boot(to);
        if let Some(connection) = parcel.connection {
            if let Some(lane) = self.lanes.get_mut(&(from, to)) {
                lane.under_way = lane.under_way.saturating_sub(1);
            }
            let alive = matches!(
                self.links.get(&pair(from, to)),
                Some(Link::Up { connection: now, boots, .. })
                    if *now == connection && (boots.0 == boot || boots.1 == boot)
            );
            if !alive || boot == 0 {
                return None;
            }
            let clogged = self.clogs.contains_key(&(from, to));
            if self.cuts.contains_key(&(from, to)) || clogged || self.stalled.contains(&to) {
                if clogged || !matches!(parcel.body, Body::Message { lane: Lane::Gossip, .. }) {
                    self.lanes.entry((from, to)).or_default().held.push_back(parcel);
                }
                return None;
            }
        } else if parcel.boot != boot || boot == 0 {
            return None;
        } else if self.stalled.contains(&to) {
            // Its own transport tells it once it goes on.
            self.lanes.entry((from, to)).or_default().held.push_back(parcel);
            return None;
        }
        self.delivery(parcel)
    }

    fn delivery(&mut self, parcel: Parcel) -> Option<Delivery> {
        Some(match parcel.body {
            Body::Message { lane, bytes } => {
                Delivery::Message { from: self.slots.node(parcel.from)?, lane, bytes }
            }
            Body::Request { class, bytes, ticket } => {
                Delivery::Request { from: peer(self.slots.host(parcel.from)), class, bytes, ticket }
            }
            Body::Answer { ticket, outcome } => {
                let sender = self.pending.remove(&ticket)?.sender;
                Delivery::Answer(Reply { sender, outcome })
            }
            Body::Notice { peer, up } => Delivery::Link { peer, up },
        })
    }
}

fn peer(from: Address) -> Peer {
    match from {
        Address::Node(node) => Peer::Node(node),
        Address::Client(client) => {
            Peer::Client { principal: format!("client-{client}"), tenant: FIRST_TENANT }
        }
    }
}
