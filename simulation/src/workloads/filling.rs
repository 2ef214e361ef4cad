//! Clients that write large values until disks, or stores with a limit, are full, then
//! delete to write on.
//!
//! Judged: what was acknowledged and not deleted is there, whole, however full
//! they were; deleting makes room by itself, within a stated time; and the
//! room is real: a put that was admitted after it is kept.
//! Source: row D13 of the bug catalogue, and four bugs of ours that only real
//! full disks had shown.

use std::{collections::BTreeMap, time::Duration};

use actors::client::ClientError;
use cluster::{request::Fault, units::Instant};

use super::{Heard, Play, Player, Shared, Wrong, halve};

/// Bytes of a value: some of them fill what an overlay may hold back.
const VALUE_BYTES: usize = 384 << 10;
/// Time in which deletes must have made room: old versions stay for five
/// seconds here, then they are swept. A leader change may fall into it.
const ROOM_WITHIN: Duration = Duration::from_secs(40);
/// Pause between tries of who waits for room.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1_500));

/// The workload.
#[derive(Clone, Debug)]
pub struct Fillings {
    clients: u32,
    rest: (Duration, Duration),
    seen: Shared<Seen>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    /// Keys that are there for certain, and what fills their values.
    held: BTreeMap<String, u8>,
    wrong: Wrong,
}

impl Fillings {
    /// Clients that fill disks together.
    pub fn new(clients: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, rest, seen: Shared::default() }
    }
}

impl Play for Fillings {
    const NAME: &'static str = "fillings";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients)
    }

    async fn work(self, mut player: Player) {
        let mut waits: Option<Instant> = None;
        for number in 0_u32.. {
            if player.is_over() {
                break;
            }
            let key = format!("fill-{}-{number}", player.number);
            let refused = self.put(&player, &key, number.to_le_bytes()[0]).await;
            waits = match (refused, waits) {
                (false, None) => None,
                (false, Some(_)) => {
                    player.trace.count("room again");
                    None
                }
                (true, None) => {
                    player.trace.count("put refused for room");
                    self.delete_most(&player).await;
                    Some(player.now())
                }
                (true, Some(since)) => {
                    self.judge_wait(&player, since);
                    player.rest(LOOK).await;
                    Some(since)
                }
            };
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        let held = self.seen.lock().held.clone();
        for (key, fill) in held {
            let item = player.client.get(&player.volume, &key).await?;
            player.count_operation();
            let value = item.map(|item| item.value);
            let whole = |value: &Vec<u8>| {
                value.len() == VALUE_BYTES && value.iter().all(|byte| *byte == fill)
            };
            // Whoever deletes to have room again may not be done yet.
            let claimed = self.seen.lock().held.contains_key(&key);
            if claimed && !value.as_ref().is_some_and(whole) {
                let there = value.map_or_else(|| "gone".into(), |v| format!("{} bytes", v.len()));
                player.accuse(&mut self.seen.lock().wrong, format!("{key} is {there}"));
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        self.seen.lock().wrong.verdict()
    }
}

impl Fillings {
    fn judge_wait(&self, player: &Player, since: Instant) {
        let waited = player.now().since(since);
        if waited > ROOM_WITHIN {
            let what = format!("no room {} s after keys were deleted", waited.as_secs());
            player.accuse(&mut self.seen.lock().wrong, what);
        }
    }

    /// Writes a value; whether it was refused because a disk is full.
    async fn put(&self, player: &Player, key: &str, fill: u8) -> bool {
        let value = vec![fill; VALUE_BYTES];
        let put = player.client.put(&player.volume, key, value).await;
        let refused = matches!(
            &put,
            Err(ClientError::Fault { fault: Fault::DiskFull { .. } | Fault::StoreFull { .. }, .. })
        );
        if refused {
            player.note(&format!("put {key} is refused: no room"));
            player.count_operation();
        } else if let Heard::Done(_) = player.hear(&format!("put {key}"), put) {
            self.seen.lock().held.insert(key.to_owned(), fill);
        }
        refused
    }

    /// Deletes three quarters of this client's keys.
    async fn delete_most(&self, player: &Player) {
        let own = format!("fill-{}-", player.number);
        let held: Vec<String> = self.seen.lock().held.keys().cloned().collect();
        let own = held.into_iter().filter(|key| key.starts_with(&own));
        for (_, key) in own.enumerate().filter(|(number, _)| number % 4 > 0) {
            // In doubt from here on: nothing is claimed of it any more.
            self.seen.lock().held.remove(&key);
            let deleted = player.client.delete(&player.volume, &key).await;
            player.hear(&format!("delete {key}"), deleted);
        }
    }
}
