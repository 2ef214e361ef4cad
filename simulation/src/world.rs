//! The world: machines, a network, clients and time, all from one seed.
//!
//! Time passes in ticks. In each, every host that has something to do runs its
//! timers and tasks up to the tick's end and is handed on the way, to the
//! millisecond, what arrives; the order of hosts is drawn anew. A tick is as
//! long as the shortest way through the network: a message sent within a tick
//! arrives in a later one, so the order of hosts inside a tick can be seen by
//! nobody, and the world need not look at every host every millisecond. Where
//! nobody has anything to do, time passes at once.
//! Source: Chandy and Misra, "Distributed Simulation", 1979 (lookahead).
//!
//! Invariant: same seed, same code, same trace.

mod disks;
mod machines;
mod members;
mod network;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actors::client::Door;
use cluster::{
    ids::{ClusterId, NodeId},
    units::Instant,
};
use tokio::task::JoinHandle;

pub(crate) use self::disks::Rot;
pub use self::members::MACHINES_MAX;
use self::members::{Loop, Removal};
use crate::{
    clock::Dials,
    disk::{Death, OFFERED_BYTES, StorageMode},
    door::SimulatedDoor,
    host::Host,
    life::{Life, Traps},
    network::{Address, Delivery, Fabric, Port, Weather},
    node::{Machine, Resident},
    panics,
    quic::Quic,
    rng::Rng,
    trace::Trace,
};

/// Tokio's timers have no finer grain.
const GRAIN: Duration = Duration::from_millis(1);
/// Longest tick in which nothing happens: who waits for a change of the world
/// looks between two ticks.
const QUIET_MAX: Duration = Duration::from_millis(50);

/// What lies below the network port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkMode {
    /// Messages and requests that fly as a whole.
    #[default]
    Port,
    /// The product's transport, quinn and TLS over simulated UDP.
    Quinn,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Every draw comes from it.
    pub seed: u64,
    /// Number of machines.
    pub nodes: u32,
    /// Failure domains they are spread over.
    pub zones: u32,
    /// What lies below the network port.
    pub network: NetworkMode,
    /// What machines keep their data on.
    pub storage: StorageMode,
    /// Bytes that each machine's disk offers its stores.
    pub disk_bytes: u64,
    /// Bytes that may wait for the stores of each machine, if not what its memory
    /// allows; from a quarter on they are flushed.
    pub overlay_bytes: Option<usize>,
    /// Bytes that each store may take, if it has a limit.
    pub store_bytes: Option<u64>,
    /// The weather at the beginning.
    pub weather: Weather,
    /// Greatest error of a clock's rate, in parts per million.
    pub rate_ppm_max: u32,
    /// Greatest offset of a wall clock, in milliseconds.
    pub offset_ms_max: u32,
    /// Whether the trace keeps its lines.
    pub keep_trace: bool,
}

impl Setup {
    /// Three machines with good clocks on a calm network.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            zones: 3,
            network: NetworkMode::Port,
            storage: StorageMode::default(),
            disk_bytes: OFFERED_BYTES,
            overlay_bytes: None,
            store_bytes: None,
            weather: Weather::CALM,
            rate_ppm_max: 0,
            offset_ms_max: 0,
            keep_trace: true,
        }
    }
}

/// Who is reached at the machines' addresses, for clients.
///
/// A lock, though there is one thread: a client's door is `Sync` by contract.
#[derive(Clone, Debug, Default)]
pub struct Members(Arc<Mutex<Vec<NodeId>>>);

