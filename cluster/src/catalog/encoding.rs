//! Catalog records as bytes, and the keys they lie under.
//!
//! A record is a little-endian `u16` version followed by rkyv bytes. The
//! bytes come out of a log or store that has checked their CRC; validation
//! here catches a wrong type, not a flipped bit.
//!
//! Invariant: a key is made by this file only, so listing by prefix finds
//! every record of a kind and nothing else.

use rkyv::{
    Archive, Deserialize,
    api::high::{HighDeserializer, HighValidator},
    bytecheck::CheckBytes,
    rancor::Error as RkyvError,
};

use crate::{
    formats::{InvalidRecord, Record, from_bytes, to_versioned_bytes},
    ids::{NodeId, ShardId, TenantId},
};

/// Version of the record encoding.
pub const RECORD_VERSION: u16 = 1;

/// Key of the cluster record.
pub const CLUSTER_KEY: &str = "cluster";
/// Key of the ids record.
pub const IDS_KEY: &str = "ids";
/// Prefix of node records.
pub const NODE_PREFIX: &str = "node/";
/// Prefix of volume records.
pub const VOLUME_PREFIX: &str = "volume/";
/// Prefix of shard records.
pub const SHARD_PREFIX: &str = "shard/";
/// Prefix of token records.
pub const TOKEN_PREFIX: &str = "token/";

/// Key of a node's record.
pub fn node_key(node: NodeId) -> String {
    format!("{NODE_PREFIX}{}", node.to_hex())
}

/// Key of a volume's record.
pub fn volume_key(tenant: TenantId, name: &str) -> String {
    format!("{VOLUME_PREFIX}{}/{name}", tenant.0)
}

/// Key of a shard's record; digits are padded so that keys sort as numbers.
pub fn shard_key(shard: ShardId) -> String {
    format!("{SHARD_PREFIX}{:020}", shard.0)
}

/// Key of a token's record.
pub fn token_key(hash: &[u8; 32]) -> String {
    let mut key = String::with_capacity(TOKEN_PREFIX.len() + 64);
    key.push_str(TOKEN_PREFIX);
    for byte in hash {
        for digit in [byte >> 4, byte & 15] {
            key.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    key
}

/// Writes a record with its version.
pub fn encode_record<T: Record>(record: &T) -> Vec<u8> {
    to_versioned_bytes(RECORD_VERSION, record)
}

/// Reads a record that [`encode_record`] wrote.
///
/// # Errors
/// If it is of another version or not a valid `T`.
pub fn decode_record<T>(bytes: &[u8]) -> Result<T, InvalidRecord>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
    let Some((version, rest)) = bytes.split_first_chunk::<2>() else {
        return Err(InvalidRecord("shorter than its version".into()));
    };
    match u16::from_le_bytes(*version) {
        RECORD_VERSION => from_bytes(rest),
        newer => Err(InvalidRecord(format!(
            "record version {newer}, this release reads {RECORD_VERSION}: start the newer release"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::record::IdsRecord;

    #[test]
    fn shard_keys_sort_as_numbers() {
        assert!(shard_key(ShardId(9)) < shard_key(ShardId(10)));
        assert_eq!(shard_key(ShardId(7)), "shard/00000000000000000007");
        assert_eq!(token_key(&[0xa5; 32]), format!("token/{}", "a5".repeat(32)));
    }

    #[test]
    fn a_record_of_another_version_or_type_is_refused() {
        let ids = IdsRecord { node_number: 1, volume: 2, shard: 3, replica: 4, tenant: 5 };
        let mut bytes = encode_record(&ids);
        assert_eq!(decode_record::<IdsRecord>(&bytes), Ok(ids));
        assert!(decode_record::<IdsRecord>(&bytes[..1]).is_err());
        assert!(decode_record::<IdsRecord>(&bytes[..20]).is_err());
        bytes[0] = 2;
        let error = decode_record::<IdsRecord>(&bytes).unwrap_err();
        assert!(error.to_string().contains("newer release"), "{error}");
    }
}
