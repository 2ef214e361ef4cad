//! Clients that put and delete keys of their own under one prefix, and others
//! that list it: page by page, sometimes with a pause, sometimes going on from
//! a token in a new list.
//!
//! Judged by `oracle/listing.rs`.

use std::{collections::BTreeMap, time::Duration};

use actors::client::{ClientError, ListOptions, Listing};
use cluster::{request::ReadLevel, routing::Cursor, units::Instant};

use super::{Play, Player, Shared, draw_rest};
use crate::{
    oracle::listing::{self, Life, Listed, Window},
    rng::Rng,
};

/// What all keys begin with; other workloads use other prefixes.
const PREFIX: &str = "list/";
/// Keys a client leaves before it deletes more than it puts.
const KEYS_MAX: usize = 40;

/// The workload.
#[derive(Clone, Debug)]
pub struct Listings {
    writers: u32,
    listers: u32,
    page: usize,
    rest: (Duration, Duration),
    /// Clients that have begun: the first ones write.
    begun: Shared<u32>,
    seen: Shared<Seen>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    lives: BTreeMap<String, Life>,
    lists: Vec<Listed>,
}

impl Listings {
    /// Clients that put and clients that list, pages of `page` keys.
    pub fn new(writers: u32, listers: u32, page: usize, rest: (Duration, Duration)) -> Self {
        Self { writers, listers, page, rest, begun: Shared::default(), seen: Shared::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let page = if rng.chance(500_000) { 1 + rng.index(10) } else { 1_000 };
        let rest = draw_rest(rng, 5, 20..120);
        Self::new(1 + rng.number(3), 1 + rng.number(2), page, rest)
    }
}

impl Play for Listings {
    const NAME: &'static str = "listings";

    fn clients(&self) -> u32 {
        self.writers + self.listers
    }

    async fn work(self, player: Player) {
        let writes = self.begun.turn() < self.writers;
        if writes { self.write(player).await } else { self.list_again(player).await }
    }

    async fn look(self, mut player: Player) -> Result<(), ClientError> {
        self.list(&mut player, ReadLevel::Strong).await
    }

    fn verdict(&self) -> Result<(), String> {
        let seen = self.seen.lock();
        listing::check(&seen.lives, &seen.lists)
    }
}

impl Listings {
    async fn write(self, mut player: Player) {
        let mut alive: Vec<String> = Vec::new();
        let mut made = 0_u32;
        while !player.is_over() {
            let full = alive.len() >= KEYS_MAX;
            if !alive.is_empty() && (full || player.rng.chance(300_000)) {
                let key = alive.swap_remove(player.rng.index(alive.len()));
                self.delete(&player, &key).await;
            } else {
                made += 1;
                // The first letters are drawn, so that new keys fall anywhere.
                let key = format!("{PREFIX}{:02}-{}-{made}", player.rng.below(100), player.number);
                if self.put(&player, &key).await {
                    alive.push(key);
                }
            }
            player.rest(self.rest).await;
        }
    }

    /// Puts a key; whether it is known to be there.
    async fn put(&self, player: &Player, key: &str) -> bool {
        let called = player.now();
        let put = Window { called, returned: None };
        let life = Life { client: player.number, put, deleted: None };
        // Noted before it is answered: a list may show it first.
        self.seen.lock().lives.insert(key.to_owned(), life);
        let outcome = player.client.put(&player.volume, key, key).await;
        let returned = ended(player, "put", key, outcome.map(|_| ()));
        if let Some(life) = self.seen.lock().lives.get_mut(key) {
            life.put.returned = returned;
        }
        returned.is_some()
    }

    async fn delete(&self, player: &Player, key: &str) {
        let deleted = Window { called: player.now(), returned: None };
        if let Some(life) = self.seen.lock().lives.get_mut(key) {
            life.deleted = Some(deleted);
        }
        let outcome = player.client.delete(&player.volume, key).await;
        let returned = ended(player, "delete", key, outcome.map(|_| ()));
        if let Some(life) = self.seen.lock().lives.get_mut(key) {
            life.deleted = Some(Window { returned, ..deleted });
        }
    }

    async fn list_again(self, mut player: Player) {
        while !player.is_over() {
            let level = match player.rng.below(4) {
                0 => ReadLevel::Eventual,
                _ => ReadLevel::Strong,
            };
            if let Err(error) = self.list(&mut player, level).await {
                player.failed("list", &error);
            }
            player.rest((self.rest.0 * 4, self.rest.1 * 4)).await;
        }
    }

    /// One list, from beginning to end.
    async fn list(&self, player: &mut Player, level: ReadLevel) -> Result<(), ClientError> {
        let began = player.now();
        let mut keys = Vec::new();
        let mut stood = None;
        let mut listing = self.listing(player, level, None);
        let mut pages = 0_u32;
        while let Some(page) = listing.next_page().await? {
            pages += 1;
            stood.get_or_insert_with(|| player.now());
            let text = |key: Vec<u8>| String::from_utf8_lossy(&key).into_owned();
            keys.extend(page.items.into_iter().map(|item| text(item.key)));
            let Some(next) = page.next else { break };
            if player.rng.chance(200_000) {
                player.rest((Duration::ZERO, Duration::from_millis(300))).await;
            }
            if player.rng.chance(200_000) {
                player.trace.count("list resumed");
                let token = next.to_token();
                listing = self.listing(player, level, Cursor::from_token(&token).ok());
            }
        }
        let (count, stood) = (keys.len(), stood.unwrap_or_else(|| player.now()));
        player.note(&format!("listed {count} keys in {pages} pages, {level:?}"));
        player.count_operation();
        if pages > 1 {
            player.trace.count("list of several pages");
        }
        let strong = level == ReadLevel::Strong;
        self.seen.lock().lists.push(Listed { client: player.number, keys, began, stood, strong });
        Ok(())
    }

    fn listing(&self, player: &Player, level: ReadLevel, from: Option<Cursor>) -> Listing {
        let options = ListOptions { page: self.page, level, from, ..ListOptions::default() };
        player.client.list(&player.volume, PREFIX, options)
    }
}

/// Notes how a change ended; when, if its outcome is known.
fn ended(
    player: &Player,
    verb: &str,
    key: &str,
    outcome: Result<(), ClientError>,
) -> Option<Instant> {
    match outcome {
        Ok(()) => {
            player.note(&format!("{verb} {key}"));
            player.count_operation();
            Some(player.now())
        }
        Err(error) => {
            player.failed(&format!("{verb} {key}"), &error);
            None
        }
    }
}
