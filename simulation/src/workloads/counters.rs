//! Counters that each have one owner, which counts by blind writes: exactly
//! once, seen in how often its key was changed.
//!
//! An acknowledged write changes its key once, one in doubt at most once; a
//! retry that is executed again changes it once more. Now and then a client
//! opens so many sessions that its own is evicted, or rests so long that it
//! expires: what was under way is then in doubt, and nothing is counted twice.
//! Sources: Raft dissertation §6.3; the bug catalogue's A4.

use std::{collections::BTreeMap, time::Duration};

use actors::client::ClientError;
use cluster::{
    auth::Principal,
    ids::NodeId,
    limits::SESSIONS_PER_SHARD_MAX,
    mvcc::version::Hlc,
    request::{Request, ShardBody, ShardRequest},
    routing::shard_of,
};

use super::{Heard, Play, Player, Shared, draw_rest, halve};
use crate::rng::Rng;

/// Time for a session to be opened.
const OPENING: Duration = Duration::from_secs(3);
/// Sessions opened at a time, through all nodes: more than a replica lets wait.
const OPENED_TOGETHER: usize = SESSIONS_PER_SHARD_MAX + 400;

/// The workload.
#[derive(Clone, Debug)]
pub struct Counters {
    clients: u32,
    rest: (Duration, Duration),
    /// Chance of an eviction before a write, in a million.
    evict_ppm: u32,
    /// How long the last client rests between two writes, if it does.
    nap: Option<Duration>,
    /// Whether a client has two writes under way at a time.
    paired: bool,
    seen: Shared<BTreeMap<String, Counter>>,
}

/// What is known of one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counter {
    acknowledged: u64,
    in_doubt: u64,
    /// How often its key was changed when it was read last.
    changes: u64,
}

impl Counters {
    /// Clients that never lose a session by their own doing.
    pub fn new(clients: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, rest, evict_ppm: 0, nap: None, paired: false, seen: Shared::default() }
    }

    /// Clients that have their sessions evicted, with this chance per write.
    #[must_use]
    pub fn evicting(self, evict_ppm: u32) -> Self {
        Self { evict_ppm, ..self }
    }

    /// The last client rests so long between two writes.
    #[must_use]
    pub fn napping(self, nap: Duration) -> Self {
        Self { nap: Some(nap), ..self }
    }

    /// Clients that have two writes under way at a time, in one session.
    #[must_use]
    pub fn paired(self) -> Self {
        Self { paired: true, ..self }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..120);
        let evict_ppm = if rng.chance(100_000) { 2_000 } else { 0 };
        Self::new(1 + rng.number(3), rest).evicting(evict_ppm)
    }
}

impl Play for Counters {
    const NAME: &'static str = "counters";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients)
    }

    async fn work(self, mut player: Player) {
        let key = format!("counter-{}", player.number);
        let naps = {
            let mut seen = self.seen.lock();
            seen.insert(key.clone(), Counter::default());
            seen.len() == usize::try_from(self.clients).unwrap_or(0)
        };
        let mut number = 0_u64;
        while !player.is_over() {
            if player.rng.chance(self.evict_ppm) {
                evict(&player, &key).await;
            }
            number += 2;
            if self.paired {
                tokio::join!(
                    self.count(&player, &key, number - 1),
                    self.count(&player, &key, number)
                );
            } else {
                self.count(&player, &key, number).await;
            }
            if let Some(nap) = self.nap.filter(|_| naps) {
                doze(&player, nap).await;
            }
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        let keys: Vec<String> = self.seen.lock().keys().cloned().collect();
        for key in keys {
            let item = player.client.get(&player.volume, &key).await;
            let item = player.noted(&format!("look at {key}"), item)?;
            let changes = item.map_or(0, |item| item.changes);
            self.seen.lock().entry(key).or_default().changes = changes;
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        self.seen.lock().iter().try_for_each(|(key, counter)| counter.check(key))
    }
}

impl Counters {
    async fn count(&self, player: &Player, key: &str, number: u64) {
        let write = player.client.put(&player.volume, key, number.to_le_bytes()).await;
        let heard = player.hear(&format!("count {key} to {number}"), write);
        self.note(key, &heard);
    }

    fn note<T>(&self, key: &str, heard: &Heard<T>) {
        let mut seen = self.seen.lock();
        let counter = seen.entry(key.to_owned()).or_default();
        match heard {
            Heard::Done(_) => counter.acknowledged += 1,
            Heard::InDoubt => counter.in_doubt += 1,
            Heard::Failed => {}
        }
    }
}

/// Opens more sessions in a key's shard than it keeps: those of all clients go.
async fn evict(player: &Player, key: &str) {
    let Ok(view) = player.client.show_volume(&player.volume).await else { return };
    let home = shard_of(&view.shards, key.as_bytes());
    let Some((shard, epoch)) = home.map(|home| (home.shard, home.epoch)) else { return };
    player.note("opens many sessions");
    player.trace.count("eviction");
    let Ok(nodes) = player.client.nodes().await else { return };
    let nodes: Vec<NodeId> = nodes.iter().map(|record| record.node).collect();
    let open = |number: usize| {
        let request = Request::Shard(ShardRequest {
            shard,
            epoch,
            clock: Hlc(0),
            timeout_ms: u32::try_from(OPENING.as_millis()).unwrap_or(u32::MAX),
            forwarded: false,
            principal: Principal::Trusted,
            body: ShardBody::OpenSession,
        });
        let node = nodes.get(number % nodes.len().max(1)).copied();
        player.door.call(node, request.class(), request, OPENING)
    };
    for _ in 0..2 {
        let wave: Vec<_> = (0..OPENED_TOGETHER).map(|number| tokio::spawn(open(number))).collect();
        for one in wave {
            // Whatever becomes of one, the others do.
            drop(one.await);
        }
    }
}

/// Sleeps for so long, unless work is to end.
async fn doze(player: &Player, nap: Duration) {
    let end = player.now() + nap;
    while player.now() < end && !player.is_over() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Counter {
    fn check(self, key: &str) -> Result<(), String> {
        let Self { acknowledged, in_doubt, changes } = self;
        if (acknowledged..=acknowledged + in_doubt).contains(&changes) {
            return Ok(());
        }
        Err(format!(
            "{key} was changed {changes} times by {acknowledged} writes and {in_doubt} in doubt"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_executed_twice_and_one_that_is_gone_are_found() {
        let counter = |changes| Counter { acknowledged: 5, in_doubt: 2, changes };
        for changes in 5..=7 {
            assert_eq!(counter(changes).check("key"), Ok(()));
        }
        assert!(counter(8).check("key").is_err());
        assert!(counter(4).check("key").is_err());
    }
}
