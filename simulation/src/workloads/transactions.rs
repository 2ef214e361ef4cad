//! Requests of every kind on a few keys of one store: get, put, delete, ranges of
//! now and of the past, deletes of ranges, and transactions, also nested ones, that
//! compare whatever can be compared. History is let go of meanwhile.
//!
//! What transactions compare is drawn from what a client saw last, so that both
//! branches run. Some read the past, which nodes must refuse wherever the compacted
//! version stands (`past`). Judged by `oracle/keyspace.rs`: there must be one order of
//! all of it in which every answer, whole as it is, is right. Source: etcd's KV API;
//! row A2 of the bug catalogue.

use std::time::Duration;

use actors::client::ClientError;
use cluster::{
    limits::LIST_PAGE_BYTES_MAX,
    mvcc::version::Version,
    request::{Fault, Item, ReadLevel, WriteLevel},
    shard::{
        range::{Range, RangeResult},
        transaction::{Keys, StepResult, Transacted},
    },
    units::Instant,
};

use self::{
    draw::{LEASES, Sight, Taste},
    values::{named, whole},
};
use super::{Play, Player, Shared, draw_rest, halve};
use crate::{
    oracle::keyspace::{self, Answer, Call, Operation},
    rng::Rng,
};

pub(crate) mod draw;
mod past;
mod values;

/// What all keys begin with.
const PREFIX: &str = "all/";
/// Longer than any run: leases are here to be compared, how they end is judged
/// elsewhere.
const LEASE_MS: u64 = 3_600_000;

/// The workload.
#[derive(Clone, Debug)]
pub struct Transactions {
    clients: u32,
    keys: u32,
    rest: (Duration, Duration),
    taste: Taste,
    seen: Shared<Seen>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    /// The version of the store while it was empty.
    begin: Version,
    history: Vec<Operation>,
}

fn volume(player: &Player) -> String {
    format!("{}-transacted", player.volume)
}

impl Transactions {
    /// Clients that share keys.
    pub fn new(clients: u32, keys: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, keys, rest, taste: Taste::Everything, seen: Shared::default() }
    }

    /// The same for the first keys in any order, among values of which some do not fit into
    /// one answer.
    #[must_use]
    pub fn sorting(self) -> Self {
        Self { taste: Taste::SortedRanges, ..self }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..120);
        Self::new(2 + rng.number(3), 2 + rng.number(5), rest)
    }
}

impl Play for Transactions {
    const NAME: &'static str = "transactions";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients) || halve(&mut self.keys)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        let volume = volume(&player);
        player.create_single(&volume).await?;
        for lease in LEASES {
            player.client.grant_lease(&volume, Some(lease), LEASE_MS).await?;
        }
        let nothing = Range::of(Keys::prefix(PREFIX)).count_only();
        let begin = player.client.range(&volume, nothing, ReadLevel::Strong).await?.now;
        self.seen.lock().begin = begin;
        Ok(())
    }

    async fn work(self, mut player: Player) {
        let mut sight = Sight::new(self.taste, self.keys);
        while !player.is_over() {
            let call = sight.draw(&mut player.rng, player.number);
            if let Some(answer) = self.ask(&player, call).await {
                sight.see(&answer);
            }
            player.rest(self.rest).await;
        }
    }

    /// Reads all there is, as of now.
    async fn look(self, player: Player) -> Result<(), ClientError> {
        let call = Call::Range(Range::of(Keys::prefix(PREFIX)).counted());
        let called = player.now();
        let answer = put(&player, &call).await?;
        self.note(&player, call, called, Some(answer));
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let seen = self.seen.lock();
        let verdict = keyspace::check(seen.begin, &seen.history);
        verdict.map(drop).map_err(|violation| violation.to_string())
    }
}

impl Transactions {
    /// Asks, and notes what came of it.
    async fn ask(&self, player: &Player, call: Call) -> Option<Answer> {
        let called = player.now();
        if let Call::Transact(transaction) = &call
            && keyspace::reads_the_past(transaction)
        {
            // It may not happen: who does not hear of it has nothing to note.
            let answer = past::insist(player, transaction).await?;
            player.trace.count("transaction that reads the past");
            self.note(player, call, called, Some(answer));
            return None;
        }
        match put(player, &call).await {
            Ok(answer) => {
                count(player, &call, &answer);
                player.count_operation();
                self.note(player, call, called, Some(answer.clone()));
                Some(answer)
            }
            Err(error) => {
                if player.failed(&call.to_string(), &error) {
                    self.note(player, call, called, None);
                }
                None
            }
        }
    }

