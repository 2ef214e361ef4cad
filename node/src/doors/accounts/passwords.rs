//! Passwords as salted, slow hashes: PBKDF2 with HMAC-SHA-256.
//!
//! A hash says how it was made, so that the number of rounds can rise later and
//! old ones still fit: `$pbkdf2-sha256$ROUNDS$SALT$HASH`, both in base64. Making
//! one takes a core for a fifth of a second; at most `AT_ONCE` are made at a
//! time, the rest wait, so that guessing costs the guesser and not the node.
//!
//! Source: RFC 8018; OWASP's password storage notes for the number of rounds.

use std::{num::NonZeroU32, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use cluster::ports::entropy::Entropy;
use ring::pbkdf2;
use tokio::sync::Semaphore;

/// Hashes under way at a time: half of the smallest machine.
const AT_ONCE: usize = 1;
/// Rounds of a new hash.
const ROUNDS: u32 = 600_000;
/// Most rounds a hash is believed to want: what is stored came through a log that
/// others write too.
const ROUNDS_MAX: u32 = 10_000_000;
const SCHEME: &str = "pbkdf2-sha256";
const BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// Makes and checks hashes.
#[derive(Debug)]
pub struct Passwords {
    entropy: Arc<dyn Entropy>,
    turns: Semaphore,
}

impl Passwords {
    /// With salts of this chance.
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, turns: Semaphore::new(AT_ONCE) }
    }

    /// The hash of a new password.
    pub async fn hash(&self, password: &str) -> String {
        let mut salt = [0; SALT_BYTES];
        self.entropy.fill(&mut salt);
        let password = password.to_owned();
        self.beside(move || hash(&password, &salt, ROUNDS)).await.unwrap_or_default()
    }

    /// Whether a password is that of a hash; none is nobody's, and takes as long.
    pub async fn fits(&self, password: &str, hash: Option<String>) -> bool {
        let password = password.to_owned();
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| format!("${SCHEME}${ROUNDS}$AAAA$AAAA"));
        self.beside(move || fits(&password, &hash)).await.unwrap_or(false) && known
    }

    /// Does slow work on a thread of its own, in turn; none if it could not be done.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let _turn = self.turns.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }
}

fn hash(password: &str, salt: &[u8], rounds: u32) -> String {
    let mut hash = [0; BYTES];
    let count = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, salt, password.as_bytes(), &mut hash);
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    format!("${SCHEME}${rounds}${salt}${hash}")
}

fn fits(password: &str, hash: &str) -> bool {
    let Some((rounds, salt, hash)) = read(hash) else { return false };
    pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &hash).is_ok()
}

/// Rounds, salt and hash of what [`hash`] wrote.
fn read(hash: &str) -> Option<(NonZeroU32, Vec<u8>, Vec<u8>)> {
    let mut parts = hash.strip_prefix('$')?.split('$');
    if parts.next()? != SCHEME {
        return None;
    }
    let rounds: NonZeroU32 = parts.next()?.parse().ok()?;
    let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    let bytes = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    let sound = parts.next().is_none() && rounds.get() <= ROUNDS_MAX;
    sound.then_some((rounds, salt, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::entropy::SystemEntropy;

    #[test]
    fn a_hash_is_the_one_that_others_compute() {
        // From RFC 7914, section 11: password "passwd", salt "salt", one round.
        let first = hash("passwd", b"salt", 1);
        let bytes = STANDARD_NO_PAD.decode(first.rsplit('$').next().unwrap()).unwrap();
        let known = [
            0x55, 0xac, 0x04, 0x6e, 0x56, 0xe3, 0x08, 0x9f, 0xec, 0x16, 0x91, 0xc2, 0x25, 0x44,
            0xb6, 0x05,
        ];
        assert_eq!(bytes[..16], known);
        assert!(first.starts_with("$pbkdf2-sha256$1$c2FsdA$"));
        assert!(fits("passwd", &first) && !fits("passwe", &first));
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        let sound = hash("", b"salt", 1);
        assert!(fits("", &sound), "an empty password is one, as in etcd");
        let strange = [
            String::new(),
            "$".into(),
            sound.replace("pbkdf2", "plain"),
            sound.replace("$1$", "$0$"),
            sound.replace("$1$", "$4000000000$"),
            format!("{sound}$"),
            sound.rsplit_once('$').unwrap().0.to_owned(),
            format!("{}$", sound.rsplit_once('$').unwrap().0),
        ];
        for hash in strange {
            assert!(!fits("", &hash), "{hash}");
        }
    }

    #[tokio::test]
    async fn hashes_are_salted_and_nobody_has_no_password() {
        let passwords = Passwords::new(Arc::new(SystemEntropy::new()));
        let (one, two) = (passwords.hash("p").await, passwords.hash("p").await);
        assert_ne!(one, two);
        assert!(one.contains("$600000$"));
        assert!(passwords.fits("p", Some(one)).await);
        assert!(!passwords.fits("p", None).await);
    }
}
