//! What a change is of, as it is told: keys, leases, names.
//!
//! Who asks chooses them, so each is told by its first bytes and how many there are.
//! Text stands as it is. What is no text, or holds control characters, of which JSON
//! makes six bytes each, is told in base64:
//!
//! ```text
//! {"key":"/a"}   {"range":{"from":"a","to":"b"}}   {"key":{"base64":"/wE=","bytes":2}}
//! {"key":{"text":"aaaa…","bytes":1572864}}
//! ```

use base64::{Engine, engine::general_purpose::STANDARD};
use cluster::{
    auth::Principal,
    ids::{LeaseId, NodeId},
    shard::transaction::Keys,
};
use serde::Serialize;

/// Bytes of a key or name that are told.
const TOLD_BYTES_MAX: usize = 256;
/// Most bytes of a subject in a line: two bounds of a range, each 256 bytes that JSON
/// escapes by two and 64 for what stands around them.
pub(super) const SUBJECT_BYTES_MAX: usize = 2 * (2 * TOLD_BYTES_MAX + 64);

/// Something a change is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A key.
    Key(Told),
    /// All keys from one up to another; an empty end is that of all keys.
    Range {
        /// The first.
        from: Told,
        /// The first that is not meant.
        to: Told,
    },
    /// A lease, in hexadecimal as `etcdctl` shows it.
    Lease(String),
    /// The name of a lock or an election.
    Name(Told),
    /// A user.
    User(Told),
    /// A role.
    Role(Told),
    /// What a role may do with keys.
    Access(&'static str),
    /// A member, in hexadecimal.
    Member(String),
    /// A node of the cluster.
    Node(String),
    /// A volume.
    Volume(Told),
    /// All history below this revision.
    Below(i64),
}

impl Subject {
    /// A key.
    pub fn key(key: &[u8]) -> Self {
        Self::Key(Told::of(key))
    }

    /// A key or a range.
    pub fn keys(keys: &Keys) -> Self {
        match keys {
            Keys::One(key) => Self::key(key),
            Keys::Range { from, to } => Self::Range { from: Told::of(from), to: Told::of(to) },
        }
    }

    /// A lease.
    pub fn lease(lease: LeaseId) -> Self {
        Self::Lease(format!("{:x}", lease.0))
    }

    /// A lock or an election.
    pub fn name(name: &[u8]) -> Self {
        Self::Name(Told::of(name))
    }

    /// A user.
    pub fn user(name: &str) -> Self {
        Self::User(Told::of(name.as_bytes()))
    }

    /// A role.
    pub fn role(name: &str) -> Self {
        Self::Role(Told::of(name.as_bytes()))
    }

    /// A node of the cluster, as `cdb` shows it.
    pub fn node(node: NodeId) -> Self {
        Self::Node(node.to_string())
    }

    /// A volume.
    pub fn volume(name: &str) -> Self {
        Self::Volume(Told::of(name.as_bytes()))
    }

    /// A member of the cluster, as etcd shows it.
    pub fn member(id: u64) -> Self {
        Self::Member(format!("{id:x}"))
    }
}

/// Bytes somebody chose, as they are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Told {
    /// Text, all of it.
    Text(String),
    /// The first bytes of a longer text.
    Beginning {
        /// They.
        text: String,
        /// How many there are in all.
        bytes: usize,
    },
    /// The first bytes of what is no text.
    Bytes {
        /// They, in base64.
        base64: String,
        /// How many there are in all.
        bytes: usize,
    },
}

impl From<&Principal> for Told {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::User { name, .. } => Self::of(name.as_bytes()),
            Principal::Trusted | Principal::Nameless => Self::nobody(),
        }
    }
}

impl Told {
    /// Somebody who did not say who it was.
    pub fn nobody() -> Self {
        Self::Text("-".to_owned())
    }

    /// What is told of some bytes.
    pub fn of(given: &[u8]) -> Self {
        let bytes = given.len();
        match std::str::from_utf8(given) {
            Ok(text) if !head(text).contains(char::is_control) => {
                let text = head(text).to_owned();
                if text.len() == bytes { Self::Text(text) } else { Self::Beginning { text, bytes } }
            }
            Ok(_) | Err(_) => {
                let first = given.get(..TOLD_BYTES_MAX).unwrap_or(given);
                Self::Bytes { base64: STANDARD.encode(first), bytes }
            }
        }
    }
}

/// The beginning of a text, as far as it is told.
pub(super) fn head(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TOLD_BYTES_MAX)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(subject: &Subject) -> String {
        serde_json::to_string(subject).unwrap()
    }

    #[test]
    fn what_a_key_looks_like_says_nothing_of_what_it_is() {
        for text in ["base64:/wE=", "a..b", "lease 7b", "{\"from\":1}"] {
            let wanted = serde_json::json!({ "key": text }).to_string();
            assert_eq!(told(&Subject::key(text.as_bytes())), wanted);
        }
        let range = told(&Subject::keys(&Keys::Range { from: b"a".to_vec(), to: vec![0xff, 1] }));
        assert_eq!(range, r#"{"range":{"from":"a","to":{"base64":"/wE=","bytes":2}}}"#);
        assert_eq!(told(&Subject::key(b"a\nb")), r#"{"key":{"base64":"YQpi","bytes":3}}"#);
        assert_eq!(told(&Subject::lease(LeaseId(123))), r#"{"lease":"7b"}"#);
    }

    #[test]
    fn of_long_ones_the_first_whole_characters_are_told() {
        let long = "ä".repeat(1_000) + "x";
        let Subject::Key(Told::Beginning { text, bytes }) = Subject::key(long.as_bytes()) else {
            panic!("it is long")
        };
        assert_eq!((text, bytes), ("ä".repeat(128), 2_001));
        let odd = format!("x{long}");
        let Told::Beginning { text, .. } = Told::of(odd.as_bytes()) else { panic!("it is long") };
        assert_eq!(text.len(), 255, "no half of a character");
    }
}
