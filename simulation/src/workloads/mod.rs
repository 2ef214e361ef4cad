//! What clients do while the world misbehaves, and how it is judged.
//!
//! A workload has four parts, as those of `FoundationDB` have: it sets up,
//! runs with several clients until told to end, observes what is there once the
//! world is whole, and checks what all of them were told. Its clients are the product's
//! own; it sees only what they see.

pub mod accounts;
pub mod append;
pub mod bank;
pub mod bursts;
pub mod counters;
pub mod deletions;
pub mod doors;
pub mod filling;
pub mod histories;
pub mod leases;
pub mod levels;
pub mod listing;
pub mod locks;
pub mod register;
pub mod restores;
mod streams;
pub mod transactions;
pub mod transfers;
pub mod volumes;
pub mod watches;

use std::{
    fmt,
    future::ready,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actors::client::{Client, ClientError, Door};
use cluster::{
    auth::Principal,
    catalog::record::{VolumeKind, VolumePolicy},
    ids::{Epoch, NodeId, ShardId},
    mvcc::version::Hlc,
    ports::network::BoxFuture,
    request::{Answer, Fault, Request, ShardAnswer, ShardBody, ShardRequest, ShardResult},
    units::Instant,
};

use crate::{clock::HostClock, rng::Rng, stage::told, trace::Trace};

/// Longest rest that leisure makes of a shorter one.
const LEISURE_MAX: Duration = Duration::from_secs(4);
/// Time for one machine to answer what no client library asks.
const ANSWER: Duration = Duration::from_secs(1);

/// A kind of work, with what its clients were told so far, as it is written: each part has a
/// clone of it, so state that they share lies behind `Shared`.
pub trait Play: Clone + Send + Sync + fmt::Debug + 'static {
    /// Its name in traces and failures.
    const NAME: &'static str;

    /// How many clients run it at a time.
    fn clients(&self) -> u32;

    /// Takes one step towards the least of its kind: fewer clients, then fewer
    /// keys. False at the end. For a shrinker, before the run.
    fn make_smaller(&mut self) -> bool {
        false
    }

    /// Prepares, before anything goes wrong.
    fn open(self, player: Player) -> impl Future<Output = Result<(), ClientError>> + Send {
        let _ = player;
        ready(Ok(()))
    }

    /// One client's work, until [`Player::is_over`].
    fn work(self, player: Player) -> impl Future<Output = ()> + Send;

    /// Looks at what is there: after the faults (others may still have an
    /// operation under way) and again after all machines lost power. Must
    /// succeed: the world is whole.
    fn look(self, player: Player) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Judges what clients were told, when all is over.
    ///
    /// # Errors
    /// The promise that was broken.
    fn verdict(&self) -> Result<(), String>;
}

/// Any of them, as it is run. Its names are others than those of [`Play`], for each play is one
/// too and a call must say which it means.
pub trait Workload: Send + Sync + fmt::Debug {
    /// See [`Play::NAME`].
    fn name(&self) -> &'static str;

    /// See [`Play::clients`].
    fn clients(&self) -> u32;

    /// See [`Play::make_smaller`].
    fn make_smaller(&mut self) -> bool;

    /// See [`Play::open`].
    fn setup(&self, player: Player) -> BoxFuture<Result<(), ClientError>>;

    /// See [`Play::work`].
    fn run(&self, player: Player) -> BoxFuture<()>;

    /// See [`Play::look`].
    fn observe(&self, player: Player) -> BoxFuture<Result<(), ClientError>>;

    /// See [`Play::verdict`].
    ///
    /// # Errors
    /// The promise that was broken.
    fn check(&self) -> Result<(), String>;
}

impl<P: Play> Workload for P {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn clients(&self) -> u32 {
        Play::clients(self)
    }

    fn make_smaller(&mut self) -> bool {
        Play::make_smaller(self)
    }

    fn setup(&self, player: Player) -> BoxFuture<Result<(), ClientError>> {
        Box::pin(self.clone().open(player))
    }

    fn run(&self, player: Player) -> BoxFuture<()> {
        Box::pin(self.clone().work(player))
    }

    fn observe(&self, player: Player) -> BoxFuture<Result<(), ClientError>> {
        Box::pin(self.clone().look(player))
    }

    fn check(&self) -> Result<(), String> {
        self.verdict()
    }
}

/// What the clients of a workload know and were told.
///
/// A lock, though there is one thread: client tasks must be `Send`.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Shared<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared<u32> {
    /// The next number, from zero: clients that begin take turns by it.
    pub(crate) fn turn(&self) -> u32 {
        let mut turn = self.lock();
        *turn += 1;
        *turn - 1
    }
}

/// The first thing that was seen and must never be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wrong(Option<String>);

impl Wrong {
    /// Passes it on, if there was any.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.0.clone().map_or(Ok(()), Err)
    }
}

/// How an operation ended, as far as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard<T> {
    /// It was done.
    Done(T),
    /// It failed, and may have happened all the same.
    InDoubt,
    /// It did not happen.
    Failed,
}

