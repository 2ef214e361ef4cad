//! What can be wrong with a peer, and the numbers that tell it so.
//!
//! A peer that breaks the protocol loses its connection, with a code and a
//! sentence; nobody else notices. A request that cannot be served loses its
//! stream only. The numbers travel: they never change meaning.

use cluster::formats::{FrameError, FrameKind};
use quinn::VarInt;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum CloseCode {
    /// The process is stopping, or the client is done.
    Done = 0,
    /// A newer connection took over.
    Replaced = 1,
    /// Too old, and not replaced in time.
    Aged = 2,
    /// The node was removed from the cluster.
    Removed = 3,
    /// A cap is met.
    Busy = 4,
    /// Hello did not come in time.
    Timeout = 5,
    /// No common protocol version.
    Version = 6,
    /// Hello names another cluster, identity or configuration.
    Hello = 7,
    /// A frame or stream broke the protocol.
    Fault = 8,
}

impl CloseCode {
    const ALL: [Self; 9] = [
        Self::Done,
        Self::Replaced,
        Self::Aged,
        Self::Removed,
        Self::Busy,
        Self::Timeout,
        Self::Version,
        Self::Hello,
        Self::Fault,
    ];

    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(crate) fn from_code(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    pub(crate) fn close(self, connection: &quinn::Connection, reason: &str) {
        connection.close(self.code(), reason.as_bytes());
    }
}

/// Why a request's stream was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum StreamCode {
    /// The asker gave up.
    Cancelled = 1,
    /// Too many requests of this class; nothing was done.
    Busy = 2,
    /// This peer may not ask this class; nothing was done.
    NotAllowed = 3,
    /// The answer exceeds the largest frame.
    AnswerTooLarge = 4,
    /// Nobody answered within the asker's own deadline.
    Expired = 5,
}

impl StreamCode {
    const ALL: [Self; 5] =
        [Self::Cancelled, Self::Busy, Self::NotAllowed, Self::AnswerTooLarge, Self::Expired];

    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(crate) fn from_code(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }
}

/// A rule the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerFault {
    #[error("bad frame: {0}")]
    Frame(#[from] FrameError),
    #[error("expected a frame of kind {expected:?}, got {found:?}")]
    Kind { expected: FrameKind, found: FrameKind },
    #[error("frame {kind:?} has version {found}; this release reads version 1")]
    FrameVersion { kind: FrameKind, found: u16 },
    #[error("stream ended inside a frame")]
    Truncated,
    #[error("bytes follow the one frame of a request stream")]
    Trailing,
    #[error("unknown request class {0}")]
    Class(u8),
    #[error("hello of {0} bytes is too short")]
    HelloShort(usize),
    #[error("unknown role {0} in hello")]
    HelloRole(u8),
}
