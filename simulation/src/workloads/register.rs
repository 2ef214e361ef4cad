//! Concurrent clients that put, get and delete few keys. Each write writes
//! another value, so that a value read names the write it came from.
//!
//! Judged thrice: the history of each key must be linearizable, no acknowledged
//! write may be gone at the end, and versions rise.

use std::time::Duration;

use actors::client::ClientError;
use cluster::units::Instant;

use super::{Play, Player, Shared, draw_rest, halve};
use crate::{
    oracle::{
        durable,
        history::{Action, History, Operation, Value},
        linearizable,
        versions::{self, Stamped},
    },
    rng::Rng,
};

/// Longest value beyond its number: enough to make batches and segments of
/// different sizes.
const PADDING_MAX: u64 = 600;

/// What keys held when last observed.
type Found = Shared<Vec<(String, Option<Value>)>>;
/// Versions that writes were told.
type Stamps = Shared<Vec<Stamped>>;

/// The workload.
#[derive(Clone, Debug)]
pub struct Registers {
    /// Clients.
    pub clients: u32,
    /// Keys they share.
    pub keys: u32,
    /// Rest between two operations of one client.
    pub rest: (Duration, Duration),
    history: History,
    found: Found,
    stamps: Stamps,
}

impl Registers {
    /// Clients that share keys.
    pub fn new(clients: u32, keys: u32, rest: (Duration, Duration)) -> Self {
        Self {
            clients,
            keys,
            rest,
            history: History::default(),
            found: Found::default(),
            stamps: Stamps::default(),
        }
    }

    /// Few or many clients, few or many keys, lazy or busy.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 1, 5..65);
        Self::new(2 + rng.number(6), 1 + rng.number(8), rest)
    }
}

impl Play for Registers {
    const NAME: &'static str = "registers";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients) || halve(&mut self.keys)
    }

    async fn work(self, mut player: Player) {
        let mut writes = 0;
        while !player.is_over() {
            let key = format!("key-{}", player.rng.below(u64::from(self.keys)));
            match player.rng.below(20) {
                0..9 => {
                    if let Err(error) = self.read(&player, &key).await {
                        player.failed(&format!("read {key}"), &error);
                    }
                }
                9..17 => {
                    writes += 1;
                    let value = u64::from(player.number) << 32 | writes;
                    let padding = usize::try_from(player.rng.below(PADDING_MAX)).unwrap_or(0);
                    self.write(&player, &key, Some((value, padding))).await;
                }
                _ => self.write(&player, &key, None).await,
            }
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        let mut found = Vec::new();
        for key in (0..self.keys).map(|key| format!("key-{key}")) {
            let value = self.read(&player, &key).await?;
            found.push((key, value));
        }
        *self.found.lock() = found;
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let history = self.history.operations();
        for (key, value) in self.found.lock().iter() {
            durable::check(&history, key, *value).map_err(|loss| loss.to_string())?;
        }
        versions::check(&self.stamps.lock())?;
        linearizable::check(&history).map_err(|violation| violation.to_string())
    }
}

impl Registers {
    async fn read(&self, player: &Player, key: &str) -> Result<Option<Value>, ClientError> {
        let called = player.now();
        let item = player.client.get(&player.volume, key).await?;
        let value = item.map(|item| number_of(&item.value));
        self.note(player, key, Action::Read(value), called, true);
        Ok(value)
    }

    async fn write(&self, player: &Player, key: &str, value: Option<(Value, usize)>) {
        let called = player.now();
        let (client, volume) = (&player.client, &player.volume);
        let outcome = match value {
            Some((value, padding)) => client.put(volume, key, bytes_of(value, padding)).await,
            None => client.delete(volume, key).await,
        };
        let action = Action::Write(value.map(|(value, _)| value));
        match outcome {
            Ok(written) => {
                self.note(player, key, action, called, true);
                // A delete of nothing has no version of its own.
                if let (Some(version), Action::Write(Some(_))) = (written.version, action) {
                    let (key, returned) = (key.to_owned(), player.now());
                    let stamp = Stamped { key, called, returned, version };
                    self.stamps.lock().push(stamp);
                }
            }
            Err(error) => {
                if player.failed(&format!("write {key}"), &error) {
                    self.note(player, key, action, called, false);
                }
            }
        }
    }

    fn note(&self, player: &Player, key: &str, action: Action, called: Instant, known: bool) {
        let now = player.now();
        let (client, key, returned) = (player.number, key.to_owned(), known.then_some(now));
        let operation = Operation { client, key, action, called, returned };
        player.trace.note(now, &operation.to_string());
        if known {
            player.count_operation();
        }
        self.history.add(operation);
    }
}

/// A value on the wire: its number, padded.
fn bytes_of(value: Value, padding: usize) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(bytes.len() + padding, 0x5a);
    bytes
}

/// The number of a value; damaged padding is another number.
fn number_of(bytes: &[u8]) -> Value {
    let Some((number, padding)) = bytes.split_first_chunk::<8>() else { return Value::MAX };
    let sound = padding.iter().all(|byte| *byte == 0x5a);
    if sound { Value::from_le_bytes(*number) } else { Value::MAX }
}