/// One client at work: the product's client, its chance, and where it notes
/// what it was told.
#[derive(Clone, Debug)]
pub struct Player {
    /// Its number in traces.
    pub number: u32,
    /// The product's client.
    pub client: Client,
    /// Its way to the nodes, for what the client library does not do.
    pub door: Arc<dyn Door>,
    /// Its chance.
    pub rng: Rng,
    /// The volume it works on.
    pub volume: Arc<str>,
    /// The clock of histories: the world's time.
    pub clock: Arc<HostClock>,
    /// The world's trace.
    pub trace: Trace,
    /// Set when work is to end.
    pub over: Arc<AtomicBool>,
    /// How many times longer it rests than its workload says.
    pub leisure: u32,
}

impl Player {
    /// Whether work is to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The world's time.
    pub fn now(&self) -> Instant {
        self.clock.world_now()
    }

    /// Asks as no client library does: the replica of one machine, which must not pass
    /// the question on, or whoever takes it; none if nobody answered.
    pub(crate) async fn ask(
        &self,
        node: Option<NodeId>,
        (shard, epoch): (ShardId, Epoch),
        body: ShardBody,
    ) -> Option<Result<ShardResult, Fault>> {
        let request = Request::Shard(ShardRequest {
            shard,
            epoch,
            clock: Hlc(0),
            timeout_ms: u32::try_from(ANSWER.as_millis()).unwrap_or(u32::MAX),
            forwarded: node.is_some(),
            principal: Principal::Trusted,
            body,
        });
        match self.door.call(node, request.class(), request, ANSWER).await {
            Ok(Answer::Shard(ShardAnswer { result, .. })) => Some(result),
            Ok(_) | Err(_) => None,
        }
    }

    /// Creates a volume of one shard, as the etcd door has.
    pub(crate) async fn create_single(&self, volume: &str) -> Result<(), ClientError> {
        let policy = VolumePolicy::new(VolumeKind::Single, 3, 1);
        self.client.create_volume(volume, policy).await.map(drop)
    }

    /// Notes what the client was told.
    pub fn note(&self, line: &str) {
        self.trace.note(self.now(), &format!("c{} {line}", self.number));
    }

    /// Counts an operation that ended with a known outcome.
    pub fn count_operation(&self) {
        self.trace.count_operation(self.now());
    }

    /// Notes and counts an operation that was done; passes on why it was not.
    ///
    /// # Errors
    /// That of the operation.
    pub fn noted<T>(&self, what: &str, result: Result<T, ClientError>) -> Result<T, ClientError> {
        if result.is_ok() {
            self.note(what);
            self.count_operation();
        }
        result
    }

    /// Notes and counts how an operation ended.
    pub(crate) fn hear<T>(&self, what: &str, result: Result<T, ClientError>) -> Heard<T> {
        match self.noted(what, result) {
            Ok(done) => Heard::Done(done),
            Err(error) if self.failed(what, &error) => Heard::InDoubt,
            Err(_) => Heard::Failed,
        }
    }

    /// Notes what must never be, and keeps the first of it for the judge.
    pub(crate) fn accuse(&self, wrong: &mut Wrong, what: String) {
        self.note(&what);
        wrong.0.get_or_insert(what);
    }

    /// Notes an error, and whether what failed may have happened all the same.
    pub fn failed(&self, what: &str, error: &ClientError) -> bool {
        self.note(&format!("{what} failed: {}", told(error)));
        self.trace.count("client error");
        let in_doubt = may_be_executed(error);
        if in_doubt {
            self.trace.count("unknown outcome");
        }
        in_doubt
    }

    /// Rests for a span within `between`; longer at leisure, but not so long or so
    /// late that work would not end when it is over.
    pub async fn rest(&mut self, between: (Duration, Duration)) {
        let span = self.rng.between(between.0, between.1);
        let leisure = if self.is_over() { 1 } else { self.leisure };
        tokio::time::sleep(span.max(LEISURE_MAX.min(span * leisure))).await;
    }
}

/// The shortest and the longest rest between two operations; the longest is drawn.
pub(crate) fn draw_rest(
    rng: &mut Rng,
    shortest_ms: u64,
    longest_ms: Range<u64>,
) -> (Duration, Duration) {
    let longest_ms = longest_ms.start + rng.below(longest_ms.end - longest_ms.start);
    (Duration::from_millis(shortest_ms), Duration::from_millis(longest_ms))
}

/// Halves a number that stays above zero; false if it is one.
pub(crate) fn halve(number: &mut u32) -> bool {
    let half = number.div_ceil(2);
    std::mem::replace(number, half) != half
}

/// Whether a failed write may have been executed all the same. What the client
/// library says to be certain is taken at its word: the judge finds out.
fn may_be_executed(error: &ClientError) -> bool {
    let certainly_not = matches!(
        error,
        ClientError::NoQuorum { in_doubt: false, .. } | ClientError::Unreachable { .. }
    );
    !certainly_not
}
