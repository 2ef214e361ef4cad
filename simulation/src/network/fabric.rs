//! The shared state of the network: who is there, what is under way.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    ids::{FIRST_TENANT, NodeId},
    limits::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX},
    ports::network::{Lane, Peer, RequestClass, RequestError, SendError},
    units::Instant,
};
use tokio::sync::oneshot;

use super::{
    Address, Delivery, Ticket, Weather,
    link::{Boots, Change, Link},
    slots::{Slot, Slots},
};
use crate::{rng::Rng, trace::Trace};

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

/// How often links are looked at: no delay of theirs is finer.
const LINKS_CHECKED_EVERY: Duration = Duration::from_millis(5);

/// The network of one world.
///
/// A lock, though there is one thread: the ports are `Sync` by contract. It is
/// held for one step only and never across a call into an actor.
#[derive(Clone, Debug)]
pub struct Fabric(Arc<Mutex<State>>);

pub(super) type Outcome = Result<Bytes, RequestError>;

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

#[derive(Debug)]
struct State {
    now: Instant,
    rng: Rng,
    trace: Trace,
    weather: Weather,
    slots: Slots,
    boots: u64,
    /// Directions in which nothing passes, and how many cuts lie on each.
    cuts: BTreeMap<(Slot, Slot), u32>,
    /// Ways on which parcels queue up, and how many clogs lie on each.
    clogs: BTreeMap<(Slot, Slot), u32>,
    /// Hosts whose process stands still.
    stalled: BTreeSet<Slot>,
    /// Hosts with whom no connection comes up.
    deaf: BTreeSet<Slot>,
    /// By ordered pair.
    links: BTreeMap<(Slot, Slot), Link>,
    links_checked: Instant,
    /// When the first of them changes by itself …
    links_due: Option<Instant>,
    /// … and whether something happened that may change any.
    links_stirred: bool,
    connections: u64,
    /// Who knows whose address.
    known: BTreeSet<(Slot, Slot)>,
    queue: BTreeMap<(Instant, u64), Parcel>,
    parcels: u64,
    lanes: BTreeMap<(Slot, Slot), Direction>,
    pending: BTreeMap<Ticket, Pending>,
    tickets: u64,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Direction {
    /// Parcels under way.
    under_way: usize,
    /// Arrival of the last Raft message: the next comes no earlier.
    raft_until: Instant,
    /// What waits for a cut to heal, as a stream's retransmissions do.
    held: VecDeque<Parcel>,
}

#[derive(Clone, Debug)]
struct Parcel {
    from: Slot,
    to: Slot,
    /// The connection it rides on; none for a notice of the local transport.
    connection: Option<u64>,
    /// The boot a notice is for.
    boot: u64,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Message { lane: Lane, bytes: Bytes },
    Request { class: RequestClass, bytes: Bytes, ticket: Ticket },
    Answer { ticket: Ticket, outcome: Outcome },
    Notice { peer: NodeId, up: bool },
}

#[derive(Debug)]
struct Pending {
    caller: Slot,
    to: NodeId,
    connection: Option<u64>,
    sender: oneshot::Sender<Outcome>,
}

/// What arrives at each machine, or among the clients (`None`), with its time,
/// in order.
pub type Arrivals = BTreeMap<Option<NodeId>, Vec<(Instant, Delivery)>>;

impl Fabric {
    /// A network without hosts.
    pub fn new(rng: Rng, trace: Trace, weather: Weather) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Instant::ORIGIN,
            rng,
            trace,
            weather,
            slots: Slots::default(),
            boots: 0,
            cuts: BTreeMap::new(),
            clogs: BTreeMap::new(),
            stalled: BTreeSet::new(),
            deaf: BTreeSet::new(),
            links: BTreeMap::new(),
            links_checked: Instant::ORIGIN,
            links_due: None,
            links_stirred: false,
            connections: 0,
            known: BTreeSet::new(),
            queue: BTreeMap::new(),
            parcels: 0,
            lanes: BTreeMap::new(),
            pending: BTreeMap::new(),
            tickets: 0,
        })))
    }

    /// Moves time to `now` and returns what arrives from then until `until`.
    pub fn advance(&self, now: Instant, until: Instant) -> Arrivals {
        self.with(|state| state.advance(now, until))
    }

    /// When something happens next of what was sent, and of links.
    pub fn due(&self) -> Instant {
        self.with(|state| state.due())
    }

    /// Moves time to `now`; nothing was due before.
    pub(crate) fn pass(&self, now: Instant) {
        self.with(|state| state.now = now);
    }

    /// Brings a host up and returns its boot.
    pub fn rise(&self, host: Address) -> u64 {
        self.with(|state| {
            let slot = state.slots.of(host);
            state.boots += 1;
            state.links_stirred = true;
            if host.node().is_none() {
                // A client that begins anew has no connection of an earlier one.
                state.links.retain(|ends, _| ends.0 != slot && ends.1 != slot);
            }
            state.slots.set_boot(slot, state.boots);
            state.boots
        })
    }

    /// Takes a host down: what it sends from now on goes nowhere.
    pub fn fall(&self, host: Address) {
        self.with(|state| {
            let slot = state.slots.of(host);
            state.slots.set_boot(slot, 0);
            state.stalled.remove(&slot);
            state.links_stirred = true;
            state.pending.retain(|_, pending| pending.caller != slot);
            state.known.retain(|(who, _)| *who != slot);
        });
    }

    /// Lets nothing pass from one host to another until each cut is mended.
    pub fn cut(&self, from: Address, to: Address) {
        self.with(|state| {
            let way = state.way(from, to);
            *state.cuts.entry(way).or_default() += 1;
            state.links_stirred = true;
        });
    }

    /// Takes one cut back.
    pub fn mend(&self, from: Address, to: Address) {
        self.with(|state| {
            let way = state.way(from, to);
            state.mend(way);
        });
    }

    /// Whether no packet passes from one host to another: a clog loses them,
    /// and quinn sends them again.
    pub fn is_cut(&self, from: Address, to: Address) -> bool {
        self.with(|state| {
            // Asked for each packet below quinn.
            if state.cuts.is_empty() && state.clogs.is_empty() {
                return false;
            }
            let way = state.way(from, to);
            state.cuts.contains_key(&way) || state.clogs.contains_key(&way)
        })
    }

    /// Lets parcels queue up on a way, though its connection stays.
    pub fn clog(&self, from: Address, to: Address) {
        self.with(|state| {
            let way = state.way(from, to);
            *state.clogs.entry(way).or_default() += 1;
        });
    }

    /// Takes one clog back; what queued up flows on.
    pub fn unclog(&self, from: Address, to: Address) {
        self.with(|state| {
            let way = state.way(from, to);
            state.unclog(way);
        });
    }

    /// A host's process stands still: others hear nothing of it, and what it
    /// is sent waits.
    pub fn stall(&self, host: Address) {
        self.with(|state| {
            state.links_stirred = true;
            let slot = state.slots.of(host);
            state.stalled.insert(slot)
        });
    }

    /// The process goes on.
    pub fn unstall(&self, host: Address) {
        self.with(|state| {
            let slot = state.slots.of(host);
            state.unstall(slot);
        });
    }

    /// Breaks every connection of a host at once.
    pub fn reset(&self, host: Address) {
        self.with(|state| {
            let slot = state.slots.of(host);
            state.reset(slot);
        });
    }

    /// Lets no connection with a host come up, or again.
    pub fn deafen(&self, host: Address, on: bool) {
        self.with(|state| {
            state.links_stirred = true;
            let slot = state.slots.of(host);
            if on { state.deaf.insert(slot) } else { state.deaf.remove(&slot) }
        });
    }

    /// Opens every direction again.
    pub fn heal(&self) {
        self.with(State::heal);
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.with(|state| state.weather = weather);
    }

    /// The weather now.
    pub fn weather(&self) -> Weather {
        self.with(|state| state.weather)
    }

    /// Parcels sent so far.
    pub fn parcels(&self) -> u64 {
        self.with(|state| state.parcels)
    }

    /// Where a host stands in the tables.
    pub(super) fn slot(&self, host: Address) -> Slot {
        self.with(|state| state.slots.of(host))
    }

    pub(super) fn send(
        &self,
        from: (Slot, u64),
        to: NodeId,
        lane: Lane,
        bytes: Bytes,
        at: Instant,
    ) -> Result<(), SendError> {
        self.with(|state| state.send(from, to, lane, bytes, at))
    }

    pub(super) fn request(
        &self,
        from: (Slot, u64),
        to: NodeId,
        class: RequestClass,
        bytes: Bytes,
        at: Instant,
    ) -> Result<oneshot::Receiver<Outcome>, RequestError> {
        self.with(|state| state.request(from, to, class, bytes, at))
    }

    pub(super) fn answer(&self, from: (Slot, u64), ticket: Ticket, bytes: Bytes, at: Instant) {
        self.with(|state| state.answer(from, ticket, bytes, at));
    }

    pub(super) fn learn(&self, from: (Slot, u64), node: NodeId) {
        self.with(|state| state.learn(from, node));
    }

    pub(super) fn forget(&self, from: (Slot, u64), node: NodeId) {
        self.with(|state| {
            if state.slots.boot(from.0) == from.1 {
                let way = (from.0, state.slots.of(Address::Node(node)));
                state.known.remove(&way);
                state.links_stirred = true;
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn pair(a: Slot, b: Slot) -> (Slot, Slot) {
    if a <= b { (a, b) } else { (b, a) }
}

impl State {
    fn way(&mut self, from: Address, to: Address) -> (Slot, Slot) {
        (self.slots.of(from), self.slots.of(to))
    }

    fn due(&self) -> Instant {
        let look = self.links_checked + LINKS_CHECKED_EVERY;
        let links =
            if self.links_stirred { Some(look) } else { self.links_due.map(|due| due.max(look)) };
        let first = self.queue.first_key_value().map(|((due, _), _)| *due);
        links.into_iter().chain(first).min().unwrap_or(Instant::from_nanos(u64::MAX))
    }

    fn advance(&mut self, now: Instant, until: Instant) -> Arrivals {
        self.now = now;
        let mut arrivals = Arrivals::new();
        let wanted = self.links_stirred || self.links_due.is_some_and(|due| due <= now);
        if wanted && now >= self.links_checked + LINKS_CHECKED_EVERY {
            self.links_checked = now;
            self.check_links();
        }
        while let Some(entry) = self.queue.first_entry() {
            let (due, _) = *entry.key();
            if due > until {
                break;
            }
            let parcel = entry.remove();
            let to = self.slots.node(parcel.to);
            if let Some(delivery) = self.arrive(parcel) {
                // Hosts have no finer clock than milliseconds.
                let grain = 1_000_000;
                let at = Instant::from_nanos(due.as_nanos().next_multiple_of(grain)).max(now);
                arrivals.entry(to).or_default().push((at, delivery));
            }
        }
        arrivals
    }

    fn open(&self, (low, high): (Slot, Slot)) -> bool {
        let cut = self.cuts.contains_key(&(low, high)) || self.cuts.contains_key(&(high, low));
        !cut && !self.stalled.contains(&low) && !self.stalled.contains(&high)
    }

    /// A healthy link stays as it is until something happens to it, so this is
    /// needed only then, and when a link's own time has come.
    fn check_links(&mut self) {
        self.links_stirred = false;
        let pairs: Vec<_> = self.links.keys().copied().collect();
        for ends in pairs {
            let wanted = match (self.slots.node(ends.0), self.slots.node(ends.1)) {
                (Some(_), Some(_)) => self.knows_either(ends),
                // A client dials when it asks, never by itself.
                (None, _) | (_, None) => {
                    self.links.get(&ends).is_some_and(|link| link.connection().is_some())
                }
            };
            if wanted {
                self.check_link(ends);
            } else {
                self.close(ends);
            }
        }
        self.links_due = self.links.values().filter_map(Link::due).min();
    }

    /// Whether one of two nodes knows where the other is.
    fn knows_either(&self, (a, b): (Slot, Slot)) -> bool {
        self.known.contains(&(a, b)) || self.known.contains(&(b, a))
    }

    fn check_link(&mut self, ends: (Slot, Slot)) {
        let boots = (self.slots.boot(ends.0), self.slots.boot(ends.1));
        let fresh = self.links.get(&ends).is_some_and(|link| link.connection().is_none());
        let open = self.open(ends) && !(fresh && self.deaf(ends));
        let Some(link) = self.links.get_mut(&ends) else { return };
        match link.check(self.now, boots, open, &mut self.connections, &mut self.rng) {
            Change::None => {}
            Change::Rose => self.tell(ends, boots, true),
            Change::Fell { connection, boots } => self.lose(ends, connection, boots),
        }
    }

    fn deaf(&self, ends: (Slot, Slot)) -> bool {
        self.deaf.contains(&ends.0) || self.deaf.contains(&ends.1)
    }

    fn reset(&mut self, host: Slot) {
        self.links_stirred = true;
        let touches = |ends: &&(Slot, Slot)| ends.0 == host || ends.1 == host;
        let pairs: Vec<_> = self.links.keys().filter(touches).copied().collect();
        for ends in pairs {
            let (now, rng) = (self.now, &mut self.rng);
            let lost = self.links.get_mut(&ends).and_then(|link| link.reset(now, rng));
            if let Some((connection, boots)) = lost {
                self.trace.count("connection reset");
                self.lose(ends, connection, boots);
            }
        }
    }

    fn close(&mut self, ends: (Slot, Slot)) {
        if let Some(Link::Up { connection, boots, .. }) = self.links.remove(&ends) {
            self.lose(ends, connection, boots);
        }
    }

    /// Tells both ends, as far as these boots live.
    fn tell(&mut self, ends: (Slot, Slot), boots: Boots, up: bool) {
        let hosts = (self.slots.host(ends.0), self.slots.host(ends.1));
        for (to, boot, peer) in [(ends.0, boots.0, hosts.1), (ends.1, boots.1, hosts.0)] {
            let (Some(peer), Some(_)) = (peer.node(), self.slots.node(to)) else { continue };
            if self.slots.boot(to) == boot {
                let body = Body::Notice { peer, up };
                let parcel = Parcel { from: to, to, connection: None, boot, body };
                self.enqueue(self.now, parcel);
            }
        }
        if hosts.0.node().is_some() && hosts.1.node().is_some() {
            let line = if up { "link up" } else { "link lost" };
            self.trace.note(self.now, &format!("{line} {} {}", hosts.0, hosts.1));
            self.trace.count(if up { "link up" } else { "link lost" });
        }
    }

    fn lose(&mut self, ends: (Slot, Slot), connection: u64, boots: Boots) {
        self.tell(ends, boots, false);
        for direction in [ends, (ends.1, ends.0)] {
            self.lanes.remove(&direction);
        }
        let lost: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.connection == Some(connection))
            .map(|(ticket, pending)| (*ticket, pending.caller, pending.to))
            .collect();
        for (ticket, caller, node) in lost {
            let cause = "the connection was given up".to_owned();
            self.fail(self.now, ticket, caller, RequestError::Lost { node, cause });
        }
    }

    /// Hands a request's failure to its caller, as its own transport does.
    fn fail(&mut self, at: Instant, ticket: Ticket, caller: Slot, error: RequestError) {
        let body = Body::Answer { ticket, outcome: Err(error) };
        let boot = self.slots.boot(caller);
        self.enqueue(at, Parcel { from: caller, to: caller, connection: None, boot, body });
    }

    fn heal(&mut self) {
        self.links_stirred = true;
        let cut: Vec<_> = std::mem::take(&mut self.cuts).into_keys().collect();
        for way in cut {
            self.release(way);
        }
    }

    fn unclog(&mut self, way: (Slot, Slot)) {
        let Some(clogs) = self.clogs.get_mut(&way) else { return };
        *clogs -= 1;
        if *clogs == 0 {
            self.clogs.remove(&way);
            self.release(way);
        }
    }

    fn unstall(&mut self, host: Slot) {
        self.links_stirred = true;
        if self.stalled.remove(&host) {
            let ways: Vec<_> = self.lanes.keys().filter(|way| way.1 == host).copied().collect();
            for way in ways {
                self.release(way);
            }
        }
    }

    fn mend(&mut self, way: (Slot, Slot)) {
        let Some(cuts) = self.cuts.get_mut(&way) else { return };
        *cuts -= 1;
        if *cuts == 0 {
            self.links_stirred = true;
            self.cuts.remove(&way);
            self.release(way);
        }
    }

    /// Sends on what waited for a way to open.
    fn release(&mut self, way: (Slot, Slot)) {
        let Some(lane) = self.lanes.get_mut(&way) else { return };
        let held = std::mem::take(&mut lane.held);
        lane.under_way += held.len();
        // Due now: ahead of everything still under way, so order is kept.
        for parcel in held {
            self.enqueue(self.now, parcel);
        }
    }

    fn learn(&mut self, from: (Slot, u64), node: NodeId) {
        if self.slots.node(from.0).is_none_or(|me| me == node) {
            return;
        }
        let peer = self.slots.of(Address::Node(node));
        if self.slots.boot(from.0) == from.1 && self.known.insert((from.0, peer)) {
            let ends = pair(from.0, peer);
            let link = Link::fresh(self.now, &mut self.rng);
            self.links.entry(ends).or_insert(link);
            self.links_stirred = true;
        }
    }

    fn send(
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

    fn request(
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

    fn answer(&mut self, (from, boot): (Slot, u64), ticket: Ticket, bytes: Bytes, at: Instant) {
        let alive = self.slots.boot(from) == boot;
        let Some(pending) = self.pending.get(&ticket).filter(|_| alive) else { return };
        let (to, connection) = (pending.caller, pending.connection);
        self.trace.mix(at, &bytes);
        let body = Body::Answer { ticket, outcome: Ok(bytes) };
        self.post(at, Parcel { from, to, connection, boot: 0, body });
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

    fn enqueue(&mut self, due: Instant, parcel: Parcel) {
        self.parcels += 1;
        self.queue.insert((due, self.parcels), parcel);
    }

    /// What becomes of a parcel whose time has come.
    fn arrive(&mut self, parcel: Parcel) -> Option<Delivery> {
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
