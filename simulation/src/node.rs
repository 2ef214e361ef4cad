//! One simulated machine: what survives a crash, and the boot that runs on it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use actors::root::{OldImage, image};
use cluster::{
    ids::{BootNonce, ClusterId, Incarnation, NodeId},
    log::Recovery,
    membership::Boot,
    ports::{
        clock::Clock,
        engine::Engine,
        entropy::Entropy,
        files::Files,
        log::LogStore,
        network::{BoxFuture, Inbound, Network},
        workers::Workers,
    },
    units::Instant,
};

use crate::{
    clock::{HostClock, Skew},
    disk::{Death, Room, Storage},
    entropy::SeededEntropy,
    host::Host,
    network::{Address, Delivery, Fabric, Port},
    quic::{LateInbound, Quic},
    rng::Rng,
    trace::Trace,
    workers::InlineWorkers,
};

/// What a boot is given: its identity, its ports, and what its disk held.
#[derive(Debug)]
pub struct Parts {
    /// The cluster all machines of the world belong to.
    pub cluster: ClusterId,
    /// The machine's number, from 1.
    pub number: u32,
    /// Its id.
    pub node: NodeId,
    /// This start of it.
    pub boot: Boot,
    /// All machines of the world.
    pub nodes: Vec<NodeId>,
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    /// Its chance.
    pub entropy: Arc<dyn Entropy>,
    /// Its way to others.
    pub network: Arc<dyn Network>,
    /// Its log.
    pub log: Arc<dyn LogStore>,
    /// What the log held.
    pub recovery: Recovery,
    /// Its stores.
    pub engine: Arc<dyn Engine>,
    /// Who runs its blocking work.
    pub workers: Arc<dyn Workers>,
    /// Its small state files.
    pub state_files: Arc<dyn Files>,
    /// Whether its disk is full.
    pub room: Room,
    /// Where it may note what it does, at the world's time.
    pub diary: Diary,
    /// Set when it has ended and is to be started again, as its supervisor
    /// would: its disk was found to be an old image.
    pub again: Arc<AtomicBool>,
}

/// Notes of one boot in the world's trace.
#[derive(Clone, Debug)]
pub struct Diary {
    who: Address,
    clock: Arc<HostClock>,
    trace: Trace,
}

impl Diary {
    /// Notes a state change.
    pub fn note(&self, line: &str) {
        self.trace.note(self.clock.world_now(), &format!("{} {line}", self.who));
    }

    /// Mixes something into the hash that is not worth a line.
    pub fn mix(&self, bytes: &[u8]) {
        self.trace.mix(self.clock.world_now(), bytes);
    }

    /// Counts something.
    pub fn count(&self, what: &'static str) {
        self.trace.count(what);
    }
}

/// What runs on a node: the product, or a host application's own actors.
pub trait Resident: Send + Sync + fmt::Debug {
    /// Starts inside the node's runtime and returns what receives its messages.
    /// An error ends the run: starting must always work.
    fn start(&self, parts: Parts) -> BoxFuture<Result<Arc<dyn Inbound>, String>>;
}

/// What a boot finds around its machine.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) cluster: ClusterId,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) fabric: &'a Fabric,
    pub(crate) quic: Option<&'a Quic>,
    pub(crate) trace: &'a Trace,
    pub(crate) resident: &'a Arc<dyn Resident>,
}

/// A machine. Its boots come and go.
#[derive(Debug)]
pub(crate) struct Machine {
    number: u32,
    node: NodeId,
    seed: u64,
    skew: Skew,
    incarnation: u64,
    storage: Storage,
    running: Option<Running>,
    /// What the last boot may ask for.
    again: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    host: Host,
    port: Port,
    /// Of its transport, in quinn mode.
    late: Option<Arc<LateInbound>>,
    started: Arc<Mutex<Started>>,
}

/// How far a boot has come.
#[derive(Debug, Default)]
enum Started {
    #[default]
    NotYet,
    Serving(Arc<dyn Inbound>),
    Failed(String),
}