impl Members {
    /// The nodes, by machine.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, nodes: Vec<NodeId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}

/// A simulated cluster and its clients.
#[derive(Debug)]
pub struct World {
    now: Instant,
    seed: u64,
    /// What machines are drawn from.
    setup: Setup,
    skews: Rng,
    zones: u32,
    cluster: ClusterId,
    fabric: Fabric,
    usual: Weather,
    /// What makes the weather worse than usual.
    changes: Vec<Weather>,
    /// In quinn mode.
    quic: Option<Quic>,
    trace: Trace,
    order: Rng,
    machines: BTreeMap<u32, Machine>,
    /// Machines and clients (`None`) in the order of the last tick.
    hosts: Vec<Option<u32>>,
    members: Members,
    traps: Traps,
    /// The machine whose disk is no longer what it was.
    destroyed: Option<u32>,
    removals: Vec<Removal>,
    loops: Vec<Loop>,
    clients: Host,
    resident: Arc<dyn Resident>,
    failure: Option<String>,
}

impl World {
    /// A world whose machines run `resident`; none is started yet.
    pub fn new(setup: &Setup, resident: Arc<dyn Resident>) -> Self {
        panics::watch();
        let trace = Trace::new(setup.keep_trace);
        let network = Rng::stream(setup.seed, "network", 0);
        let cluster = ClusterId(u128::from(Rng::stream(setup.seed, "cluster", 0).next()));
        let fabric = Fabric::new(network, trace.clone(), setup.weather);
        let quic = match setup.network {
            NetworkMode::Port => None,
            NetworkMode::Quinn => {
                Some(Quic::new(setup.seed, cluster, fabric.clone(), trace.clone()))
            }
        };
        let mut world = Self {
            now: Instant::ORIGIN,
            seed: setup.seed,
            setup: setup.clone(),
            skews: Rng::stream(setup.seed, "skew", 0),
            zones: setup.zones,
            cluster,
            fabric,
            quic,
            usual: setup.weather,
            changes: Vec::new(),
            trace,
            order: Rng::stream(setup.seed, "order", 0),
            machines: BTreeMap::new(),
            hosts: (1..=setup.nodes).map(Some).chain([None]).collect(),
            members: Members::default(),
            traps: Traps::default(),
            destroyed: None,
            removals: Vec::new(),
            loops: Vec::new(),
            clients: Host::new(Arc::default(), Instant::ORIGIN),
            resident,
            failure: None,
        };
        for number in 1..=setup.nodes {
            let dials = world.draw_dials();
            let machine = Machine::new(number, setup.seed, dials, setup.storage);
            machine.storage.offer(setup.disk_bytes);
            machine.storage.engine.set_limit_bytes(setup.store_bytes);
            world.machines.insert(number, machine);
        }
        world.publish_members();
        world
    }

    /// The clocks of one more machine.
    fn draw_dials(&mut self) -> Dials {
        Dials::new(Self::draw_skew(&self.setup, &mut self.skews))
    }

    /// Tells clients who is reached where.
    fn publish_members(&self) {
        self.members.set(self.nodes());
    }

    /// Who is reached at the machines' addresses.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The ids of the machines in use, by number.
    pub fn nodes(&self) -> Vec<NodeId> {
        let used = self.machines.values().filter(|machine| !machine.retired);
        used.map(Machine::node).collect()
    }

    /// The numbers of the machines in use.
    pub fn numbers(&self) -> Vec<u32> {
        let used = self.machines.iter().filter(|(_, machine)| !machine.retired);
        used.map(|(number, _)| *number).collect()
    }

    /// The machine of a number, from 1.
    pub fn node(&self, number: u32) -> Option<NodeId> {
        self.machines.get(&number).map(Machine::node)
    }

    /// The world's time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The network.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Why the run cannot be right, if something broke: a panic, a boot that
    /// failed to start.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// A client's way to the nodes.
    pub fn door(&self, number: u32) -> Arc<dyn Door> {
        if let Some(quic) = &self.quic {
            let clock = self.clients.clock().clone();
            return quic.door(number, self.members.clone(), &clock);
        }
        Arc::new(SimulatedDoor::new(self.client(number), self.members.clone()))
    }

    /// A client's end of the network port: for requests of a host application,
    /// in worlds whose messages fly as a whole.
    pub fn client(&self, number: u32) -> Port {
        let address = Address::Client(number);
        let boot = self.fabric.rise(address);
        Port::new(self.fabric.clone(), address, boot, self.clients.clock().clone())
    }

    /// Runs a task beside the machines, among the clients.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.clients.inside(|| tokio::spawn(task))
    }

    /// The clients' clock, for the times in a history.
    pub fn client_clock(&self) -> Arc<crate::clock::HostClock> {
        self.clients.clock().clone()
    }

