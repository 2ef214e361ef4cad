//! How much may lie below a prefix: bytes of keys and values, and keys.
//!
//! A door counts what lies there once, and follows it by a watch from then on, whoever
//! writes it. A request is judged before it is sent, by what lies there, what this door
//! has let pass and has not seen yet, and what it brings. As long as that fits whatever
//! it may replace, nothing is asked; near the quota the keys it writes are looked at,
//! so that a value can be replaced by a smaller one in a prefix that is full.
//!
//! Doors judge for themselves, so what passes at several at once may go beyond the quota
//! by what was under way, as with etcd's own, which its members judge before a proposal;
//! and so may what was written without an answer, until it is seen. What a transaction
//! deletes counts once it is gone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::client::{Client, ClientError, Happened};
use cluster::{
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Put, Step, Transaction},
        watch::{Event, EventKind, Place, Watch},
    },
    units::ByteSize,
};
use futures_util::future::join_all;
use metrics::{counter, gauge};
use tokio::{sync::watch, time::timeout};
use tonic::Code;

use super::faults::EtcdFault;
use crate::{
    config::QuotaConfig,
    observe::metrics::{ETCD_QUOTA_BYTES, ETCD_QUOTA_KEYS, ETCD_QUOTA_REFUSED_TOTAL},
};

/// Longest a request waits until all was counted for the first time.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);
/// Pause before it is counted anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Some of what lies below a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    bytes: u64,
    keys: u64,
}

impl Amount {
    fn of(item: &Item) -> Self {
        Self { bytes: item.key.len() as u64 + item.value_bytes, keys: 1 }
    }

    fn plus(self, more: Self) -> Self {
        let bytes = self.bytes.saturating_add(more.bytes);
        Self { bytes, keys: self.keys.saturating_add(more.keys) }
    }

    fn minus(self, less: Self) -> Self {
        let bytes = self.bytes.saturating_sub(less.bytes);
        Self { bytes, keys: self.keys.saturating_sub(less.keys) }
    }

    /// Whether so much more fits. What does not grow is not asked.
    fn takes(self, more: Self, most: Self) -> bool {
        let fits = |held: u64, more: u64, most: u64| more == 0 || held.saturating_add(more) <= most;
        fits(self.bytes, more.bytes, most.bytes) && fits(self.keys, more.keys, most.keys)
    }
}

/// The quotas of a door.
#[derive(Debug)]
pub(super) struct Quotas(Vec<Quota>);

/// That of a prefix.
#[derive(Debug)]
struct Quota {
    prefix: String,
    keys: Keys,
    most: Amount,
    /// Behind a lock because requests judge by several numbers at once; held for a few
    /// additions, never across a wait.
    held: Mutex<Held>,
    /// Whether all was counted once.
    counted: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Held {
    /// What lies there, as far as it was seen.
    lies: Amount,
    /// Seen up to here.
    upto: Version,
    /// What this door let pass and has not seen yet.
    passing: BTreeMap<u64, Passing>,
    /// All that those bring.
    brings: Amount,
    next: u64,
}

#[derive(Debug)]
struct Passing {
    brings: Amount,
    /// The version it was written at; none yet.
    written: Option<Version>,
}

impl Held {
    fn seen(&mut self, lies: Amount, upto: Version) {
        (self.lies, self.upto) = (lies, upto);
        let brings = &mut self.brings;
        self.passing.retain(|_, passing| {
            let stays = passing.written.is_none_or(|version| version > upto);
            if !stays {
                *brings = brings.minus(passing.brings);
            }
            stays
        });
    }

    fn pass(&mut self, brings: Amount) -> u64 {
        let number = self.next;
        self.next += 1;
        self.brings = self.brings.plus(brings);
        self.passing.insert(number, Passing { brings, written: None });
        number
    }