impl Machine {
    /// A machine that was never started. Its id carries its number in the low
    /// bits for readable traces; the rest is the seed's.
    pub(crate) fn new(number: u32, seed: u64, skew: Skew, storage: Storage) -> Self {
        let mut rng = Rng::stream(seed, "node id", u64::from(number));
        let high = u128::from(rng.next()) << 64 | u128::from(rng.next());
        let node = NodeId(high & !0xff | u128::from(number));
        Self {
            number,
            node,
            seed,
            skew,
            incarnation: 0,
            storage,
            running: None,
            again: Arc::default(),
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn address(&self) -> Address {
        Address::Node(self.node)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its boot has ended and asks to be started again.
    pub(crate) fn asks_again(&self) -> bool {
        self.is_up() && self.again.load(Ordering::Relaxed)
    }

    /// What survives its crashes.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Starts a new boot.
    ///
    /// # Errors
    /// What a disk that was only crashed must never cause.
    pub(crate) fn start(&mut self, now: Instant, around: &Surroundings<'_>) -> Result<(), String> {
        let old = image::load(&self.storage.state).map_err(|error| error.to_string())?;
        self.incarnation = self.incarnation.max(old.map_or(0, |old| old.seen.incarnation.0)) + 1;
        let host = Host::new(self.skew, now);
        let seat = around.fabric.rise(self.address());
        let clock = host.clock().clone();
        let port = Port::new(around.fabric.clone(), self.address(), seat, clock.clone());
        let mut parts = self.parts(&port, clock.clone(), old, around)?;
        image::forget(&self.storage.state).map_err(|error| error.to_string())?;
        self.again = parts.again.clone();
        let late = match around.quic {
            None => None,
            Some(quic) => {
                let rng = self.rng("transport");
                let sit = || quic.sit(self.node, parts.boot, &clock, rng, around.trace);
                let seat = host.inside(sit)?;
                parts.network = seat.transport;
                Some(seat.inbound)
            }
        };
        let started = Arc::new(Mutex::new(Started::NotYet));
        let (slot, resident, inbound_slot) =
            (started.clone(), around.resident.clone(), late.clone());
        host.inside(|| {
            tokio::spawn(async move {
                let outcome = match resident.start(parts).await {
                    Ok(inbound) => {
                        if let Some(late) = inbound_slot {
                            late.set(Some(inbound.clone()));
                        }
                        Started::Serving(inbound)
                    }
                    Err(cause) => Started::Failed(cause),
                };
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
            })
        });
        self.running = Some(Running { host, port, late, started });
        Ok(())
    }

    /// Chance of this boot for one purpose.
    fn rng(&self, purpose: &str) -> Rng {
        Rng::stream(self.seed, purpose, u64::from(self.number) << 32 | self.incarnation)
    }

    fn parts(
        &self,
        port: &Port,
        clock: Arc<HostClock>,
        old: Option<OldImage>,
        around: &Surroundings<'_>,
    ) -> Result<Parts, String> {
        let mut nonce = self.rng("boot nonce");
        let nonce = u128::from(nonce.next()) << 64 | u128::from(nonce.next());
        let stamp = (around.cluster, self.node);
        let (log, recovery) = self.storage.open_log(stamp, old, self.rng("log"), around.trace)?;
        let pace = self.storage.pace.clone();
        Ok(Parts {
            cluster: around.cluster,
            number: self.number,
            node: self.node,
            boot: Boot { incarnation: Incarnation(self.incarnation), nonce: BootNonce(nonce) },
            nodes: around.nodes.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.rng("entropy"))),
            network: Arc::new(port.clone()),
            log: Arc::new(log),
            recovery,
            engine: self.storage.stores(stamp).map_err(|error| error.to_string())?,
            workers: Arc::new(InlineWorkers::new(pace, self.rng("workers"))),
            state_files: self.storage.state_files().map_err(|error| error.to_string())?,
            room: self.storage.room.clone(),
            diary: Diary { who: self.address(), clock, trace: around.trace.clone() },
            again: Arc::default(),
        })
    }

    /// Ends the boot where it stands.
    pub(crate) fn die(&mut self, death: Death, fabric: &Fabric) {
        // Mute first: destructors of its tasks may still try to send.
        fabric.fall(self.address());
        if let Some(running) = self.running.take() {
            running.host.crash();
            if let Some(late) = running.late {
                late.set(None);
            }
            self.storage.die(death, &mut self.rng("death"));
        }
    }

    /// Runs from `here` to `end`, and takes what arrives on the way.
    pub(crate) fn step(
        &self,
        here: Instant,
        arrivals: Vec<(Instant, Delivery)>,
        end: Instant,
    ) -> Result<(), String> {
        let Some(running) = &self.running else { return Ok(()) };
        running.host.step_through(here, arrivals, end, |delivery| running.give(delivery));
        match &*running.started() {
            Started::NotYet | Started::Serving(_) => Ok(()),
            Started::Failed(cause) => Err(cause.clone()),
        }
    }
}

impl Running {
    fn started(&self) -> MutexGuard<'_, Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a delivery over. One that has not started yet hears only answers.
    fn give(&self, delivery: Delivery) {
        let inbound = match &*self.started() {
            Started::Serving(inbound) => Some(inbound.clone()),
            Started::NotYet | Started::Failed(_) => None,
        };
        match (delivery, inbound) {
            (Delivery::Answer(reply), _) => reply.tell(),
            (delivery, Some(inbound)) => self.deliver(inbound.as_ref(), delivery),
            (_, None) => {}
        }
    }

    fn deliver(&self, inbound: &dyn Inbound, delivery: Delivery) {
        match delivery {
            Delivery::Answer(reply) => reply.tell(),
            Delivery::Message { from, lane, bytes } => inbound.message(from, lane, bytes),
            Delivery::Link { peer, up } => inbound.link(peer, up),
            Delivery::Request { from, class, bytes, ticket } => {
                let answer = inbound.request(from, class, bytes);
                let port = self.port.clone();
                tokio::spawn(async move { port.answer(ticket, answer.await) });
            }
        }
    }
}
