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
    api::high::{HighDeserializer, HighSerializer, HighValidator},
    bytecheck::CheckBytes,
    rancor::Error as RkyvError,
    ser::allocator::ArenaHandle,
    util::AlignedVec,
};

/// Bytes that are not a valid record of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid record: {0}")]
pub struct InvalidRecord(pub String);

/// Writes a record as bytes.
///
/// # Panics
/// Never: serializing into memory cannot fail.
pub fn to_bytes<T>(record: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    #[expect(clippy::expect_used, reason = "serializing into memory cannot fail")]
    rkyv::to_bytes::<RkyvError>(record).expect("serializing into memory cannot fail").into_vec()
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
