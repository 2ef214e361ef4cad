//! Clients that put many keys at once, all of them at the same time: more than one
//! replica lets wait.
//!
//! Judged: what was acknowledged is there; that queues stay bounded meanwhile is
//! a checker's. Source: row O1 of the bug catalogue.

use std::{collections::BTreeMap, time::Duration};

use actors::client::ClientError;
use futures_util::future::join_all;

use super::{Heard, Play, Player, Shared, Wrong, halve};

/// From one burst to the next.
const EVERY_MS: u64 = 8_000;

/// The workload.
#[derive(Clone, Debug)]
pub struct Bursts {
    clients: u32,
    /// Keys put at once by one client.
    keys: u32,
    seen: Shared<Seen>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    /// What each key holds; none once a write of it was in doubt.
    held: BTreeMap<String, Option<u32>>,
    wrong: Wrong,
}

impl Bursts {
    /// Clients that put so many keys each at a time.
    pub fn new(clients: u32, keys: u32) -> Self {
        Self { clients, keys, seen: Shared::default() }
    }
}

impl Play for Bursts {
    const NAME: &'static str = "bursts";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients)
    }

    async fn work(self, player: Player) {
        for number in 0_u32.. {
            if player.is_over() {
                break;
            }
            player.trace.count("burst");
            join_all((0..self.keys).map(|key| self.put(&player, key, number))).await;
            let past = player.now().as_nanos() / 1_000_000 % EVERY_MS;
            tokio::time::sleep(Duration::from_millis(EVERY_MS - past)).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        let held = self.seen.lock().held.clone();
        for (key, wanted) in held {
            let Some(wanted) = wanted else { continue };
            let item = player.client.get(&player.volume, &key).await?;
            let found = item.map(|item| item.value);
            if found.as_deref() != Some(&wanted.to_le_bytes()[..]) {
                let what = format!("{key} is {found:?}, not {wanted}");
                player.accuse(&mut self.seen.lock().wrong, what);
            }
        }
        player.count_operation();
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        self.seen.lock().wrong.verdict()
    }
}

impl Bursts {
    async fn put(&self, player: &Player, key: u32, number: u32) {
        let key = format!("burst-{}-{key}", player.number);
        let value = number.to_le_bytes().to_vec();
        // Of a write under way nothing is claimed.
        let before = self.seen.lock().held.remove(&key);
        let put = player.client.put(&player.volume, &key, value).await;
        let holds = match player.hear(&format!("put {key}"), put) {
            // A write in doubt may still happen after this one.
            Heard::Done(_) if before != Some(None) => Some(Some(number)),
            Heard::Failed => before,
            Heard::Done(_) | Heard::InDoubt => Some(None),
        };
        self.seen.lock().held.extend(holds.map(|holds| (key, holds)));
    }
}
