//! Keys that end in every way a key can end, and readers that ask each machine
//! alone whether anything came back.
//!
//! Makers put a few keys, let them live for a while, have them deleted one by one,
//! as a range, by a transaction, with a lease that is revoked or with one that is
//! over, and let go of the history. Keys are used again, values never. Readers ask
//! one machine after the other, which must answer from its own replica: a range, a
//! list, a key that is gone, and a watch. `Lives` judges what all were shown.
//! Source: row A5 of the bug catalogue.

use std::{collections::BTreeMap, time::Duration};

use actors::client::ClientError;
use cluster::{
    ids::{Epoch, LeaseId, NodeId, ShardId},
    mvcc::version::Version,
    request::{Fault, Item, ReadLevel, ShardBody, ShardResult},
    shard::{
        range::Range,
        transaction::{Keys, Put, Step, Transaction},
        watch::{EventKind, Events, Place, Watch},
    },
};

use super::{Play, Player, Shared, Wrong, halve};
use crate::oracle::lives::Lives;

/// What all keys begin with.
const PREFIX: &str = "gone/";
/// Keys that live and end together.
const LITTER: u32 = 3;
/// How long they live: some as long as a store takes to hold them for certain.
const LIFE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(12));
/// Time of a lease that is revoked, which must not be over before.
const LONG: Duration = Duration::from_mins(2);
/// Most keys a list brings: all there are.
const LISTED: u32 = 1_000;
/// Times a machine of a whole world is asked until it has come along, and the
/// pause between two.
const TRIES_MAX: u32 = 100;
const PAUSE: Duration = Duration::from_millis(250);

/// The workload.
#[derive(Clone, Debug)]
pub struct Deletions {
    makers: u32,
    readers: u32,
    rest: (Duration, Duration),
    /// Clients that began.
    begun: Shared<u32>,
    seen: Shared<Seen>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    lives: Lives,
    wrong: Wrong,
}

/// How keys end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    OneByOne,
    AsRange,
    ByTransaction,
    LeaseRevoked,
    LeaseOver,
}

/// Keys that live and end together, with the values of this life.
#[derive(Debug)]
struct Litter {
    prefix: String,
    keys: Vec<(String, String)>,
}

/// Where the keys are.
#[derive(Clone, Debug)]
struct Home {
    shard: ShardId,
    epoch: Epoch,
    nodes: Vec<NodeId>,
}

impl Home {
    async fn ask(
        &self,
        player: &Player,
        node: NodeId,
        body: ShardBody,
    ) -> Option<Result<ShardResult, Fault>> {
        player.ask(Some(node), (self.shard, self.epoch), body).await
    }
}

