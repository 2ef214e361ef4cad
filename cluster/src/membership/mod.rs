//! Who is there: gossip as a hint, identity as a proof.

pub mod identity;
pub mod image;
pub mod swim;
pub mod wire;

use rkyv::{Archive, Deserialize, Serialize};

use crate::ids::{BootNonce, Incarnation};

/// One start of one node. Peers remember the highest they saw: a lower
/// incarnation, or the same with another nonce, is an old disk image.
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
    /// Drawn at this start.
    pub nonce: BootNonce,
}
