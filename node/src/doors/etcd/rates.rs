//! How often keys below a prefix may be asked for: a bucket of tokens each.
//!
//! Every request costs a token of each prefix it touches, a transaction one for each
//! of its compares and steps that do. Who finds the bucket empty is refused; what a
//! request costs beyond what is left is owed, so that no transaction is too large to
//! pass, and none passes cheaply. A door counts what comes through it, for whoever asks.
//!
//! A bucket is the time at which it would be full again (the generic cell rate
//! algorithm): one number, changed without a lock.
//!
//! Source: ITU-T I.371, annex A.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cluster::shard::{
    range::Range,
    transaction::{Keys, Step, Transaction},
};
use tokio::time::Instant;

use super::faults::EtcdFault;
use crate::config::RateConfig;

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The buckets of a door.
#[derive(Debug)]
pub(super) struct Rates {
    begun: Instant,
    rates: Vec<Rate>,
}

/// The bucket of a prefix.
#[derive(Debug)]
struct Rate {
    keys: Keys,
    /// Nanoseconds until a token comes back.
    interval: u64,
    /// Nanoseconds until all but one have.
    burst: u64,
    /// When the bucket is full, in nanoseconds since the door began.
    full_at: AtomicU64,
}

impl Rates {
    pub(super) fn new(rates: &[RateConfig]) -> Self {
        let rates = rates.iter().map(Rate::new).collect();
        Self { begun: Instant::now(), rates }
    }

    /// Whether nothing is counted.
    pub(super) fn is_empty(&self) -> bool {
        self.rates.is_empty()
    }

    /// Takes what a request costs that touches these keys.
    pub(super) fn take(&self, keys: impl FnOnce() -> Vec<Keys>) -> Result<(), EtcdFault> {
        if self.rates.is_empty() {
            return Ok(());
        }
        self.take_at(self.begun.elapsed(), &keys())
    }

    fn take_at(&self, at: Duration, keys: &[Keys]) -> Result<(), EtcdFault> {
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        for rate in &self.rates {
            let cost = keys.iter().filter(|keys| touch(&rate.keys, keys)).count();
            if cost > 0 && !rate.take(at, cost as u64) {
                return Err(EtcdFault::TooManyRequests);
            }
        }
        Ok(())
    }
}

impl Rate {
    fn new(config: &RateConfig) -> Self {
        let interval = SECOND / u64::from(config.requests.max(1));
        let burst = interval.saturating_mul(u64::from(config.burst.saturating_sub(1)));
        let keys = Keys::prefix(config.prefix.as_bytes().to_vec());
        Self { keys, interval, burst, full_at: AtomicU64::new(0) }
    }

    fn take(&self, at: u64, cost: u64) -> bool {
        let taken = |full_at: u64| {
            let full_at = full_at.max(at);
            (full_at - at <= self.burst)
                .then(|| full_at.saturating_add(self.interval.saturating_mul(cost)))
        };
        self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }
}

/// All keys that a transaction speaks of, whichever branches it takes, and those it
/// reads of the past.
pub(super) fn keys_of(transaction: &Transaction, past: &[Range]) -> Vec<Keys> {
    let mut keys: Vec<_> = past.iter().map(|range| range.keys.clone()).collect();
    for block in &transaction.blocks {
        keys.extend(block.compares.iter().map(|compare| compare.keys.clone()));
        keys.extend(block.then.iter().chain(&block.otherwise).filter_map(|step| match step {
            Step::Read(range) => Some(range.keys.clone()),
            Step::Put(put) => Some(Keys::One(put.key.clone())),
            Step::Delete { keys, .. } => Some(keys.clone()),
            // Its block is in the list.
            Step::Nested(_) => None,
        }));
    }
    keys
}

fn touch(one: &Keys, other: &Keys) -> bool {
    let begins_before_end = |one: &Keys, other: &Keys| match other {
        Keys::One(key) => first(one) <= &key[..],
        Keys::Range { to, .. } => to.is_empty() || first(one) < &to[..],
    };
    begins_before_end(one, other) && begins_before_end(other, one)
}

fn first(keys: &Keys) -> &[u8] {
    match keys {
        Keys::One(key) => key,
        Keys::Range { from, .. } => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rates: &[(&str, u32, u32)]) -> Rates {
        let config = |(prefix, requests, burst): &(&str, u32, u32)| RateConfig {
            prefix: (*prefix).to_owned(),
            requests: *requests,
            burst: *burst,
        };
        Rates::new(&rates.iter().map(config).collect::<Vec<_>>())
    }

    fn one(key: &str) -> Keys {
        Keys::One(key.into())
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let rates = rates(&[("a/", 10, 3)]);
        let passes = |ms| rates.take_at(Duration::from_millis(ms), &[one("a/x")]).is_ok();
        assert_eq!([0, 0, 0, 0, 99].map(passes), [true, true, true, false, false]);
        assert_eq!([100, 100, 199, 200].map(passes), [true, false, false, true]);
        assert_eq!([60_000; 4].map(passes), [true, true, true, false], "no more than a burst");
    }

    #[test]
    fn what_a_transaction_costs_beyond_is_owed() {
        let rates = rates(&[("a/", 10, 1)]);
        let at = Duration::from_millis;
        let five = ["a/x"; 5].map(one);
        assert!(rates.take_at(at(0), &five).is_ok());
        assert!(rates.take_at(at(499), &five[..1]).is_err());
        assert!(rates.take_at(at(500), &five[..1]).is_ok());
    }

    #[test]
    fn a_request_costs_where_it_touches() {
        let range = |from: &str, to: &str| Keys::Range { from: from.into(), to: to.into() };
        let below = Keys::prefix(b"b/".to_vec());
        for (keys, touches) in [
            (one("b/"), true),
            (one("b/x"), true),
            (one("b"), false),
            (one("b0"), false),
            (range("a", "b/"), false),
            (range("a", "b/0"), true),
            (range("b/x", "b/y"), true),
            (range("b0", ""), false),
            (range("", ""), true),
        ] {
            assert_eq!(touch(&below, &keys), touches, "{keys:?}");
            assert!(touch(&Keys::prefix(Vec::new()), &keys), "no prefix is every key: {keys:?}");
        }
        let rates = rates(&[("", 1, 9), ("b/", 1, 1)]);
        let passes = |key: &str| rates.take_at(Duration::ZERO, &[one(key)]).is_ok();
        assert_eq!(["b/1", "b/2", "c", "c"].map(passes), [true, false, true, true]);
    }
}