fn volume(player: &Player) -> String {
    format!("{}-deleted", player.volume)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Way {
    const ALL: [(Self, &'static str); 5] = [
        (Self::OneByOne, "gone one by one"),
        (Self::AsRange, "gone as a range"),
        (Self::ByTransaction, "gone by a transaction"),
        (Self::LeaseRevoked, "gone with a lease revoked"),
        (Self::LeaseOver, "gone with a lease that was over"),
    ];
}

impl Litter {
    /// Of a plot nobody else uses; its keys are the same in every life.
    fn new(plot: &str, life: u32) -> Self {
        let prefix = format!("{PREFIX}{plot}/");
        let keys = (0..LITTER).map(|number| {
            let key = format!("{prefix}{number}");
            let value = format!("{key}#{life}");
            (key, value)
        });
        Self { keys: keys.collect(), prefix }
    }
}

impl Deletions {
    /// Clients that make keys and have them deleted, and clients that read.
    pub fn new(makers: u32, readers: u32, rest: (Duration, Duration)) -> Self {
        Self { makers, readers, rest, begun: Shared::default(), seen: Shared::default() }
    }

    fn accuse(&self, player: &Player, what: String) {
        player.accuse(&mut self.seen.lock().wrong, what);
    }
}

impl Play for Deletions {
    const NAME: &'static str = "deletions";

    fn clients(&self) -> u32 {
        self.makers + self.readers
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.makers) || halve(&mut self.readers)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        player.create_single(&volume(&player)).await
    }

    async fn work(self, player: Player) {
        let makes = self.begun.turn() < self.makers;
        if makes { self.make(player).await } else { self.tour(player).await }
    }

    /// Sees every machine come to where the leader stands, with nothing of old.
    async fn look(self, mut player: Player) -> Result<(), ClientError> {
        let all = Range::of(Keys::prefix(PREFIX));
        let read = player.client.range(&volume(&player), all, ReadLevel::Strong).await?;
        self.shown(&read.result.items, read.at, "a strong range");
        let Some(home) = find(&player).await? else { return Ok(()) };
        for node in home.nodes.clone() {
            let (mut place, mut tries, mut at) = (Place::before(read.at), 0, Version(0));
            while at < read.at && tries < TRIES_MAX {
                at = self.visit(&mut player, &home, node, &mut place).await.unwrap_or_default();
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            if at < read.at {
                self.accuse(&player, format!("{node} stands at {at}, not at {}", read.at));
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let seen = self.seen.lock();
        seen.wrong.verdict()?;
        seen.lives.check()
    }
}

impl Deletions {
    async fn make(&self, mut player: Player) {
        let mut plot = 0_u32;
        let mut life = 0_u32;
        while !player.is_over() {
            life += 1;
            let litter = Litter::new(&format!("{}-{plot}", player.number), life);
            if let Err(error) = self.raise(&mut player, &litter).await {
                player.failed(&format!("raise {} for life {life}", litter.prefix), &error);
                // What is in doubt may happen late: it must not meet a later life.
                plot += 1;
            }
            player.rest(self.rest).await;
        }
    }

    /// Lets keys live, end, and at times go from the history.
    async fn raise(&self, player: &mut Player, litter: &Litter) -> Result<(), ClientError> {
        let volume = volume(player);
        let Some((way, how)) = player.rng.pick(&Way::ALL).copied() else { return Ok(()) };
        let ttl = match way {
            Way::LeaseOver => Some(player.rng.between(LIFE.0 * 3, LIFE.1)),
            Way::LeaseRevoked => Some(LONG),
            Way::OneByOne | Way::AsRange | Way::ByTransaction => None,
        };
        let lease = match ttl.and_then(|ttl| u64::try_from(ttl.as_millis()).ok()) {
            Some(ttl_ms) => player.client.grant_lease(&volume, None, ttl_ms).await?.lease,
            None => LeaseId(0),
        };
        for (key, value) in &litter.keys {
            let put = Put::new(key.as_str(), value.as_str()).under(lease);
            player.client.put_as(&volume, put).await?;
            player.count_operation();
        }
        if way != Way::LeaseOver {
            live(player).await;
        }
        if let Some(version) = self.end(player, way, (litter, lease)).await? {
            self.ended(litter, version);
        }
        let Some(gone) = self.await_end(player, litter, way == Way::LeaseOver).await? else {
            return Ok(());
        };
        self.ended(litter, gone);
        player.note(&format!("{} {how} at {gone}", litter.prefix));
        player.trace.count(how);
        if player.rng.chance(500_000) { self.compact(player, gone).await } else { Ok(()) }
    }

    fn ended(&self, litter: &Litter, version: Version) {
        let mut seen = self.seen.lock();
        for (_, value) in &litter.keys {
            seen.lives.end(value, version);
        }
    }

    /// Has keys deleted; since when they are gone, if that is told.
    async fn end(
        &self,
        player: &Player,
        way: Way,
        (litter, lease): (&Litter, LeaseId),
    ) -> Result<Option<Version>, ClientError> {
        let (client, volume) = (&player.client, volume(player));
        let (version, count) = match way {
            Way::OneByOne => {
                let (mut version, mut count) = (Version(0), 0);
                for (key, _) in &litter.keys {
                    let gone = client.delete(&volume, key).await?;
                    version = version.max(gone.version.unwrap_or_default());
                    count += gone.deleted;
                }
                (version, count)
            }
            Way::AsRange => {
                let keys = Keys::prefix(litter.prefix.as_str());
                let gone = client.delete_range(&volume, keys, false).await?;
                (gone.version, gone.count)
            }
            Way::ByTransaction => {
                let delete = |all: Transaction, (key, _): &(String, String)| {
                    all.then(Step::delete(key.as_str()))
                };
                let all = litter.keys.iter().fold(Transaction::new(), delete);
                (client.transact(&volume, all).await?.version, LITTER)
            }
            Way::LeaseRevoked => client.revoke_lease(&volume, lease).await?,
            Way::LeaseOver => return Ok(None),
        };
        player.count_operation();
        if count != LITTER {
            let told = format!("{count} of {LITTER} keys were deleted of {}", litter.prefix);
            self.accuse(player, told);
        }
        Ok(Some(version))
    }

    /// Reads until all keys are gone; at which version they were. None if work is
    /// over first. Who is not to wait reads once.
    async fn await_end(
        &self,
        player: &mut Player,
        litter: &Litter,
        waits: bool,
    ) -> Result<Option<Version>, ClientError> {
        let all = Range::of(Keys::prefix(litter.prefix.as_str()));
        loop {
            let volume = volume(player);
            let read = player.client.range(&volume, all.clone(), ReadLevel::Strong).await?;
            player.count_operation();
            self.shown(&read.result.items, read.at, "a strong range");
            if read.result.items.is_empty() || !waits {
                return Ok(Some(read.at));
            }
            if player.is_over() {
                return Ok(None);
            }
            player.rest((PAUSE, PAUSE * 2)).await;
        }
    }

    async fn compact(&self, player: &Player, version: Version) -> Result<(), ClientError> {
        match player.client.compact(&volume(player), version).await {
            Ok(_) => {
                player.trace.count("compacted");
                Ok(())
            }
            Err(ClientError::Fault { fault: Fault::Compacted { .. }, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn shown(&self, items: &[Item], at: Version, whence: &str) {
        let mut seen = self.seen.lock();
        for item in items {
            seen.lives.show(&text(&item.value), at, item.changes, whence);
        }
    }

    /// Goes from machine to machine.
    async fn tour(&self, mut player: Player) {
        let mut home = None;
        let mut places = BTreeMap::new();
        let mut turn = 0;
        while !player.is_over() {
            if home.is_none() {
                match find(&player).await {
                    Ok(found) => home = found,
                    Err(error) => {
                        player.failed("find where the keys are", &error);
                    }
                }
            }
            turn += 1;
            if let Some(known) = &home
                && let Some(node) = known.nodes.get(turn % known.nodes.len().max(1)).copied()
            {
                let place = places.entry(node).or_default();
                if self.visit(&mut player, known, node, place).await.is_none() {
                    home = None;
                }
            }
            player.rest(self.rest).await;
        }
    }

    /// Asks one machine everything; the version it stands at.
    async fn visit(
        &self,
        player: &mut Player,
        home: &Home,
        node: NodeId,
        place: &mut Place,
    ) -> Option<Version> {
        let all = Range::of(Keys::prefix(PREFIX));
        let body = ShardBody::Range { range: all, level: ReadLevel::Eventual };
        let Ok(ShardResult::Range { result, at, .. }) = home.ask(player, node, body).await? else {
            return None;
        };
        player.count_operation();
        self.shown(&result.items, at, &format!("a range of {node}"));
        self.list(player, home, node, at).await?;
        self.get(player, home, node, at).await?;
        self.watch(player, home, node, place).await?;
        player.trace.count("machine read alone");
        Some(at)
    }

    /// A list as of a version, which may be compacted by now.
    async fn list(&self, player: &Player, home: &Home, node: NodeId, at: Version) -> Option<()> {
        let (prefix, level) = (PREFIX.as_bytes().to_vec(), ReadLevel::Eventual);
        let (after, limit, at, values) = (None, LISTED, Some(at), true);
        let body = ShardBody::List { prefix, after, limit, level, at, values };
        if let Ok(ShardResult::Page { items, at, .. }) = home.ask(player, node, body).await? {
            self.shown(&items, at, &format!("a list of {node}"));
        }
        Some(())
    }

    /// A key of a life that ended, as of a version.
    async fn get(&self, player: &mut Player, home: &Home, node: NodeId, at: Version) -> Option<()> {
        let key = {
            let seen = self.seen.lock();
            let draw = player.rng.index(seen.lives.ended());
            let value = seen.lives.one_ended(draw);
            value.and_then(|value| value.split('#').next().map(|key| key.as_bytes().to_vec()))
        };
        let Some(key) = key else { return Some(()) };
        let level = ReadLevel::Eventual;
        let body = ShardBody::Get { key, level, at: Some(at), head_only: false };
        if let Ok(ShardResult::Value(Some(item))) = home.ask(player, node, body).await? {
            self.shown(&[item], at, &format!("a read of {node}"));
        }
        Some(())
    }

    /// What happened since a machine was asked last.
    async fn watch(
        &self,
        player: &Player,
        home: &Home,
        node: NodeId,
        place: &mut Place,
    ) -> Option<()> {
        let watch = Watch::of(Keys::prefix(PREFIX)).with_previous();
        let body = ShardBody::Watch { watch, after: *place, wait_ms: 0 };
        match home.ask(player, node, body).await? {
            Ok(ShardResult::Events(events)) => {
                *place = (*place).max(events.upto);
                self.told(player, node, events);
            }
            Err(Fault::Compacted { compacted, .. }) => *place = Place::before(compacted),
            Ok(_) | Err(_) => {}
        }
        Some(())
    }

    /// A life shown as the past of a change was there until just before it.
    fn told(&self, player: &Player, node: NodeId, events: Events) {
        let whence = format!("a watch of {node}");
        for event in events.events {
            player.trace.count("watch event");
            let at = event.item.modified;
            if event.kind == EventKind::Put {
                self.shown(&[event.item], at, &whence);
            }
            if let Some(previous) = event.previous {
                let until = Version(at.0.saturating_sub(1));
                let value = text(&previous.value);
                self.seen.lock().lives.show_last(&value, until, &whence);
                if event.kind == EventKind::Put {
                    self.accuse(player, format!("{whence}: before a new life there was {value}"));
                }
            }
        }
    }
}

/// Lets keys live for a while, but not longer than there is work.
async fn live(player: &mut Player) {
    let end = player.now() + player.rng.between(LIFE.0, LIFE.1);
    while player.now() < end && !player.is_over() {
        tokio::time::sleep(PAUSE).await;
    }
}

async fn find(player: &Player) -> Result<Option<Home>, ClientError> {
    let view = player.client.show_volume(&volume(player)).await?;
    let nodes = player.client.nodes().await?.iter().map(|record| record.node).collect();
    let home = |shard: &cluster::shard::descriptor::ShardDescriptor| Home {
        shard: shard.shard,
        epoch: shard.epoch,
        nodes,
    };
    Ok(view.shards.first().map(home))
}
