//! The shared state of the network: who is there, what is under way.
//!
//! Here are its time and its door; what it does with connections (`links`), with ways that
//! are shut (`ways`) and with what is sent (`traffic`) has a file each.

mod links;
mod traffic;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{Lane, RequestClass, RequestError, SendError},
    units::Instant,
};
use tokio::sync::oneshot;

use self::traffic::{Direction, Outcome, Parcel, Pending};
use super::{
    Address, Delivery, Ticket, Weather,
    link::Link,
    slots::{Slot, Slots},
};
use crate::{rng::Rng, trace::Trace};

pub use self::traffic::Reply;

/// How often links are looked at: no delay of theirs is finer.
const LINKS_CHECKED_EVERY: Duration = Duration::from_millis(5);

/// The network of one world.
///
/// A lock, though there is one thread: the ports are `Sync` by contract. It is
/// held for one step only and never across a call into an actor.
#[derive(Clone, Debug)]
pub struct Fabric(Arc<Mutex<State>>);

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
}
