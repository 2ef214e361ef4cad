//! What the catalog says to a node whose disk is a restored old image: the
//! note the node keeps until it has drawn the consequences.

use rkyv::{Archive, Deserialize, Serialize};

use super::Boot;
use crate::{
    formats::{
        FRAME_HEADER_BYTES, FrameError, FrameKind, InvalidRecord, decode_frame, encode_frame,
        from_bytes, to_bytes,
    },
    ids::ReplicaId,
};

/// Version of the note's form on disk.
const VERSION: u16 = 1;
/// Bytes of a note: three numbers and a frame, with room.
pub const OLD_IMAGE_BYTES_MAX: usize = 1 << 10;

/// What the catalog said to a start that it had seen a later one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct OldImage {
    /// The latest start it knows of this node.
    pub seen: Boot,
    /// No replica with a higher id can have lived on this disk.
    pub born_up_to: ReplicaId,
}

/// A note that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OldImageError {
    /// Its bytes are not a whole frame.
    #[error("the note about an old image is damaged: {0}")]
    Frame(#[from] FrameError),
    /// Its content is none.
    #[error("the note about an old image is damaged: {0}")]
    Record(#[from] InvalidRecord),
    /// It is something else, or of a newer release.
    #[error("the note about an old image has another form: start the release that wrote it")]
    Form,
}

impl OldImage {
    /// The note as bytes of a small file.
    pub fn encode(&self) -> Vec<u8> {
        encode_frame(FrameKind::NodeState, VERSION, &to_bytes(self))
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no note.
    pub fn decode(bytes: &[u8]) -> Result<Self, OldImageError> {
        let (header, payload) = decode_frame(bytes, OLD_IMAGE_BYTES_MAX - FRAME_HEADER_BYTES)?;
        if header.kind != FrameKind::NodeState || header.version != VERSION {
            return Err(OldImageError::Form);
        }
        Ok(from_bytes(payload)?)
    }
}
