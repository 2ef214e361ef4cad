//! Join tokens: one line of text that lets one node in.
//!
//! `cdb1-` and then, in URL-safe base64 without padding: SHA-256 of the
//! authority's certificate (32 bytes), a secret (32 bytes) and the first four
//! bytes of the SHA-256 over both, so that a token cut short in a terminal is
//! told from a wrong one. The fingerprint lets the joiner know the cluster
//! before it trusts it; the catalog stores only the secret's hash.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cluster::ports::entropy::Entropy;

/// First letters of every token; the digit is the form's version.
const PREFIX: &str = "cdb1-";
const TOKEN_BYTES: usize = 32 + 32 + CHECK_BYTES;
const CHECK_BYTES: usize = 4;

/// A join token. `Debug` shows the fingerprint only; `Display` the whole text.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate.
    pub fingerprint: [u8; 32],
    /// What the catalog knows the hash of.
    pub secret: [u8; 32],
}

/// Why a text is not a join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another kind of text.
    #[error("a join token begins with `{PREFIX}`: make one with `cdb cluster token`")]
    Prefix,
    /// Letters missing or too many.
    #[error("the join token is not complete: copy all of its {chars} characters")]
    Length {
        /// Characters of a whole token.
        chars: usize,
    },
    /// Letters that never occur.
    #[error("the join token has characters that do not belong there: copy it again")]
    Characters,
    /// A letter changed.
    #[error("the join token is mistyped: copy it again")]
    Check,
}

impl JoinToken {
    /// Draws a token for the cluster with this authority certificate (DER).
    pub fn generate(authority: &[u8], entropy: &dyn Entropy) -> Self {
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        Self { fingerprint: sha256(authority), secret }
    }

    /// Whether it lets into the cluster with this authority certificate (DER).
    pub fn is_of(&self, authority: &[u8]) -> bool {
        self.fingerprint == sha256(authority)
    }

    /// The name under which the catalog keeps it.
    pub fn hash(&self) -> [u8; 32] {
        token_hash(&self.secret)
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let sum = sha256(&[self.fingerprint, self.secret].concat());
        [sum[0], sum[1], sum[2], sum[3]]
    }
}

/// SHA-256 of a token's secret: the name under which the catalog keeps it.
pub fn token_hash(secret: &[u8; 32]) -> [u8; 32] {
    sha256(secret)
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let body_chars = (TOKEN_BYTES * 4).div_ceil(3);
        if body.chars().count() != body_chars {
            return Err(TokenError::Length { chars: PREFIX.len() + body_chars });
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Characters)?;
        let (fingerprint, rest) = bytes.split_first_chunk::<32>().ok_or(TokenError::Characters)?;
        let (secret, check) = rest.split_first_chunk::<32>().ok_or(TokenError::Characters)?;
        let token = Self { fingerprint: *fingerprint, secret: *secret };
        if token.check() != check {
            return Err(TokenError::Check);
        }
        Ok(token)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes =
            [self.fingerprint.as_slice(), self.secret.as_slice(), self.check().as_slice()].concat();
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, ..] = self.fingerprint;
        write!(f, "JoinToken(authority {first:02x}{second:02x}{third:02x}…, secret)")
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    sum
}