    fn note(&self, player: &Player, call: Call, called: Instant, answer: Option<Answer>) {
        let now = player.now();
        let answered = answer.map(|answer| (now, answer));
        let operation = Operation { client: player.number, call, called, answered };
        player.trace.note(now, &operation.to_string());
        self.seen.lock().history.push(operation);
    }
}

/// Asks for what a call says, by whatever the client library has for it.
async fn put(player: &Player, call: &Call) -> Result<Answer, ClientError> {
    let (client, volume) = (&player.client, volume(player));
    match call {
        Call::Get(key) => {
            client.get(&volume, key).await.map(|found| Answer::Item(found.map(plain)))
        }
        Call::Range(range) => past(range_of(player, range.clone()).await),
        Call::Write(ops) => {
            let ops = ops.iter().cloned().map(whole).collect();
            let written = client.write(&volume, ops, WriteLevel::Strong).await?;
            let version = written.version.unwrap_or_default();
            Ok(Answer::Written { version, deleted: written.deleted })
        }
        Call::DeleteRange(keys) => {
            let gone = client.delete_range(&volume, keys.clone(), true).await?;
            let previous = gone.previous.into_iter().map(plain).collect();
            Ok(Answer::Deleted { version: gone.version, count: gone.count, previous })
        }
        Call::Transact(transaction) => match client.transact(&volume, transaction.clone()).await {
            Ok(done) => Ok(Answer::Transacted(plain_done(done))),
            Err(ClientError::AnswerLost { version, succeeded }) => {
                Ok(Answer::Transacted(Transacted {
                    version,
                    succeeded,
                    changed: true,
                    results: None,
                }))
            }
            Err(ClientError::BadTransaction(error)) => Ok(Answer::Refused(error)),
            Err(error) => Err(error),
        },
        Call::Compact(version) => {
            past(client.compact(&volume, *version).await.map(|_| Answer::Compacted))
        }
    }
}

async fn range_of(player: &Player, range: Range) -> Result<Answer, ClientError> {
    let is_cut = range.is_sorted_and_cut();
    let read = player.client.range(&volume(player), range, ReadLevel::Strong).await?;
    if is_cut && read.result.more {
        player.trace.count("sorted range cut");
        let values = read.result.items.iter().map(|item| item.value.len());
        // What fits goes as one answer, and that may end with a larger value.
        if values.rev().skip(1).sum::<usize>() >= LIST_PAGE_BYTES_MAX {
            player.trace.count("sorted range of several answers");
        }
    }
    Ok(Answer::Range { result: plain_range(read.result), at: read.at, now: read.now })
}

/// That a version cannot be read, or let go of, is an answer too.
fn past(outcome: Result<Answer, ClientError>) -> Result<Answer, ClientError> {
    match outcome {
        Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
            Ok(Answer::Gone(compacted))
        }
        Err(ClientError::Fault { fault: Fault::NoSuchVersion(_), .. }) => Ok(Answer::Future),
        other @ (Ok(_) | Err(_)) => other,
    }
}

/// An item without the time of a wall, and with the name of a large value in its place.
fn plain(item: Item) -> Item {
    named(Item { modified_ms: 0, ..item })
}

fn plain_range(result: RangeResult) -> RangeResult {
    RangeResult { items: result.items.into_iter().map(plain).collect(), ..result }
}

fn plain_done(done: Transacted) -> Transacted {
    let results = done.results.map(|all| all.into_iter().map(plain_step).collect());
    Transacted { results, ..done }
}

fn plain_step(result: StepResult) -> StepResult {
    match result {
        StepResult::Put { previous } => StepResult::Put { previous: previous.map(plain) },
        StepResult::Deleted { count, previous } => {
            StepResult::Deleted { count, previous: previous.into_iter().map(plain).collect() }
        }
        StepResult::Read(result) => StepResult::Read(plain_range(result)),
        nested @ StepResult::Nested { .. } => nested,
    }
}

/// Counts what shows that a run met what it is for.
fn count(player: &Player, call: &Call, answer: &Answer) {
    let name = match (call, answer) {
        (Call::Transact(_), Answer::Transacted(done)) => {
            let nested = |result: &StepResult| matches!(result, StepResult::Nested { .. });
            if done.results.iter().flatten().any(nested) {
                player.trace.count("transaction in a transaction");
            }
            if done.succeeded { "compares held" } else { "compares failed" }
        }
        (_, Answer::Refused(_)) => "transaction refused",
        (Call::DeleteRange(_), Answer::Deleted { count: 1.., .. }) => "range deleted",
        (Call::Range(Range { at: Some(_), .. }), Answer::Range { .. }) => "past read",
        (Call::Range(_), Answer::Gone(_)) => "past compacted",
        (Call::Compact(_), Answer::Compacted) => "compacted",
        (_, _) => return,
    };
    player.trace.count(name);
}