    fn forget(&mut self, number: u64) {
        if let Some(passing) = self.passing.remove(&number) {
            self.brings = self.brings.minus(passing.brings);
        }
    }
}

/// What a request may bring; it is free again when this is dropped, unless it was
/// written.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Passes<'a>(Vec<(&'a Quota, u64)>);

impl Passes<'_> {
    /// It is there now: it counts as passing until it is seen.
    pub(super) fn written(mut self, version: Version) {
        for (quota, number) in std::mem::take(&mut self.0) {
            let mut held = quota.lock();
            if version <= held.upto {
                held.forget(number);
            } else if let Some(passing) = held.passing.get_mut(&number) {
                passing.written = Some(version);
            }
        }
    }
}

impl Drop for Passes<'_> {
    fn drop(&mut self) {
        for (quota, number) in &self.0 {
            quota.lock().forget(*number);
        }
    }
}

/// A key that a request may write, and the bytes of its value.
pub(super) type Brought = (Vec<u8>, usize);

/// What a put brings; nothing if it leaves the value as it is.
pub(super) fn brought_by_put(put: &Put) -> Vec<Brought> {
    put.value.iter().map(|value| (put.key.clone(), value.len())).collect()
}

/// What a transaction may bring: all that its branches may write, each key once.
pub(super) fn brought_by(transaction: &Transaction) -> Vec<Brought> {
    let mut most: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for step in transaction.steps() {
        let Step::Put(put) = step else { continue };
        for (key, bytes) in brought_by_put(put) {
            let known = most.entry(key).or_default();
            *known = bytes.max(*known);
        }
    }
    most.into_iter().collect()
}

impl Quotas {
    pub(super) fn new(quotas: &[QuotaConfig]) -> Self {
        Self(quotas.iter().map(Quota::new).collect())
    }

    /// Whether nothing is counted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a request pass, or refuses what it may bring.
    pub(super) async fn admit(
        &self,
        client: &Client,
        volume: &str,
        brings: impl FnOnce() -> Vec<Brought>,
    ) -> Result<Passes<'_>, EtcdFault> {
        let mut passes = Passes::default();
        if self.0.is_empty() {
            return Ok(passes);
        }
        let brings = brings();
        for quota in &self.0 {
            let below = |(key, _): &&Brought| quota.keys.contain(key);
            let below: Vec<_> = brings.iter().filter(below).collect();
            if !below.is_empty() {
                passes.0.push((quota, quota.admit(client, volume, &below).await?));
            }
        }
        Ok(passes)
    }

    /// Counts, and goes on counting.
    pub(super) async fn keep(&self, client: &Client, volume: &str) -> Infallible {
        join_all(self.0.iter().map(|quota| quota.keep(client, volume))).await;
        pending().await
    }
}

