//! A world with the product on its machines, and clients in front of it: what
//! trials and scenarios play on.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use actors::client::{Client, ClientError, Door};
use cluster::{
    catalog::{
        record::{VolumeKind, VolumePolicy},
        view::CatalogView,
    },
    ids::CATALOG_SHARD,
    placement::policy::catalog_voters,
    shard::descriptor::{ReplicaDescriptor, ReplicaRole},
    units::Instant,
};

use crate::{
    checkers::Checkers,
    entropy::SeededEntropy,
    faults::{Course, Schedule},
    node::Resident,
    product::Product,
    rng::Rng,
    workloads::Player,
    world::{Setup, World},
};

/// Time a cluster may take to be founded and serve.
const FOUNDING_MAX: Duration = Duration::from_mins(1);
/// Time between two looks at the running nodes.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The volume the clients use.
pub const VOLUME: &str = "data";
/// The client that founds and checks; the others are numbered from 1.
pub const KEEPER: u32 = 0;

/// A world and what must hold in it.
#[derive(Debug)]
pub struct Stage {
    /// The world.
    pub world: World,
    /// What must hold inside.
    pub checkers: Checkers,
    seed: u64,
    /// What goes wrong while time passes.
    faults: Course,
    /// When running nodes are looked at next.
    look_at: Instant,
}

impl Stage {
    /// A stage whose machines run the product.
    pub fn product(setup: &Setup) -> Self {
        let product = Product::default();
        let checkers = product.checkers.clone();
        Self::new(setup, Arc::new(product), checkers)
    }

    /// A stage whose machines run `resident`, which reports to `checkers`.
    pub fn new(setup: &Setup, resident: Arc<dyn Resident>, checkers: Checkers) -> Self {
        let world = World::new(setup, resident);
        Self {
            world,
            checkers,
            seed: setup.seed,
            faults: Course::default(),
            look_at: Instant::ORIGIN,
        }
    }

    /// Starts all machines and makes the volume, with three replicas if there
    /// are as many machines.
    ///
    /// # Errors
    /// If the cluster does not serve in time.
    pub fn found(&mut self, shards: u32) -> Result<(), String> {
        self.world.start_all();
        let client = self.client(KEEPER).with_deadline(FOUNDING_MAX);
        let kind = if shards == 1 { VolumeKind::Single } else { VolumeKind::Hash };
        let nodes = self.world.nodes().len();
        let replicas = u32::try_from(nodes.min(3)).unwrap_or(3);
        let policy = VolumePolicy::new(kind, replicas, shards);
        let made = self.ask("founding", FOUNDING_MAX * 2, async move {
            while client.nodes().await?.len() < nodes || !is_grown(client.catalog().await?.as_ref())
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            client.create_volume(VOLUME, policy).await.map(|_| ())
        })?;
        made.map_err(|error| format!("no volume could be made: {}", told(&error)))
    }

    /// A client of the cluster.
    pub fn client(&self, number: u32) -> Client {
        self.client_behind(self.door(number), number)
    }

    fn client_behind(&self, door: Arc<dyn Door>, number: u32) -> Client {
        let rng = Rng::stream(self.seed, "client entropy", u64::from(number));
        let entropy = Arc::new(SeededEntropy::new(rng));
        Client::new(door, self.world.client_clock(), entropy)
    }

    /// A client at work on the volume, until `over`.
    pub fn player(&self, number: u32, over: &Arc<AtomicBool>) -> Player {
        let door = self.door(number);
        Player {
            number,
            client: self.client_behind(door.clone(), number),
            door,
            rng: Rng::stream(self.seed, "client", u64::from(number)),
            volume: VOLUME.into(),
            clock: self.world.client_clock(),
            trace: self.world.trace().clone(),
            over: over.clone(),
            leisure: 1,
        }
    }

    /// A client's door, to ask one node alone. The one before it is shut.
    pub fn door(&self, number: u32) -> Arc<dyn Door> {
        self.world.door(number)
    }

    /// Lets these faults strike, at their times from now on, while time passes.
    pub fn expose_to(&mut self, faults: &Schedule) {
        self.faults = faults.course(self.world.now());
    }

    /// Ends the faults under way and forgets those to come.
    pub fn end_faults(&mut self) {
        self.faults.finish(&mut self.world);
    }

    /// Runs a task among the clients until it ends.
    ///
    /// # Errors
    /// If it does not end in time, or the world breaks first.
    pub fn ask<T: Send + 'static>(
        &mut self,
        what: &str,
        span: Duration,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        // A lock only because tasks must be `Send`.
        let slot = Arc::new(Mutex::new(None));
        let filled = slot.clone();
        self.world.spawn(async move {
            let value = task.await;
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        });
        let take = || slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let end = self.world.now() + span;
        while self.world.now() < end {
            self.tick(end)?;
            if let Some(value) = take() {
                return Ok(value);
            }
        }
        Err(format!("{what}: no end within {span:?}"))
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// If the world breaks.
    pub fn pass(&mut self, span: Duration) -> Result<(), String> {
        let end = self.world.now() + span;
        while self.world.now() < end {
            self.tick(end)?;
        }
        Ok(())
    }

    /// Lets one tick pass, with the faults that are due in it.
    fn tick(&mut self, end: Instant) -> Result<(), String> {
        self.faults.advance(&mut self.world);
        self.world.tick_until(self.faults.due().map_or(end, |due| due.min(end)));
        if self.world.now() >= self.look_at {
            self.look_at = self.world.now() + LOOK_EVERY;
            self.checkers.look(self.world.trace());
        }
        self.check()
    }

    /// Waits until the replicas of every shard stand at one position, where
    /// their states are compared.
    ///
    /// # Errors
    /// Which do not in time, or what broke.
    pub fn converge(&mut self, span: Duration) -> Result<(), String> {
        let end = self.world.now() + span;
        loop {
            let met = self.checkers.converged(self.world.trace());
            self.check()?;
            match met {
                Err(apart) if self.world.now() > end => return Err(apart),
                Err(_) => self.tick(end)?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Whether all is well.
    ///
    /// # Errors
    /// What broke.
    pub fn check(&self) -> Result<(), String> {
        if let Some(failure) = self.world.failure() {
            return Err(failure.to_owned());
        }
        self.checkers.broken().map_or(Ok(()), Err)
    }
}

/// Whether the catalog can lose one of its machines: a cluster whose only copy
/// of it lies on one disk promises nothing yet.
fn is_grown(view: &CatalogView) -> bool {
    let wanted = catalog_voters(view.active_nodes().count()).min(3);
    let voter = |held: &&ReplicaDescriptor| held.role == ReplicaRole::Voter;
    let catalog = view.shard(CATALOG_SHARD);
    catalog.is_some_and(|shard| shard.descriptor.replicas.iter().filter(voter).count() >= wanted)
}

/// A client's error with its cause.
pub(crate) fn told(error: &ClientError) -> String {
    format!("{error} ({})", error.cause())
}
