//! The cluster key, and sealing under it.
//!
//! AES-256-GCM with a random 96-bit nonce drawn from the entropy port: an
//! authority key is sealed a handful of times in its life, far below the 2^32
//! messages per key that random nonces allow (NIST SP 800-38D §8.3). The
//! authority's certificate is bound in as associated data.
//! Form: version byte ‖ nonce (12) ‖ ciphertext and tag.

use std::fmt;

use cluster::ports::entropy::Entropy;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::IdentityError;

const SEAL_VERSION: u8 = 1;

/// The 32 bytes every node of a cluster holds to open sealed secrets.
/// `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(pub [u8; 32]);

impl ClusterKey {
    /// Draws a new key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        Self(key)
    }

    pub(super) fn seal(&self, secret: &[u8], bound_to: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut body = secret.to_vec();
        #[expect(clippy::expect_used, reason = "only plaintexts over 64 GiB fail")]
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound_to),
                &mut body,
            )
            .expect("a key is shorter than 64 GiB");
        [&[SEAL_VERSION], nonce.as_slice(), body.as_slice()].concat()
    }

    pub(super) fn open(&self, sealed: &[u8], bound_to: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let (&version, rest) = sealed.split_first().ok_or(IdentityError::Sealed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(IdentityError::Sealed)?;
        if version != SEAL_VERSION {
            return Err(IdentityError::Sealed);
        }
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let secret = self
            .cipher()
            .open_in_place(nonce, Aad::from(bound_to), &mut body)
            .map_err(|_| IdentityError::Sealed)?;
        Ok(secret.to_vec())
    }

    fn cipher(&self) -> LessSafeKey {
        #[expect(clippy::expect_used, reason = "AES-256 takes any 32 bytes")]
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).expect("32 bytes are a key"))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}
