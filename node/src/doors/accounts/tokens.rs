//! Tokens of who has shown a password: valid at every member, remembered by each.
//!
//! A token stands for a [`Proof`] and verifies by itself (`signed`). A member that
//! sees one for the first time asks the cluster for what verifies it, once; from then
//! on a look into this table is enough, for as long as the token is used here at least
//! every five minutes. A member takes a token that it does not remember only in the
//! five minutes after it was made. Tokens are not ended by changes of accounts: the
//! shard refuses a proof that is older than its user's password.
//!
//! What was refused is remembered too, so that nobody makes a node ask again and again.
//! That needs no second thoughts: what verifies a token is read after it was shown, so
//! one that does not fit then was never made, or its password is gone.
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
    units::{Instant, WallTime},
};
use ring::digest;

use super::signed::{Claim, sign};

/// How long a token lives after it was used, as in etcd.
const LIFETIME: Duration = Duration::from_mins(5);
/// How far the clock of the node that made a token may be ahead of this one's.
const AHEAD_MAX: Duration = Duration::from_mins(1);
/// Tokens of one node, of about 150 bytes each: 2.5 MiB. The one that would end
/// first goes for a new one.
const TOKENS_MAX: usize = 16_384;
/// Refused ones, of which strangers can send any number: 0.5 MiB.
const REFUSED_MAX: usize = 4_096;

/// Whom a password has proved, and as of which revision of the accounts. That of
/// nobody is what a token proves that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The user.
    pub name: String,
    /// The revision.
    pub since: u64,
}

/// All tokens that a node has seen for one volume.
#[derive(Debug)]
pub struct Tokens {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// A lock, because a door is no actor; never held across an await.
    seen: Mutex<Seen>,
}

type Digest = [u8; 32];

#[derive(Debug)]
struct Seen {
    held: Held,
    refused: Held,
}

/// At most so many tokens, by what each is and by when it ends.
#[derive(Debug)]
struct Held {
    most: usize,
    by_digest: BTreeMap<Digest, (Proof, Instant)>,
    by_end: BTreeSet<(Instant, Digest)>,
}

