//! How a node ends, told or by itself.

use super::image::OldImage;

/// What failed when the few small files of a node cannot be written.
pub const STATE_FILES: &str = "the state files";

/// Why a node's actors ended by themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Told to stop.
    #[error("stopped")]
    Stopped,
    /// An actor the node cannot do without failed, or [`STATE_FILES`] did.
    #[error("{actor} failed: {cause}")]
    Failed {
        /// Which.
        actor: &'static str,
        /// Why.
        cause: String,
    },
    /// The catalog knows a later start of this node: the disk is an old image,
    /// or cannot tell who lived on it. It is noted; start the node again.
    #[error(
        "the disk of this node is an old image; start it again, and its replicas return under new ids"
    )]
    OldImage(OldImage),
    /// The catalog does not let this node take part.
    #[error("{0}; stop this node for good and join with an empty data directory")]
    Refused(String),
}
