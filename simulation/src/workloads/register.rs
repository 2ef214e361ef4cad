//! Concurrent clients that put, get and delete few keys, and note what they
//! were told. Each write writes another value.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actors::client::{Client, ClientError};

use crate::{
    clock::HostClock,
    oracle::history::{Action, History, Operation, Value},
    rng::Rng,
    stage::told,
    trace::Trace,
};

/// Longest value beyond its number: enough to make batches and segments of
/// different sizes.
const PADDING_MAX: u64 = 600;

/// How the clients behave.
#[derive(Clone, Debug)]
pub struct Registers {
    /// The volume they use.
    pub volume: String,
    /// Keys they share.
    pub keys: u32,
    /// Rest between two operations of one client.
    pub rest: (Duration, Duration),
    /// Where they note what they were told.
    pub history: History,
    /// The clock of the history.
    pub clock: Arc<HostClock>,
    /// The world's trace.
    pub trace: Trace,
    /// Set when they are to end.
    pub stop: Arc<AtomicBool>,
}

impl Registers {
    /// One client, until it is told to end.
    pub async fn run(self, number: u32, client: Client, mut rng: Rng) {
        let mut writes = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let key = format!("key-{}", rng.below(u64::from(self.keys)));
            match rng.below(20) {
                0..9 => self.read(number, &client, &key).await,
                9..17 => {
                    writes += 1;
                    let value = u64::from(number) << 32 | writes;
                    let padding = usize::try_from(rng.below(PADDING_MAX)).unwrap_or(0);
                    self.write(number, &client, &key, Some((value, padding))).await;
                }
                _ => self.write(number, &client, &key, None).await,
            }
            tokio::time::sleep(rng.between(self.rest.0, self.rest.1)).await;
        }
    }

    /// Reads a key and notes it.
    ///
    /// # Errors
    /// The client's; nothing is noted then.
    pub async fn read_noted(
        &self,
        number: u32,
        client: &Client,
        key: &str,
    ) -> Result<Option<Value>, ClientError> {
        let called = self.clock.world_now();
        let item = client.get(&self.volume, key).await?;
        let value = item.map(|item| number_of(&item.value));
        self.note(number, key, Action::Read(value), called, true);
        Ok(value)
    }

    async fn read(&self, number: u32, client: &Client, key: &str) {
        if let Err(error) = self.read_noted(number, client, key).await {
            self.failed(number, &format!("read {key}"), &error);
        }
    }

    async fn write(&self, number: u32, client: &Client, key: &str, value: Option<(Value, usize)>) {
        let called = self.clock.world_now();
        let outcome = match value {
            Some((value, padding)) => client.put(&self.volume, key, bytes_of(value, padding)).await,
            None => client.delete(&self.volume, key).await,
        };
        let action = Action::Write(value.map(|(value, _)| value));
        match outcome {
            Ok(_) => self.note(number, key, action, called, true),
            Err(error) => {
                self.failed(number, &format!("write {key}"), &error);
                if may_be_executed(&error) {
                    self.note(number, key, action, called, false);
                }
            }
        }
    }

    fn note(
        &self,
        client: u32,
        key: &str,
        action: Action,
        called: cluster::units::Instant,
        known: bool,
    ) {
        let now = self.clock.world_now();
        let returned = known.then_some(now);
        let operation = Operation { client, key: key.to_owned(), action, called, returned };
        self.trace.note(now, &operation.to_string());
        self.trace.count(if known { "operation" } else { "unknown outcome" });
        self.history.add(operation);
    }

    fn failed(&self, client: u32, what: &str, error: &ClientError) {
        self.trace
            .note(self.clock.world_now(), &format!("c{client} {what} failed: {}", told(error)));
        self.trace.count("client error");
    }
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
