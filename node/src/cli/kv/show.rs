//! A key with all that is known of it, as it is shown.

use cluster::request::Item;
use serde::Serialize;

use super::super::render::printable;

/// One key.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ItemView {
    /// As text; of bytes that are none, what can be read of them.
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    /// As text; of bytes that are none, what can be read of them.
    pub(in crate::cli) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    bytes: u64,
    created: u64,
    modified: u64,
    changes: u64,
    lease: u64,
}

impl ItemView {
    pub(super) const HEADER: [&str; 6] =
        ["KEY", "VALUE", "MODIFIED", "CREATED", "CHANGES", "LEASE"];

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.key.clone(),
            printable(&self.value),
            self.modified.to_string(),
            self.created.to_string(),
            self.changes.to_string(),
            self.lease.to_string(),
        ]
    }
}

impl From<&Item> for ItemView {
    fn from(item: &Item) -> Self {
        let (key, key_hex) = value_text(&item.key);
        let (value, value_hex) = value_text(&item.value);
        Self {
            key,
            key_hex,
            value,
            value_hex,
            bytes: item.value_bytes,
            created: item.created.0,
            modified: item.modified.0,
            changes: item.changes,
            lease: item.lease.0,
        }
    }
}

/// A key or a value as text, and in hexadecimal digits if it is none.
pub(in crate::cli) fn value_text(value: &[u8]) -> (String, Option<String>) {
    use std::fmt::Write;
    if let Ok(text) = std::str::from_utf8(value) {
        return (text.to_owned(), None);
    }
    let hex = value.iter().fold(String::new(), |mut hex, byte| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    (String::from_utf8_lossy(value).into_owned(), Some(hex))
}

#[cfg(test)]
mod tests {
    use cluster::{ids::LeaseId, mvcc::version::Version};

    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_whole() {
        let item = |key: &[u8]| Item {
            key: key.to_vec(),
            value: vec![0xff],
            value_bytes: 1,
            created: Version(2),
            modified: Version(2),
            changes: 1,
            modified_ms: 0,
            lease: LeaseId(0),
        };
        let [text, bytes] = [item(b"a"), item(b"a\xfe")]
            .map(|item| serde_json::to_value(ItemView::from(&item)).unwrap_or_default());
        assert_eq!((&text["key"], text.get("key_hex")), (&"a".into(), None));
        assert_eq!((&bytes["key_hex"], &bytes["value_hex"]), (&"61fe".into(), &"ff".into()));
    }
}
