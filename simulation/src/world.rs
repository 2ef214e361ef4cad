//! The world: machines, a network, clients and time, all from one seed.
//!
//! Time passes in ticks. In each, every host runs its timers and tasks up to
//! the tick's end and is handed on the way, to the millisecond, what arrives;
//! the order of hosts is drawn anew. A tick is as long as the shortest way
//! through the network: a message sent within a tick arrives in a later one, so
//! the order of hosts inside a tick can be seen by nobody, and the world need
//! not look at every host every millisecond.
//! Source: Chandy and Misra, "Distributed Simulation", 1979 (lookahead).
//!
//! Invariant: same seed, same code, same trace.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use actors::client::Door;
use cluster::{
    ids::{ClusterId, NodeId},
    units::Instant,
};
use tokio::task::JoinHandle;

use crate::{
    clock::Skew,
    disk::{Death, Storage, StorageMode},
    door::SimulatedDoor,
    host::Host,
    network::{Address, Delivery, Fabric, Port, Weather},
    node::{Machine, Resident, Surroundings},
    panics,
    quic::Quic,
    rng::Rng,
    trace::Trace,
};

/// Tokio's timers have no finer grain.
const GRAIN: Duration = Duration::from_millis(1);

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
    /// What lies below the network port.
    pub network: NetworkMode,
    /// What machines keep their data on.
    pub storage: StorageMode,
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
            network: NetworkMode::Port,
            storage: StorageMode::default(),
            weather: Weather::CALM,
            rate_ppm_max: 0,
            offset_ms_max: 0,
            keep_trace: true,
        }
    }
}

