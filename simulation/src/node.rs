//! One simulated machine: what survives a crash, and the boot that runs on it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::root::{OldImage, image};
use cluster::{
    ids::{ClusterId, Incarnation, NodeId},
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
use tokio::sync::mpsc;

use crate::{
    clock::{Dials, HostClock},
    disk::{Death, Guarded, Room, Storage, StorageMode},
    entropy::SeededEntropy,
    host::Host,
    identity,
    life::{Ending, Life, Traps},
    network::{Address, Delivery, Fabric, Port},
    orders::Order,
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
    /// Its failure domain.
    pub zone: String,
    /// Whether this node founds the cluster.
    pub founder: bool,
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
    /// Bytes that may wait for its stores, if not what its memory allows.
    pub overlay_bytes: Option<usize>,
    /// Where it may note what it does, at the world's time.
    pub diary: Diary,
    /// Whether it lives still; it may end itself here.
    pub life: Life,
    /// What an operator wants of it.
    pub orders: mpsc::UnboundedReceiver<Order>,
}

/// Notes of one boot in the world's trace. A dead one notes nothing.
#[derive(Clone, Debug)]
pub struct Diary {
    who: Address,
    clock: Arc<HostClock>,
    trace: Trace,
    life: Life,
}

impl Diary {
    /// Notes a state change.
    pub fn note(&self, line: &str) {
        if !self.life.is_over() {
            self.trace.note(self.clock.world_now(), &format!("{} {line}", self.who));
        }
    }

    /// Mixes something into the hash that is not worth a line.
    pub fn mix(&self, bytes: &[u8]) {
        if !self.life.is_over() {
            self.trace.mix(self.clock.world_now(), bytes);
        }
    }

    /// Counts something.
    pub fn count(&self, what: &'static str) {
        if !self.life.is_over() {
            self.trace.count(what);
        }
    }

    /// Counts something so many times.
    pub fn count_many(&self, what: &'static str, times: u32) {
        (0..times).for_each(|_| self.count(what));
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
    pub(crate) zones: u32,
    pub(crate) overlay_bytes: Option<usize>,
    pub(crate) fabric: &'a Fabric,
    pub(crate) quic: Option<&'a Quic>,
    pub(crate) traps: &'a Traps,
    pub(crate) trace: &'a Trace,
    pub(crate) resident: &'a Arc<dyn Resident>,
}

/// How a machine's processor serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// In every tick.
    Steady,
    /// Once in so many ticks.
    Slow(u32),
    /// Not at all.
    Stopped,
}

/// A machine. Its boots come and go; its disk may be another's.
#[derive(Debug)]
pub(crate) struct Machine {
    number: u32,
    node: NodeId,
    /// Nodes this machine has been: a wiped disk makes it a stranger.
    births: u32,
    seed: u64,
    dials: Arc<Dials>,
    boots: u64,
    mode: StorageMode,
    pub(crate) storage: Storage,
    pub(crate) pulse: Pulse,
    /// When its process supervisor starts it again.
    pub(crate) restart_at: Option<Instant>,
    /// Somebody asked to remove it: the cluster may have done so unheard.
    pub(crate) leaving: bool,
    /// Removed for good, and not wanted any more.
    pub(crate) retired: bool,
    /// A copy of its disk as it was, and how the boot showed itself then.
    pub(crate) image: Option<(Option<Boot>, Storage)>,
    /// It runs on such a copy and has not found that out.
    pub(crate) runs_old_image: bool,
    backlog: Vec<(Instant, Delivery)>,
    stepped: Instant,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    host: Host,
    port: Port,
    /// Of its transport, in quinn mode.
    late: Option<Arc<LateInbound>>,
    started: Arc<Mutex<Started>>,
    life: Life,
    boot: Boot,
    orders: mpsc::UnboundedSender<Order>,
}

/// How far a boot has come.
#[derive(Debug, Default)]
enum Started {
    #[default]
    NotYet,
    Serving(Arc<dyn Inbound>),
    Failed(String),
}

/// An id whose low bits carry the machine's number and the birth, for readable
/// traces; the rest is the seed's.
fn node_id(seed: u64, number: u32, birth: u32) -> NodeId {
    let mut rng = Rng::stream(seed, "node id", u64::from(birth) << 32 | u64::from(number));
    let high = u128::from(rng.next()) << 64 | u128::from(rng.next());
    NodeId(high & !0xffff | u128::from(birth & 0xff) << 8 | u128::from(number & 0xff))
}

impl Machine {
    /// A machine that was never started.
    pub(crate) fn new(number: u32, seed: u64, dials: Dials, mode: StorageMode) -> Self {
        Self {
            number,
            node: node_id(seed, number, 0),
            births: 0,
            seed,
            dials: Arc::new(dials),
            boots: 0,
            mode,
            storage: Storage::new(mode),
            pulse: Pulse::Steady,
            restart_at: None,
            leaving: false,
            retired: false,
            image: None,
            runs_old_image: false,
            backlog: Vec::new(),
            stepped: Instant::ORIGIN,
            running: None,
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

    pub(crate) fn dials(&self) -> &Dials {
        &self.dials
    }

    /// What the boot on it has come to.
    pub(crate) fn life(&self) -> Option<&Life> {
        self.running.as_ref().map(|running| &running.life)
    }

    /// How the boot on it shows itself to others.
    pub(crate) fn shown_boot(&self) -> Option<Boot> {
        self.running.as_ref().map(|running| running.boot)
    }

    /// Whether it was another node before.
    pub(crate) fn is_stranger(&self) -> bool {
        self.births > 0
    }

    /// Gives it an empty disk: the next start is a stranger's.
    pub(crate) fn become_stranger(&mut self) {
        self.births += 1;
        self.leaving = false;
        self.runs_old_image = false;
        self.node = node_id(self.seed, self.number, self.births);
        let offered_bytes = self.storage.room.measured().offered_bytes;
        let limit_bytes = self.storage.engine.limit_bytes();
        self.storage = Storage::new(self.mode);
        self.storage.offer(offered_bytes);
        self.storage.engine.set_limit_bytes(limit_bytes);
    }

    /// Ends the boot and copies its disk; none of a real one.
    pub(crate) fn copy_disk(&mut self) -> Option<Storage> {
        if !self.storage.is_in_memory() {
            return None;
        }
        self.die(Death::Kill);
        self.storage.image()
    }

    /// Tells the clock of a running boot that its rate changed.
    pub(crate) fn rate_changed(&self, now: Instant) {
        if let Some(running) = &self.running {
            running.host.clock().rate_changed(now);
        }
    }

    /// Gives an order to the boot that runs; whether there is one.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.running.as_ref().is_some_and(|running| {
            running.host.clock().disturb();
            running.orders.send(order).is_ok()
        })
    }

    /// When it has something to do next by itself, if the time is `now`.
    pub(crate) fn due(&self, now: Instant) -> Instant {
        let never = Instant::from_nanos(u64::MAX);
        let restart = self.restart_at.unwrap_or(never);
        let Some(running) = &self.running else { return restart };
        restart.min(match self.pulse {
            Pulse::Steady if self.backlog.is_empty() => running.host.clock().due(),
            Pulse::Steady | Pulse::Slow(_) => now,
            Pulse::Stopped => never,
        })
    }

    /// Starts a new boot.
    ///
    /// # Errors
    /// What a disk that was only crashed must never cause.
    pub(crate) fn start(&mut self, now: Instant, around: &Surroundings<'_>) -> Result<(), String> {
        self.boots += 1;
        self.storage.note_start();
        self.restart_at = None;
        self.pulse = Pulse::Steady;
        self.backlog.clear();
        self.stepped = now;
        let host = Host::new(self.dials.clone(), now);
        let clock = host.clock().clone();
        let ways = (around.fabric.clone(), around.quic.map(|quic| quic.wire().clone()));
        let shared = (around.traps.clone(), around.trace.clone());
        let who = (self.number, self.address());
        let life = Life::new(who, self.storage.clone(), ways, shared, self.rng("death"));
        let (orders, taken) = mpsc::unbounded_channel();
        let seat = around.fabric.rise(self.address());
        let port = Port::new(around.fabric.clone(), self.address(), seat, clock.clone());
        let prepared = self
            .parts(&port, clock.clone(), (&life, taken), around)
            .and_then(|parts| self.sit(parts, &host, &clock, around));
        let (parts, late) = match prepared {
            Ok(prepared) => prepared,
            Err(cause) => {
                life.kill(Death::Kill);
                return Err(cause);
            }
        };
        let boot = parts.boot;
        let started = begin(&host, parts, around.resident.clone(), late.clone());
        self.running = Some(Running { host, port, late, started, life, boot, orders });
        Ok(())
    }

    /// Chance of this boot for one purpose.
    pub(crate) fn rng(&self, purpose: &str) -> Rng {
        Rng::stream(self.seed, purpose, u64::from(self.number) << 32 | self.boots)
    }

    /// Makes sure that the disk is this machine's, or makes it so.
    fn claim(&self, files: &dyn Files) -> Result<(), String> {
        match identity::identity(files).map_err(unreadable)? {
            None => identity::found(files, self.node).map_err(unreadable),
            Some(found) if found == self.node => Ok(()),
            Some(found) => Err(format!("its disk is {}'s", Address::Node(found))),
        }
    }

    /// Counts this start on the disk: later than any the cluster has seen.
    fn boot(&self, files: &dyn Files, old: Option<OldImage>) -> Result<Boot, String> {
        let seen = old.map_or(Incarnation(0), |old| old.seen.incarnation);
        let chance = self.rng("boot nonce").next();
        identity::next_boot(files, self.node, seen, chance).map_err(unreadable)
    }

    fn parts(
        &self,
        port: &Port,
        clock: Arc<HostClock>,
        (life, orders): (&Life, mpsc::UnboundedReceiver<Order>),
        around: &Surroundings<'_>,
    ) -> Result<Parts, String> {
        let files = self.storage.state_files().map_err(unreadable)?;
        self.claim(files.as_ref())?;
        let old = image::load(files.as_ref()).map_err(unreadable)?;
        let stamp = (around.cluster, self.node);
        let (rng, alive) = (self.rng("log"), Some(life.clone()));
        let begun = identity::has_started(files.as_ref()).map_err(unreadable)?;
        let (log, recovery) =
            self.storage.open_log(stamp, (begun, old), rng, around.trace, alive)?;
        let boot = self.boot(files.as_ref(), old)?;
        // Verdict and incarnation are durable: the note has done its work.
        image::forget(files.as_ref()).map_err(unreadable)?;
        let pace = self.storage.pace.clone();
        let stores = self.storage.stores(stamp).map_err(|error| error.to_string())?;
        let engine = Guarded::new(stores, life.clone());
        let state_files = Guarded::new(files, life.clone());
        Ok(Parts {
            cluster: around.cluster,
            number: self.number,
            node: self.node,
            zone: format!("zone-{}", self.number % around.zones.max(1)),
            founder: self.number == 1 && self.births == 0,
            boot,
            nodes: around.nodes.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.rng("entropy"))),
            network: Arc::new(port.clone()),
            log: Arc::new(log),
            recovery,
            engine: Arc::new(engine),
            workers: Arc::new(InlineWorkers::new(pace, self.rng("workers"), Some(life.clone()))),
            state_files: Arc::new(state_files),
            room: self.storage.room.clone(),
            overlay_bytes: around.overlay_bytes,
            diary: Diary {
                who: self.address(),
                clock,
                trace: around.trace.clone(),
                life: life.clone(),
            },
            life: life.clone(),
            orders,
        })
    }

    /// Gives a boot its transport, in quinn mode.
    fn sit(
        &self,
        mut parts: Parts,
        host: &Host,
        clock: &Arc<HostClock>,
        around: &Surroundings<'_>,
    ) -> Result<(Parts, Option<Arc<LateInbound>>), String> {
        let Some(quic) = around.quic else { return Ok((parts, None)) };
        let rng = self.rng("transport");
        let sit = || quic.sit(self.node, parts.boot, clock, rng, around.trace);
        let seat = host.inside(sit)?;
        parts.network = seat.transport;
        Ok((parts, Some(seat.inbound)))
    }

    /// Ends the boot where it stands.
    pub(crate) fn die(&mut self, death: Death) {
        if let Some(running) = self.running.take() {
            // Mute first: destructors of its tasks may still try to send.
            running.life.kill(death);
            running.host.crash();
            if let Some(late) = running.late {
                late.set(None);
            }
        }
    }

    /// Runs from `here` to `end` and takes what arrives on the way, if the
    /// processor runs and has something to do. Whether it ran.
    pub(crate) fn step(
        &mut self,
        here: Instant,
        arrivals: Vec<(Instant, Delivery)>,
        end: Instant,
    ) -> bool {
        self.backlog.extend(arrivals);
        let Some(running) = &self.running else {
            self.backlog.clear();
            return false;
        };
        let runs = match self.pulse {
            Pulse::Steady => !self.backlog.is_empty() || running.host.clock().due() <= end,
            Pulse::Slow(ticks) => end.since(self.stepped) >= Duration::from_millis(1) * ticks,
            Pulse::Stopped => false,
        };
        if !runs {
            return false;
        }
        // After a stop its clocks jump: for the process no time has passed.
        self.stepped = end;
        let mut arrivals = std::mem::take(&mut self.backlog);
        let mut from = here;
        if matches!(self.pulse, Pulse::Slow(_)) {
            // It had no turn until now: what was due meanwhile is late, timers too.
            from = end;
            for (at, _) in &mut arrivals {
                *at = end;
            }
        }
        running.host.step_through(from, arrivals, end, |delivery| running.give(delivery));
        if let Started::Failed(cause) = &*running.started() {
            running.life.end(Ending::NotStarted(cause.clone()), Death::Kill);
        }
        true
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` wants")]
fn unreadable(error: std::io::Error) -> String {
    format!("its identity cannot be read: {error}")
}

/// Starts the resident in its runtime.
fn begin(
    host: &Host,
    parts: Parts,
    resident: Arc<dyn Resident>,
    late: Option<Arc<LateInbound>>,
) -> Arc<Mutex<Started>> {
    let started = Arc::new(Mutex::new(Started::NotYet));
    let slot = started.clone();
    host.inside(|| {
        tokio::spawn(async move {
            let outcome = match resident.start(parts).await {
                Ok(inbound) => {
                    if let Some(late) = late {
                        late.set(Some(inbound.clone()));
                    }
                    Started::Serving(inbound)
                }
                Err(cause) => Started::Failed(cause),
            };
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        })
    });
    started
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
