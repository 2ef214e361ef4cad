//! Simple tokens: a random name for who has shown a password, on this node only.
//!
//! A token stands for a [`Proof`], and lives as long as it is used at least every
//! five minutes. It is not ended by changes of accounts: the shard refuses a proof
//! that is older than its user's password. A client that goes to another node is
//! told that its token is invalid there and shows its password again, as etcd's
//! clients do by themselves.
//!
//! Kept is a digest of each token: what leaks from this table opens no door, and
//! how long a search takes tells nothing of a token.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cluster::{
    ports::{clock::Clock, entropy::Entropy},
    units::Instant,
};
use ring::digest;

/// How long a token lives after it was used, as in etcd.
const LIFETIME: Duration = Duration::from_mins(5);
/// Tokens of one node, of about 150 bytes each: 2.5 MiB. The one that would end
/// first goes for a new one.
const TOKENS_MAX: usize = 16_384;

/// Whom a password has proved, and as of which revision of the accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The user.
    pub name: String,
    /// The revision.
    pub since: u64,
}

/// All tokens of a node for one volume.
#[derive(Debug)]
pub struct Tokens {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// A lock, because a door is no actor; never held across an await.
    held: Mutex<Held>,
}

type Digest = [u8; 32];

#[derive(Debug, Default)]
struct Held {
    by_digest: BTreeMap<Digest, (Proof, Instant)>,
    by_end: BTreeSet<(Instant, Digest)>,
}

impl Tokens {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, held: Mutex::default() }
    }

    /// A new token.
    pub fn issue(&self, proof: Proof) -> String {
        let token = format!("{:032x}", self.entropy.next_u128());
        let now = self.clock.now();
        let mut held = self.lock();
        held.expire(now);
        if held.by_digest.len() >= TOKENS_MAX {
            held.drop_first();
        }
        held.put(digest_of(&token), proof, now + LIFETIME);
        token
    }

    /// Whom a token stands for; it lives on from now.
    pub fn renew(&self, token: &str) -> Option<Proof> {
        let (now, digest) = (self.clock.now(), digest_of(token));
        let mut held = self.lock();
        held.expire(now);
        let proof = held.by_digest.get(&digest)?.0.clone();
        held.put(digest, proof.clone(), now + LIFETIME);
        Some(proof)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn put(&mut self, digest: Digest, proof: Proof, ends: Instant) {
        if let Some((_, ended)) = self.by_digest.insert(digest, (proof, ends)) {
            self.by_end.remove(&(ended, digest));
        }
        self.by_end.insert((ends, digest));
    }

    fn expire(&mut self, now: Instant) {
        while self.by_end.first().is_some_and(|(ends, _)| *ends <= now) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, digest)) = self.by_end.pop_first() {
            self.by_digest.remove(&digest);
        }
    }
}

fn digest_of(token: &str) -> Digest {
    let mut out = Digest::default();
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    out.iter_mut().zip(digest.as_ref()).for_each(|(place, byte)| *place = *byte);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use cluster::units::WallTime;

    use super::*;
    use crate::devices::entropy::SystemEntropy;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Instant {
            Instant::ORIGIN + Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn wall(&self) -> WallTime {
            WallTime(0)
        }
    }

    fn tokens() -> (Arc<Hand>, Tokens) {
        let clock = Arc::new(Hand::default());
        let tokens = Tokens::new(clock.clone(), Arc::new(SystemEntropy::new()));
        (clock, tokens)
    }

    fn proof(since: u64) -> Proof {
        Proof { name: "ann".into(), since }
    }

    #[test]
    fn a_token_lives_five_minutes_from_its_last_use() {
        let (clock, tokens) = tokens();
        let token = tokens.issue(proof(7));
        for minute in [4, 8, 12] {
            clock.0.store(minute * 60, Ordering::Relaxed);
            assert_eq!(tokens.renew(&token), Some(proof(7)), "minute {minute}");
        }
        clock.0.store(17 * 60, Ordering::Relaxed);
        assert_eq!(tokens.renew(&token), None);
        assert_eq!(tokens.renew("strange"), None);
        assert!(tokens.lock().by_digest.is_empty(), "what is over takes no room");
    }

    #[test]
    fn of_too_many_the_one_that_was_used_least_lately_goes() {
        let (clock, tokens) = tokens();
        let first = tokens.issue(proof(1));
        clock.0.store(1, Ordering::Relaxed);
        let second = tokens.issue(proof(2));
        clock.0.store(2, Ordering::Relaxed);
        assert_eq!(tokens.renew(&first), Some(proof(1)));
        for _ in 0..16_384 - 1 {
            tokens.issue(proof(3));
        }
        assert_eq!((tokens.renew(&first), tokens.renew(&second)), (Some(proof(1)), None));
        let held = tokens.lock();
        assert_eq!((held.by_digest.len(), held.by_end.len()), (16_384, 16_384));
    }
}
