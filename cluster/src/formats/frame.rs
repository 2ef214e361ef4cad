//! The frame around every record: 24 bytes of hand-written header.
//!
//! ```text
//! 0      4      6        8        12       16       20        24
//! | CDBf | kind | version | length | crc of payload | reserved | crc of header |
//! ```
//! Little-endian. The header has its own checksum, so a length is believed
//! (and memory allocated) only when the header is whole, and never beyond the
//! caller's limit.

/// Bytes of the header.
pub const FRAME_HEADER_BYTES: usize = 24;
const MAGIC: [u8; 4] = *b"CDBf";

/// What a frame carries. Numbers are stored: they never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum FrameKind {
    /// A gossip datagram.
    Gossip = 1,
    /// A batch of Raft messages.
    Raft = 2,
    /// A request.
    Request = 3,
    /// Its answer.
    Response = 4,
    /// First frame of a connection: who, which cluster, which configuration.
    Hello = 5,
    /// A batch in a log segment.
    LogBatch = 16,
    /// The header of a log segment.
    LogSegment = 17,
    /// A root record in a store.
    Root = 18,
    /// A small state file of the node (identity, last known catalog, …).
    NodeState = 19,
}

impl FrameKind {
    const ALL: [Self; 9] = [
        Self::Gossip,
        Self::Raft,
        Self::Request,
        Self::Response,
        Self::Hello,
        Self::LogBatch,
        Self::LogSegment,
        Self::Root,
        Self::NodeState,
    ];

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// A header that was read and believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: FrameKind,
    /// Version of that format.
    pub version: u16,
    /// Bytes of payload.
    pub payload_bytes: usize,
    /// CRC32C of the payload.
    payload_crc: u32,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than announced.
    #[error("frame is cut short")]
    Short,
    /// Not our magic.
    #[error("not a frame of this system")]
    Magic,
    /// The header's checksum does not match.
    #[error("frame header is damaged")]
    Header,
    /// A kind this release does not know.
    #[error("unknown frame kind {0}")]
    Kind(u16),
    /// Longer than allowed here.
    #[error("frame of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// Announced payload bytes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The payload's checksum does not match.
    #[error("frame payload is damaged")]
    Payload,
}

/// Puts `payload` in a frame.
///
/// # Panics
/// If the payload exceeds 4 GiB, which every caller's limit forbids.
pub fn encode_frame(kind: FrameKind, version: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    frame.extend_from_slice(&frame_header(kind, version, payload));
    frame.extend_from_slice(payload);
    frame
}

/// The header alone, for callers that build header and payload in one buffer.
///
/// # Panics
/// If the payload exceeds 4 GiB, which every caller's limit forbids.
pub fn frame_header(kind: FrameKind, version: u16, payload: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    #[expect(clippy::expect_used, reason = "callers cap payloads far below 4 GiB")]
    let length = u32::try_from(payload.len()).expect("frame payload below 4 GiB");
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&(kind as u16).to_le_bytes());
    header[6..8].copy_from_slice(&version.to_le_bytes());
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..16].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let header_crc = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&header_crc.to_le_bytes());
    header
}

impl FrameHeader {
    /// Reads a header and caps the length it announces.
    ///
    /// # Errors
    /// If it is short, foreign, damaged, of unknown kind or too long.
    pub fn read(bytes: &[u8], payload_bytes_max: usize) -> Result<Self, FrameError> {
        let header: &[u8; FRAME_HEADER_BYTES] =
            bytes.first_chunk::<FRAME_HEADER_BYTES>().ok_or(FrameError::Short)?;
        if header[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if crc32c::crc32c(&header[..20]) != word(20) {
            return Err(FrameError::Header);
        }
        let number = u16::from_le_bytes([header[4], header[5]]);
        let kind = FrameKind::from_number(number).ok_or(FrameError::Kind(number))?;
        let payload_bytes = word(8) as usize;
        if payload_bytes > payload_bytes_max {
            return Err(FrameError::TooLarge {
                bytes: payload_bytes,
                bytes_max: payload_bytes_max,
            });
        }
        Ok(Self {
            kind,
            version: u16::from_le_bytes([header[6], header[7]]),
            payload_bytes,
            payload_crc: word(12),
        })
    }

    /// Checks the payload that followed this header.
    ///
    /// # Errors
    /// If its length or checksum is another.
    pub fn check(&self, payload: &[u8]) -> Result<(), FrameError> {
        if payload.len() != self.payload_bytes {
            return Err(FrameError::Short);
        }
        if crc32c::crc32c(payload) != self.payload_crc {
            return Err(FrameError::Payload);
        }
        Ok(())
    }
}

/// Reads one whole frame; bytes after it are ignored.
///
/// # Errors
/// As [`FrameHeader::read`] and [`FrameHeader::check`].
pub fn decode_frame(
    bytes: &[u8],
    payload_bytes_max: usize,
) -> Result<(FrameHeader, &[u8]), FrameError> {
    let header = FrameHeader::read(bytes, payload_bytes_max)?;
    let payload = bytes
        .get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_bytes)
        .ok_or(FrameError::Short)?;
    header.check(payload)?;
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_bit_flip_is_noticed() {
        let frame = encode_frame(FrameKind::Request, 1, b"hello, frame");
        for bit in 0..frame.len() * 8 {
            let mut bent = frame.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bent, 1024).is_err(), "bit {bit} went unnoticed");
        }
        assert!(decode_frame(&frame, 1024).is_ok());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_payload_is_looked_at() {
        let frame = encode_frame(FrameKind::Request, 1, &[7; 100]);
        let header_only = &frame[..FRAME_HEADER_BYTES];
        assert_eq!(
            FrameHeader::read(header_only, 99),
            Err(FrameError::TooLarge { bytes: 100, bytes_max: 99 })
        );
    }
}