/// A simulated cluster and its clients.
#[derive(Debug)]
pub struct World {
    now: Instant,
    cluster: ClusterId,
    fabric: Fabric,
    usual: Weather,
    /// What makes the weather worse than usual.
    changes: Vec<Weather>,
    /// In quinn mode.
    quic: Option<Quic>,
    trace: Trace,
    order: Rng,
    machines: BTreeMap<NodeId, Machine>,
    /// Machines and clients (`None`) in the order of the last tick.
    hosts: Vec<Option<NodeId>>,
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
        let mut skews = Rng::stream(setup.seed, "skew", 0);
        let machines: BTreeMap<_, _> = (1..=setup.nodes)
            .map(|number| (number, draw_skew(setup, &mut skews), Storage::new(setup.storage)))
            .map(|(number, skew, disk)| Machine::new(number, setup.seed, skew, disk))
            .map(|machine| (machine.node(), machine))
            .collect();
        let cluster = ClusterId(u128::from(Rng::stream(setup.seed, "cluster", 0).next()));
        let fabric = Fabric::new(network, trace.clone(), setup.weather);
        let quic = match setup.network {
            NetworkMode::Port => None,
            NetworkMode::Quinn => {
                let nodes: Vec<_> = machines.keys().copied().collect();
                Some(Quic::new(setup.seed, cluster, &nodes, fabric.clone(), trace.clone()))
            }
        };
        let hosts = machines.keys().copied().map(Some).chain([None]).collect();
        Self {
            now: Instant::ORIGIN,
            cluster,
            fabric,
            quic,
            usual: setup.weather,
            changes: Vec::new(),
            trace,
            order: Rng::stream(setup.seed, "order", 0),
            machines,
            hosts,
            clients: Host::new(Skew::default(), Instant::ORIGIN),
            resident,
            failure: None,
        }
    }

    /// The machines' ids by number.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.machines.keys().copied().collect();
        nodes.sort_by_key(|node| Address::Node(*node).to_string());
        nodes
    }

    /// The machine of a number, from 1.
    pub fn node(&self, number: u32) -> Option<NodeId> {
        let number = usize::try_from(number).ok()?;
        self.nodes().get(number.checked_sub(1)?).copied()
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

    /// Whether a machine runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.machines.get(&node).is_some_and(Machine::is_up)
    }

    /// Starts a machine that is down.
    pub fn start(&mut self, node: NodeId) {
        let nodes = self.nodes();
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| !machine.is_up()) else {
            return;
        };
        self.trace.note(self.now, &format!("{} starts", machine.address()));
        self.trace.count("start");
        let around = Surroundings {
            cluster: self.cluster,
            nodes,
            fabric: &self.fabric,
            quic: self.quic.as_ref(),
            trace: &self.trace,
            resident: &self.resident,
        };
        if let Err(cause) = machine.start(self.now, &around) {
            self.fail(format!("{} does not start: {cause}", Address::Node(node)));
        }
    }

    /// Starts every machine that is down.
    pub fn start_all(&mut self) {
        for node in self.nodes() {
            self.start(node);
        }
    }

    /// Ends a machine that runs, where it stands.
    pub fn crash(&mut self, node: NodeId, death: Death) {
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.is_up()) else {
            return;
        };
        let (what, counter) = match death {
            Death::Kill => ("is killed", "kill"),
            Death::Power => ("loses power", "power loss"),
        };
        self.trace.note(self.now, &format!("{} {what}", machine.address()));
        self.trace.count(counter);
        if let Some(quic) = &self.quic {
            quic.wire().fall(machine.address());
        }
        machine.die(death, &self.fabric);
    }

    /// Ends all machines at one instant.
    pub fn crash_all(&mut self, death: Death) {
        for node in self.nodes() {
            self.crash(node, death);
        }
    }

    /// The disk of a machine.
    pub fn storage(&self, node: NodeId) -> Option<&Storage> {
        self.machines.get(&node).map(Machine::storage)
    }

    /// Makes a machine's disk `factor` times as slow as usual.
    pub fn slow_disk(&mut self, node: NodeId, factor: u32) {
        self.trace.note(self.now, &format!("{} disk at 1/{factor} speed", Address::Node(node)));
        if factor > 1 {
            self.trace.count("slow disk");
        }
        if let Some(machine) = self.machines.get(&node) {
            machine.storage().pace.set(factor);
            machine.storage().syncs.set(factor);
        }
    }

    /// Makes only the syncs of a machine's log slow.
    pub fn slow_syncs(&mut self, node: NodeId, factor: u32) {
        self.trace.note(self.now, &format!("{} syncs at 1/{factor} speed", Address::Node(node)));
        if let Some(machine) = self.machines.get(&node) {
            machine.storage().syncs.set(factor);
        }
    }

    /// Cuts every way between two groups, or only from the first to the second.
    pub fn partition(&mut self, from: &[NodeId], to: &[NodeId], one_way: bool) {
        for a in from {
            for b in to {
                self.fabric.cut(Address::Node(*a), Address::Node(*b));
                if !one_way {
                    self.fabric.cut(Address::Node(*b), Address::Node(*a));
                }
            }
        }
        let arrow = if one_way { "->" } else { "|" };
        self.trace.note(self.now, &format!("cut {} {arrow} {}", names(from), names(to)));
        self.trace.count(if one_way { "one-way cut" } else { "cut" });
    }

    /// Takes such a cut back; others on the same ways stay.
    pub fn reunite(&mut self, from: &[NodeId], to: &[NodeId], one_way: bool) {
        for a in from {
            for b in to {
                self.fabric.mend(Address::Node(*a), Address::Node(*b));
                if !one_way {
                    self.fabric.mend(Address::Node(*b), Address::Node(*a));
                }
            }
        }
        self.trace.note(self.now, &format!("cut of {} and {} mended", names(from), names(to)));
    }

    /// Opens every cut.
    pub fn heal(&mut self) {
        self.trace.note(self.now, "cuts healed");
        self.fabric.heal();
    }

    /// Makes the weather worse, or takes that back. The worst of all changes
    /// under way counts.
    pub fn change_weather(&mut self, worse: Weather, on: bool) {
        if on {
            self.changes.push(worse);
        } else if let Some(index) = self.changes.iter().position(|change| *change == worse) {
            self.changes.remove(index);
        }
        let weather = self.changes.iter().fold(self.usual, |sum, change| sum.worst(*change));
        self.trace.note(self.now, &format!("weather {weather:?}"));
        self.trace.count("change of weather");
        self.fabric.set_weather(weather);
    }

    /// Takes all room of a machine's disk, or gives it back.
    pub fn fill_disk(&mut self, node: NodeId, full: bool) {
        let what = if full { "is full" } else { "has room" };
        self.trace.note(self.now, &format!("{} disk {what}", Address::Node(node)));
        if let Some(machine) = self.machines.get(&node) {
            machine.storage().fill(full);
        }
    }

    /// A client's way to the nodes.
    pub fn door(&self, number: u32) -> Arc<dyn Door> {
        if let Some(quic) = &self.quic {
            let clock = self.clients.clock().clone();
            return self.clients.inside(|| quic.door(number, &self.nodes(), &clock));
        }
        Arc::new(SimulatedDoor::new(self.client(number), self.nodes()))
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
        // Packets below quinn are handed over between two ticks only.
        let stretch = match &self.quic {
            None => self.fabric.weather().stretch(),
            Some(_) => GRAIN,
        };
        let (here, end) = (self.now, self.now + stretch);
        if let Some(quic) = &self.quic {
            quic.advance(here);
        }
        // What arrives at the very end belongs to the next tick.
        let mut due = self.fabric.advance(here, here + stretch.saturating_sub(GRAIN));
        let mut hosts = std::mem::take(&mut self.hosts);
        self.order.shuffle(&mut hosts);
        for who in &hosts {
            let arrivals = due.remove(who).unwrap_or_default();
            match who {
                None => self.clients.step_through(here, arrivals, end, tell),
                Some(node) => self.step(*node, here, arrivals, end),
            }
        }
        self.hosts = hosts;
        self.now = end;
        self.start_again();
        if let Some(panic) = panics::take() {
            self.fail(format!("panic: {panic}"));
        }
    }

    /// Starts machines again whose node ended and asks for it, as a supervisor
    /// of the process would.
    fn start_again(&mut self) {
        let asks = self.machines.iter().filter(|(_, machine)| machine.asks_again());
        for node in asks.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.crash(node, Death::Kill);
            self.start(node);
        }
    }

    fn step(
        &mut self,
        node: NodeId,
        here: Instant,
        arrivals: Vec<(Instant, Delivery)>,
        end: Instant,
    ) {
        let stepped = self.machines.get(&node).map(|machine| machine.step(here, arrivals, end));
        if let Some(Err(cause)) = stepped {
            self.fail(format!("{} does not start: {cause}", Address::Node(node)));
        }
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
            self.tick();
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
            machine.die(Death::Kill, &self.fabric);
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

fn names(nodes: &[NodeId]) -> String {
    let mut names: Vec<_> = nodes.iter().map(|node| Address::Node(*node).to_string()).collect();
    names.sort();
    names.join(",")
}

fn draw_skew(setup: &Setup, rng: &mut Rng) -> Skew {
    let mut within = |max: u32| {
        let drawn = i64::try_from(rng.below(2 * u64::from(max) + 1)).unwrap_or(0);
        drawn - i64::from(max)
    };
    Skew {
        rate_ppm: i32::try_from(within(setup.rate_ppm_max)).unwrap_or(0),
        offset_ms: within(setup.offset_ms_max),
    }
}
