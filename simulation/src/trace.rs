//! What happened: one readable line per state change, and a running hash.
//!
//! Lines and the bytes of every message go into the hash, so that two runs
//! with equal hashes did the same. Counters say what a run met: a run whose
//! faults never struck proves nothing.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use cluster::units::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Counter of the simulated seconds in which clients' operations ended.
pub const WORKED: &str = "second with work";

/// The trace of one world, shared by its parts.
///
/// A lock, though there is one thread: the ports are `Sync` by contract.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    lines: Vec<String>,
    keep: bool,
    hash: Xxh3Debug,
    counters: BTreeMap<Cow<'static, str>, u64>,
    /// The last second in which an operation ended.
    worked_in: Option<u64>,
}

/// The hasher has no `Debug` of its own.
struct Xxh3Debug(Xxh3);

impl std::fmt::Debug for Xxh3Debug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0.digest())
    }
}

impl Trace {
    /// An empty trace; `keep` says whether lines are kept or only hashed.
    pub fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            lines: Vec::new(),
            keep,
            hash: Xxh3Debug(Xxh3::new()),
            counters: BTreeMap::new(),
            worked_in: None,
        })))
    }

    /// Notes a state change.
    pub fn note(&self, at: Instant, line: &str) {
        self.with(|inner| {
            inner.hash.0.update(&at.as_nanos().to_le_bytes());
            inner.hash.0.update(line.as_bytes());
            if inner.keep {
                let micros = at.as_nanos() / 1_000;
                inner.lines.push(format!(
                    "{:>5}.{:06} {line}",
                    micros / 1_000_000,
                    micros % 1_000_000
                ));
            }
        });
    }

    /// Mixes bytes into the hash without a line: messages are too many to read.
    pub fn mix(&self, at: Instant, bytes: &[u8]) {
        self.with(|inner| {
            inner.hash.0.update(&at.as_nanos().to_le_bytes());
            inner.hash.0.update(bytes);
        });
    }

    /// Counts an occurrence.
    pub fn count(&self, what: impl Into<Cow<'static, str>>) {
        self.with(|inner| *inner.counters.entry(what.into()).or_default() += 1);
    }

    /// Counts an operation that a client brought to an end, and the second in
    /// which it did: time in which nobody works proves nothing.
    pub fn count_operation(&self, at: Instant) {
        let second = at.as_nanos() / 1_000_000_000;
        let fresh = self.with(|inner| inner.worked_in.replace(second) != Some(second));
        self.count("operation");
        if fresh {
            self.count(WORKED);
        }
    }

    /// Keeps the most of something, under a name that begins with `most`.
    pub fn most(&self, what: &'static str, much: u64) {
        self.with(|inner| {
            let most = inner.counters.entry(what.into()).or_default();
            *most = (*most).max(much);
        });
    }

    /// How often `what` occurred.
    pub fn counted(&self, what: &str) -> u64 {
        self.with(|inner| inner.counters.get(what).copied().unwrap_or(0))
    }

    /// All counters.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let named = |(name, count): (&Cow<'static, str>, &u64)| (name.to_string(), *count);
        self.with(|inner| inner.counters.iter().map(named).collect())
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.with(|inner| inner.lines.clone())
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.with(|inner| inner.hash.0.digest())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_order_time_and_content_apart() {
        let hash = |notes: &[(u64, &str)]| {
            let trace = Trace::new(false);
            for (at, line) in notes {
                trace.note(Instant::from_nanos(*at), line);
            }
            trace.hash()
        };
        let base = hash(&[(1, "a"), (2, "b")]);
        assert_eq!(base, hash(&[(1, "a"), (2, "b")]));
        assert_ne!(base, hash(&[(2, "b"), (1, "a")]));
        assert_ne!(base, hash(&[(1, "a"), (3, "b")]));
        assert_ne!(base, hash(&[(1, "a"), (2, "c")]));
    }
}
