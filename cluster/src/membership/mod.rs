//! Who is there: gossip as a hint, identity as a proof.

pub mod identity;
pub mod image;
pub mod swim;
pub mod wire;

use rkyv::{Archive, Deserialize, Serialize};

use crate::ids::{BootNonce, Incarnation};

/// One start of one node. Peers remember the highest they saw and judge by it
/// whether a disk is an old image ([`identity`]).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Boot {
    /// How often the node has started.
    pub incarnation: Incarnation,
    /// Of the line of starts it belongs to.
    pub nonce: BootNonce,
}

impl Boot {
    /// Bytes of a boot in a file.
    pub const BYTES: usize = 24;

    /// The start that follows `last`, by what the disk knows: `told`, the start
    /// that its copy of the catalog names, and the incarnation `seen` elsewhere
    /// when the disk was found to be an old image (else 0).
    ///
    /// A line goes on until the disk knows that the catalog has heard of a
    /// start of it; only the next one begins another line.
    #[must_use]
    pub fn after(last: Self, told: Option<Self>, seen: Incarnation, chance: u64) -> Self {
        let incarnation = Incarnation(last.incarnation.max(seen).0 + 1);
        let first = last.incarnation == Incarnation(0);
        let goes_on = told.is_none_or(|told| told.nonce != last.nonce);
        let nonce = if goes_on && !first && seen == Incarnation(0) {
            last.nonce
        } else {
            BootNonce::line(incarnation, chance)
        };
        Self { incarnation, nonce }
    }

    /// As a file holds it.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nonce.0.to_le_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (incarnation, nonce) = bytes.split_at(8);
        let (mut low, mut wide) = ([0; 8], [0; 16]);
        low.copy_from_slice(incarnation);
        wide.copy_from_slice(nonce);
        Self {
            incarnation: Incarnation(u64::from_le_bytes(low)),
            nonce: BootNonce(u128::from_le_bytes(wide)),
        }
    }
}

impl BootNonce {
    /// The nonce of a line that begins with this start.
    pub fn line(begins: Incarnation, chance: u64) -> Self {
        Self(u128::from(begins.0) << 64 | u128::from(chance))
    }

    /// The start its line began with.
    pub fn begins(self) -> Incarnation {
        Incarnation(u64::try_from(self.0 >> 64).unwrap_or(u64::MAX))
    }
}
