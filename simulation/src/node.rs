//! One simulated machine: what survives a crash, and the boot that runs on it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cluster::{
    ids::{BootNonce, Incarnation, NodeId},
    membership::Boot,
    ports::{
        clock::Clock,
        entropy::Entropy,
        network::{BoxFuture, Inbound, Network},
    },
    units::Instant,
};

use crate::{
    clock::{HostClock, Skew},
    entropy::SeededEntropy,
    host::Host,
    network::{Address, Delivery, Fabric, Port},
    rng::Rng,
    trace::Trace,
};

/// What a boot is given: its identity and its ports.
#[derive(Clone, Debug)]
pub struct Parts {
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
    /// Where it may note what it does, at the world's time.
    pub diary: Diary,
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

/// A machine. Its boots come and go.
#[derive(Debug)]
pub(crate) struct Machine {
    number: u32,
    node: NodeId,
    seed: u64,
    skew: Skew,
    incarnation: u64,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    host: Host,
    port: Port,
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
    pub(crate) fn new(number: u32, seed: u64, skew: Skew) -> Self {
        let mut rng = Rng::stream(seed, "node id", u64::from(number));
        let high = u128::from(rng.next()) << 64 | u128::from(rng.next());
        let node = NodeId(high & !0xff | u128::from(number));
        Self { number, node, seed, skew, incarnation: 0, running: None }
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

    /// Starts a new boot.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        nodes: Vec<NodeId>,
        fabric: &Fabric,
        trace: &Trace,
        resident: &Arc<dyn Resident>,
    ) {
        self.incarnation += 1;
        let member = u64::from(self.number) << 32 | self.incarnation;
        let mut rng = Rng::stream(self.seed, "boot", member);
        let nonce = u128::from(rng.next()) << 64 | u128::from(rng.next());
        let boot = Boot { incarnation: Incarnation(self.incarnation), nonce: BootNonce(nonce) };
        let host = Host::new(self.skew, now);
        let clock = host.clock().clone();
        let seat = fabric.rise(self.address());
        let port = Port::new(fabric.clone(), self.address(), seat, clock.clone());
        let parts = Parts {
            number: self.number,
            node: self.node,
            boot,
            nodes,
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(rng)),
            network: Arc::new(port.clone()),
            diary: Diary { who: self.address(), clock, trace: trace.clone() },
        };
        let started = Arc::new(Mutex::new(Started::NotYet));
        let (slot, resident) = (started.clone(), resident.clone());
        host.inside(|| {
            tokio::spawn(async move {
                let outcome = match resident.start(parts).await {
                    Ok(inbound) => Started::Serving(inbound),
                    Err(cause) => Started::Failed(cause),
                };
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
            })
        });
        self.running = Some(Running { host, port, started });
    }

    /// Ends the boot where it stands.
    pub(crate) fn crash(&mut self, fabric: &Fabric) {
        // Mute first: destructors of its tasks may still try to send.
        fabric.fall(self.address());
        if let Some(running) = self.running.take() {
            running.host.crash();
        }
    }

    /// Hands over what arrived and runs until `world`.
    pub(crate) fn step(&self, deliveries: Vec<Delivery>, world: Instant) -> Result<(), String> {
        let Some(running) = &self.running else { return Ok(()) };
        running.give(deliveries)?;
        running.host.step_to(world);
        Ok(())
    }
}

impl Running {
    fn give(&self, deliveries: Vec<Delivery>) -> Result<(), String> {
        let inbound = match &*self.started.lock().unwrap_or_else(PoisonError::into_inner) {
            Started::NotYet => return Ok(()),
            Started::Serving(inbound) => inbound.clone(),
            Started::Failed(cause) => return Err(cause.clone()),
        };
        self.host.inside(|| {
            for delivery in deliveries {
                self.deliver(inbound.as_ref(), delivery);
            }
        });
        Ok(())
    }

    fn deliver(&self, inbound: &dyn Inbound, delivery: Delivery) {
        match delivery {
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