impl Quota {
    fn new(config: &QuotaConfig) -> Self {
        let keys = Keys::prefix(config.prefix.as_bytes().to_vec());
        let bytes = config.size.map_or(u64::MAX, ByteSize::bytes);
        let most = Amount { bytes, keys: config.keys.unwrap_or(u64::MAX) };
        let (prefix, held) = (config.prefix.clone(), Mutex::default());
        counter!(ETCD_QUOTA_REFUSED_TOTAL, "prefix" => prefix.clone()).increment(0);
        Self { prefix, keys, most, held, counted: watch::Sender::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit(
        &self,
        client: &Client,
        volume: &str,
        brought: &[&Brought],
    ) -> Result<u64, EtcdFault> {
        self.await_count().await?;
        let bytes = brought.iter().map(|(key, value)| (key.len() + value) as u64).sum();
        let all_new = Amount { bytes, keys: brought.len() as u64 };
        if let Some(number) = self.pass(all_new) {
            return Ok(number);
        }
        let growth = growth(client, volume, brought).await?;
        self.pass(growth).ok_or_else(|| {
            counter!(ETCD_QUOTA_REFUSED_TOTAL, "prefix" => self.prefix.clone()).increment(1);
            EtcdFault::NoSpace
        })
    }

    async fn await_count(&self) -> Result<(), EtcdFault> {
        let mut counted = self.counted.subscribe();
        let counted = timeout(COUNTED_WITHIN, counted.wait_for(|counted| *counted)).await;
        counted.map(drop).map_err(|_| {
            let text = format!(
                "etcdserver: what lies below {:?} is still being counted for its quota, try again",
                self.prefix
            );
            EtcdFault::Other(Code::Unavailable, text)
        })
    }

    /// The number it passes under, if there is room.
    fn pass(&self, brings: Amount) -> Option<u64> {
        let mut held = self.lock();
        let fits = held.lies.plus(held.brings).takes(brings, self.most);
        fits.then(|| held.pass(brings))
    }

    async fn keep(&self, client: &Client, volume: &str) -> Infallible {
        loop {
            let Err(error) = self.count_and_follow(client, volume).await;
            tracing::debug!(prefix = self.prefix, %error, "a quota is counted anew");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn count_and_follow(
        &self,
        client: &Client,
        volume: &str,
    ) -> Result<Infallible, ClientError> {
        let (lies, at) = self.count(client, volume).await?;
        self.see(lies, at);
        self.counted.send_replace(true);
        let watch = Watch::of(self.keys.clone()).with_previous();
        let mut watching = client.watch(volume, watch, Some(Version(at.0 + 1))).await?;
        loop {
            let Happened { events, upto, .. } = match watching.next().await {
                Ok(happened) => happened,
                // It stands where it stood.
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let before = self.lock().lies;
            self.see(events.iter().fold(before, after), whole(upto));
        }
    }

    fn see(&self, lies: Amount, upto: Version) {
        self.lock().seen(lies, upto);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        for (name, number) in [(ETCD_QUOTA_BYTES, lies.bytes), (ETCD_QUOTA_KEYS, lies.keys)] {
            gauge!(name, "prefix" => self.prefix.clone()).set(number as f64);
        }
    }

    /// What lies below the prefix, and at which version.
    async fn count(&self, client: &Client, volume: &str) -> Result<(Amount, Version), ClientError> {
        let mut range = Range::of(self.keys.clone()).heads();
        let mut lies = Amount::default();
        loop {
            let page = client.range_page(volume, &range, ReadLevel::Strong).await?;
            lies = page.result.items.iter().map(Amount::of).fold(lies, Amount::plus);
            range.at = Some(page.at);
            let last = page.result.items.last().filter(|_| page.result.more);
            match (last, &mut range.keys) {
                (Some(last), Keys::Range { from, .. }) => *from = [&last.key[..], &[0]].concat(),
                _ => return Ok((lies, page.at)),
            }
        }
    }
}

/// What lies there after one more event.
fn after(lies: Amount, event: &Event) -> Amount {
    let before = event.previous.as_ref().map(Amount::of).unwrap_or_default();
    let lies = lies.minus(before);
    match event.kind {
        EventKind::Put => lies.plus(Amount::of(&event.item)),
        EventKind::Delete => lies,
    }
}

/// The last version that was seen whole.
fn whole(place: Place) -> Version {
    if place.is_whole() { place.version } else { Version(place.version.0.saturating_sub(1)) }
}

/// What so many keys bring beyond what they replace.
async fn growth(
    client: &Client,
    volume: &str,
    brought: &[&Brought],
) -> Result<Amount, ClientError> {
    let (mut brings, mut replaces) = (Amount::default(), Amount::default());
    for (key, bytes) in brought {
        let head = Range::of(key.clone()).heads();
        let found = client.range(volume, head, ReadLevel::Strong).await?.result.items;
        replaces = found.iter().map(Amount::of).fold(replaces, Amount::plus);
        brings = brings.plus(Amount { bytes: (key.len() + bytes) as u64, keys: 1 });
    }
    Ok(brings.minus(replaces))
}
