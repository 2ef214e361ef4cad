//! Every stored and wire record: rkyv inside a checked frame.
//!
//! rkyv's validation accepts most bit flips, so it is never the only guard:
//! bytes pass a length cap and a CRC32C before they are validated, and nothing
//! reads unvalidated bytes.

mod frame;

pub use frame::{
    FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind, decode_frame, encode_frame,
    frame_header,
};

use rkyv::{
    Archive, Deserialize, Serialize,
    api::high::{HighDeserializer, HighSerializer, HighValidator, to_bytes_in},
    bytecheck::CheckBytes,
    rancor::Error as RkyvError,
    ser::allocator::ArenaHandle,
};

/// Bytes that are not a valid record of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid record: {0}")]
pub struct InvalidRecord(pub String);

/// What can be written as bytes.
pub trait Record: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, RkyvError>> {}

impl<T> Record for T where T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, RkyvError>> {}

/// Room a buffer begins with: most messages, entries and requests fit, so that
/// writing one asks for memory once.
const USUAL_BYTES: usize = 256;

/// Writes a record as bytes.
pub fn to_bytes<T: Record>(record: &T) -> Vec<u8> {
    append(record, Vec::with_capacity(USUAL_BYTES))
}

/// Writes a record as bytes, its version before it.
pub fn to_versioned_bytes<T: Record>(version: u16, record: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.extend_from_slice(&version.to_le_bytes());
    append(record, bytes)
}

/// Records refer to their parts by distance and have no alignment (rkyv's
/// `unaligned`), so they may begin anywhere.
fn append<T: Record>(record: &T, bytes: Vec<u8>) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "serializing into memory cannot fail")]
    to_bytes_in::<_, RkyvError>(record, bytes).expect("serializing into memory cannot fail")
}

/// Reads a record, validating it first. The caller has checked a CRC or an
/// authentication tag over `bytes` and capped their length.
///
/// # Errors
/// If the bytes are not a valid `T`.
pub fn from_bytes<T>(bytes: &[u8]) -> Result<T, InvalidRecord>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
    rkyv::from_bytes::<T, RkyvError>(bytes).map_err(|error| InvalidRecord(error.to_string()))
}