impl Tokens {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let seen = Seen { held: Held::at_most(TOKENS_MAX), refused: Held::at_most(REFUSED_MAX) };
        Self { clock, entropy, seen: Mutex::new(seen) }
    }

    /// A new token of who showed the password that `hash` is of.
    pub fn issue(&self, proof: Proof, hash: &str) -> String {
        let token = sign(&proof, self.clock.wall(), self.entropy.next_u128(), hash);
        self.lock().held.put(digest_of(&token), proof, self.clock.now());
        token
    }

    /// Whom a token stands for that was seen before; one that holds lives on from now.
    pub fn renew(&self, token: &str) -> Option<Proof> {
        let (now, digest) = (self.clock.now(), digest_of(token));
        let mut seen = self.lock();
        if let Some(proof) = seen.held.find(&digest, now) {
            seen.held.put(digest, proof.clone(), now);
            return Some(proof);
        }
        seen.refused.find(&digest, now)
    }

    /// What a token says that may be one: nothing of what is none by its looks or age.
    pub fn claim<'a>(&self, token: &'a str) -> Option<Claim<'a>> {
        let (now, claim) = (self.clock.wall(), Claim::read(token)?);
        let is_timely = within(now, claim.made, LIFETIME) && within(claim.made, now, AHEAD_MAX);
        is_timely.then_some(claim)
    }

    /// Whom a token stands for, now that the hash of its user's password is known, or
    /// that there is none; it is remembered.
    pub fn verify(&self, token: &str, claim: Claim<'_>, hash: Option<&str>) -> Proof {
        let (now, digest) = (self.clock.now(), digest_of(token));
        let holds = hash.is_some_and(|hash| claim.fits(hash));
        let mut seen = self.lock();
        let (held, proof) = if holds {
            (&mut seen.held, claim.proof)
        } else {
            (&mut seen.refused, Proof::default())
        };
        held.put(digest, proof.clone(), now);
        proof
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one time is at most so much later than another.
fn within(later: WallTime, earlier: WallTime, most: Duration) -> bool {
    Duration::from_millis(later.0.saturating_sub(earlier.0)) <= most
}

impl Held {
    fn at_most(most: usize) -> Self {
        Self { most, by_digest: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    fn find(&mut self, digest: &Digest, now: Instant) -> Option<Proof> {
        self.expire(now);
        Some(self.by_digest.get(digest)?.0.clone())
    }

    /// Remembers one from now on.
    fn put(&mut self, digest: Digest, proof: Proof, now: Instant) {
        self.expire(now);
        let ends = now + LIFETIME;
        if let Some((_, ended)) = self.by_digest.insert(digest, (proof, ends)) {
            self.by_end.remove(&(ended, digest));
        }
        self.by_end.insert((ends, digest));
        if self.by_digest.len() > self.most {
            self.drop_first();
        }
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

    use super::*;
    use crate::devices::entropy::SystemEntropy;

    /// Seconds on a clock that is moved by hand, and how many the wall clock is behind it.
    #[derive(Debug, Default)]
    struct Hand(AtomicU64, u64);

    impl Hand {
        fn stand_at(&self, seconds: u64) {
            self.0.store(seconds, Ordering::Relaxed);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Instant {
            Instant::ORIGIN + Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn wall(&self) -> WallTime {
            WallTime((1_000_000 + self.0.load(Ordering::Relaxed) - self.1) * 1_000)
        }
    }

    const HASH: &str = "$pbkdf2-sha256$1$c2FsdA$aGFzaA";

    fn tokens() -> (Arc<Hand>, Tokens) {
        behind(0)
    }

    fn behind(seconds: u64) -> (Arc<Hand>, Tokens) {
        let clock = Arc::new(Hand(AtomicU64::new(0), seconds));
        let tokens = Tokens::new(clock.clone(), Arc::new(SystemEntropy::new()));
        (clock, tokens)
    }

    fn proof(since: u64) -> Proof {
        Proof { name: "ann".into(), since }
    }

    /// What a member says of a token for which it must know a hash; nothing if it needs
    /// none to refuse it.
    fn verify(tokens: &Tokens, token: &str, hash: Option<&str>) -> Option<Proof> {
        Some(tokens.verify(token, tokens.claim(token)?, hash))
    }

    #[test]
    fn a_token_lives_five_minutes_from_its_last_use() {
        let (clock, tokens) = tokens();
        let token = tokens.issue(proof(7), HASH);
        for minute in [4, 8, 12] {
            clock.stand_at(minute * 60);
            assert_eq!(tokens.renew(&token), Some(proof(7)), "minute {minute}");
        }
        clock.stand_at(17 * 60);
        assert_eq!(tokens.renew(&token), None);
        assert!(tokens.claim(&token).is_none(), "too old to be verified anew");
        assert_eq!(tokens.renew("strange"), None);
        assert!(tokens.lock().held.by_digest.is_empty(), "what is over takes no room");
    }

    #[test]
    fn another_member_verifies_a_token_once_and_then_remembers_it() {
        let ((_, one), (clock, other)) = (tokens(), tokens());
        let token = one.issue(proof(7), HASH);
        clock.stand_at(300);
        assert_eq!(other.renew(&token), None);
        assert_eq!(verify(&other, &token, Some(HASH)), Some(proof(7)));
        clock.stand_at(500);
        assert_eq!(other.renew(&token), Some(proof(7)), "it lives on where it is used");
    }

    #[test]
    fn a_token_is_verified_in_its_first_minutes_only_whatever_clocks_say() {
        let (clock, one) = tokens();
        let token = one.issue(proof(7), HASH);
        clock.stand_at(301);
        assert!(one.claim(&token).is_none());
        let ((_, little), (_, much)) = (behind(60), behind(61));
        assert!(little.claim(&token).is_some() && much.claim(&token).is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_that_is_remembered() {
        let ((_, one), (clock, other)) = (tokens(), tokens());
        let changed = one.issue(proof(7), HASH);
        let gone = one.issue(proof(7), HASH);
        let forged = sign(&proof(7), one.clock.wall(), 1, "guessed");
        for (token, hash) in [(&changed, Some("another")), (&gone, None), (&forged, Some(HASH))] {
            assert_eq!(verify(&other, token, hash), Some(Proof::default()));
            assert_eq!(other.renew(token), Some(Proof::default()), "nobody is asked again");
        }
        clock.stand_at(301);
        assert_eq!((other.renew(&forged), other.lock().refused.by_end.len()), (None, 0));
        assert!(other.claim(&forged).is_none(), "nor once it is forgotten");
    }

    #[test]
    fn of_too_many_the_one_that_was_used_least_lately_goes() {
        let (clock, tokens) = tokens();
        let first = tokens.issue(proof(1), HASH);
        clock.stand_at(1);
        let second = tokens.issue(proof(2), HASH);
        clock.stand_at(2);
        assert_eq!(tokens.renew(&first), Some(proof(1)));
        for _ in 0..16_384 - 1 {
            tokens.issue(proof(3), HASH);
        }
        assert_eq!((tokens.renew(&first), tokens.renew(&second)), (Some(proof(1)), None));
        {
            let seen = tokens.lock();
            assert_eq!((seen.held.by_digest.len(), seen.held.by_end.len()), (16_384, 16_384));
        }
        assert_eq!(verify(&tokens, &second, Some(HASH)), Some(proof(2)), "it is none the less one");
    }

    #[test]
    fn strangers_fill_only_the_table_of_strangers() {
        let (_, tokens) = tokens();
        let token = tokens.issue(proof(1), HASH);
        for nonce in 0..4_096 + 10 {
            let forged = sign(&proof(9), tokens.clock.wall(), nonce, "guessed");
            assert_eq!(verify(&tokens, &forged, Some(HASH)), Some(Proof::default()));
        }
        assert_eq!(tokens.renew(&token), Some(proof(1)));
        let seen = tokens.lock();
        assert_eq!((seen.refused.by_digest.len(), seen.refused.by_end.len()), (4_096, 4_096));
    }
}