    /// Lets one tick pass: as far as no host can hear what another does in it.
    pub fn tick(&mut self) {
        self.tick_until(self.now + QUIET_MAX);
    }

    /// Lets one tick pass; one in which nothing happens ends by `limit`.
    pub(crate) fn tick_until(&mut self, limit: Instant) {
        self.restart_due();
        self.operate();
        self.turn_loops();
        // Packets below quinn are handed over between two ticks only.
        let stretch = match &self.quic {
            None => self.fabric.weather().stretch(),
            Some(_) => GRAIN,
        };
        let (here, end) = (self.now, self.now + stretch);
        let quiet = self.quiet_until().min(limit).min(here + QUIET_MAX);
        if quiet >= end {
            self.now = quiet;
            return self.fabric.pass(quiet);
        }
        if let Some(quic) = &self.quic {
            quic.advance(here);
        }
        // What arrives at the very end belongs to the next tick.
        let mut due = self.fabric.advance(here, here + stretch.saturating_sub(GRAIN));
        let mut hosts = std::mem::take(&mut self.hosts);
        self.order.shuffle(&mut hosts);
        for who in &hosts {
            let arrivals = match who {
                None => due.remove(&None),
                Some(number) => {
                    let machine = self.machines.get(number);
                    machine.and_then(|machine| due.remove(&Some(machine.node())))
                }
            };
            self.step(*who, here, arrivals.unwrap_or_default(), end);
        }
        self.hosts = hosts;
        self.now = end;
        let over = self.machines.keys().copied().filter(|number| self.is_over(*number));
        for number in over.collect::<Vec<_>>() {
            self.supervise(number);
        }
    }

    /// Runs one host from `here` to `end`, if it has something to do.
    fn step(
        &mut self,
        who: Option<u32>,
        here: Instant,
        arrivals: Vec<(Instant, Delivery)>,
        end: Instant,
    ) {
        match who {
            None if arrivals.is_empty() && self.clients.clock().due() > end => return,
            None => self.clients.step_through(here, arrivals, end, tell),
            Some(number) => {
                let Some(machine) = self.machines.get_mut(&number) else { return };
                if !machine.step(here, arrivals, end) {
                    return;
                }
            }
        }
        // What a dead boot does in the rest of its tick happens nowhere.
        let panic = panics::take();
        let dead = who.is_some_and(|number| self.is_over(number));
        if let Some(panic) = panic.filter(|_| !dead) {
            self.fail(format!("panic: {panic}"));
        }
    }

    /// When something happens next that nobody outside brings about.
    fn quiet_until(&self) -> Instant {
        if !self.removals.is_empty() {
            return self.now;
        }
        let machines = self.machines.values().map(|machine| machine.due(self.now));
        let loops = self.loops.iter().map(|turning| turning.turn_at);
        let packets = self.quic.as_ref().and_then(Quic::due);
        let others = [self.clients.clock().due(), self.fabric.due()];
        let all = machines.chain(loops).chain(packets).chain(others);
        let first = all.min().unwrap_or(self.now);
        let grain = 1_000_000;
        Instant::from_nanos(first.as_nanos() / grain * grain)
    }

    /// Whether the boot of a machine ended by itself.
    fn is_over(&self, number: u32) -> bool {
        self.machines.get(&number).and_then(Machine::life).is_some_and(Life::is_over)
    }

    /// Lets time pass, until something breaks.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(span, || false);
    }

    /// Lets time pass until `done`, at most `span`; whether it was done.
    pub fn run_until(&mut self, span: Duration, done: impl Fn() -> bool) -> bool {
        let end = self.now + span;
        while self.now < end && self.failure.is_none() {
            if done() {
                return true;
            }
            self.tick_until(end);
        }
        done()
    }

    fn fail(&mut self, cause: String) {
        self.trace.note(self.now, &cause);
        self.failure.get_or_insert(cause);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for machine in self.machines.values_mut() {
            machine.die(Death::Kill);
        }
    }
}

/// Hands a delivery to the clients, who are only ever answered.
fn tell(delivery: Delivery) {
    match delivery {
        Delivery::Answer(reply) => reply.tell(),
        Delivery::Message { .. } | Delivery::Request { .. } | Delivery::Link { .. } => {}
    }
}
