//! Frames on streams and in datagrams.
//!
//! A stream is a sequence of frames; a request stream begins with an 8-byte
//! prelude (class and deadline) and carries one frame each way. Everything a
//! peer can write is read here: length caps come before allocation, memory is
//! taken from the connection's budget, and a fault is a value, never a panic.
//!
//! ```text
//! prelude: | class u8 | reserved u8 × 3 | timeout in ms u32 |   (little-endian)
//! ```

use std::{io, time::Duration};

use bytes::Bytes;
use cluster::{
    formats::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, decode_frame, frame_header},
    limits::DATAGRAM_BYTES_MAX,
    ports::network::RequestClass,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    credit::{ByteBudget, ByteCredit},
    fault::PeerFault,
};

/// Version of all frames this crate writes.
pub(crate) const FRAME_VERSION: u16 = 1;
pub(crate) const PRELUDE_BYTES: usize = 8;

/// Why no frame was read.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The peer broke a rule.
    Fault(PeerFault),
    /// The stream or its connection ended.
    Gone(io::Error),
}

impl From<PeerFault> for ReadFailure {
    fn from(fault: PeerFault) -> Self {
        Self::Fault(fault)
    }
}

impl ReadFailure {
    fn from_io(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Fault(PeerFault::Truncated);
        }
        Self::Gone(error)
    }
}

/// A frame's payload and the memory it was granted.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) credit: Option<ByteCredit>,
}

/// Header and payload, ready to be written without copying the payload.
pub(crate) fn frame(kind: FrameKind, payload: Bytes) -> [Bytes; 2] {
    let header = frame_header(kind, FRAME_VERSION, &payload);
    [Bytes::copy_from_slice(&header), payload]
}

/// Reads one frame; `None` if the stream ends before it begins.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    kind: FrameKind,
    payload_bytes_max: usize,
    budget: Option<&ByteBudget>,
) -> Result<Option<Payload>, ReadFailure> {
    let mut header = [0; FRAME_HEADER_BYTES];
    let first = stream.read(&mut header).await.map_err(ReadFailure::Gone)?;
    if first == 0 {
        return Ok(None);
    }
    let rest = header.get_mut(first..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(ReadFailure::from_io)?;
    let header = FrameHeader::read(&header, payload_bytes_max).map_err(PeerFault::Frame)?;
    check_header(&header, kind)?;
    let credit = match budget {
        Some(budget) => Some(budget.take(header.payload_bytes).await),
        None => None,
    };
    let mut payload = vec![0; header.payload_bytes];
    stream.read_exact(&mut payload).await.map_err(ReadFailure::from_io)?;
    header.check(&payload).map_err(PeerFault::Frame)?;
    Ok(Some(Payload { bytes: payload.into(), credit }))
}

/// Reads the payload of a gossip datagram.
pub(crate) fn read_datagram(datagram: &Bytes) -> Result<Bytes, PeerFault> {
    let (header, payload) = decode_frame(datagram, DATAGRAM_BYTES_MAX)?;
    check_header(&header, FrameKind::Gossip)?;
    Ok(datagram.slice_ref(payload))
}

/// Reads that nothing follows.
pub(crate) async fn read_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), ReadFailure> {
    match stream.read(&mut [0]).await.map_err(ReadFailure::Gone)? {
        0 => Ok(()),
        _ => Err(PeerFault::Trailing.into()),
    }
}

fn check_header(header: &FrameHeader, kind: FrameKind) -> Result<(), PeerFault> {
    if header.kind != kind {
        return Err(PeerFault::Kind { expected: kind, found: header.kind });
    }
    if header.version != FRAME_VERSION {
        return Err(PeerFault::FrameVersion { kind, found: header.version });
    }
    Ok(())
}

/// What stands before a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prelude {
    pub(crate) class: RequestClass,
    pub(crate) timeout: Duration,
}

impl Prelude {
    pub(crate) fn encode(self) -> [u8; PRELUDE_BYTES] {
        let class = match self.class {
            RequestClass::Data => 0,
            RequestClass::Admin => 1,
            RequestClass::Bulk => 2,
            RequestClass::Join => 3,
        };
        let timeout = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX).to_le_bytes();
        let [a, b, c, d] = timeout;
        [class, 0, 0, 0, a, b, c, d]
    }

    pub(crate) fn decode(bytes: [u8; PRELUDE_BYTES]) -> Result<Self, PeerFault> {
        let [class, _, _, _, a, b, c, d] = bytes;
        let class = match class {
            0 => RequestClass::Data,
            1 => RequestClass::Admin,
            2 => RequestClass::Bulk,
            3 => RequestClass::Join,
            other => return Err(PeerFault::Class(other)),
        };
        let timeout = Duration::from_millis(u64::from(u32::from_le_bytes([a, b, c, d])));
        Ok(Self { class, timeout })
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, ReadFailure> {
        let mut bytes = [0; PRELUDE_BYTES];
        stream.read_exact(&mut bytes).await.map_err(ReadFailure::from_io)?;
        Ok(Self::decode(bytes)?)
    }
}
