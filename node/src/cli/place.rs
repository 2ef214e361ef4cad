//! Names on the command line: `VOLUME/KEY`, local paths, nodes.

use cluster::{catalog::record::NodeRecord, codes::ErrorCode, ids::NodeId};

use super::error::{CliError, Outcome};

/// A key, or a prefix, in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The volume.
    pub volume: String,
    /// The key or prefix; empty for all of the volume.
    pub key: String,
}

impl Place {
    /// Reads `VOLUME/KEY`, `VOLUME/` or `VOLUME`.
    ///
    /// # Errors
    /// If the volume is empty.
    pub fn parse(text: &str) -> Outcome<Self> {
        let (volume, key) = text.split_once('/').unwrap_or((text, ""));
        if volume.is_empty() {
            let fix = "write VOLUME/KEY, as in data/hello";
            return Err(CliError::usage(format!("`{text}` names no volume"), fix).into());
        }
        Ok(Self { volume: volume.into(), key: key.into() })
    }

    /// As [`Self::parse`], for one key.
    ///
    /// # Errors
    /// If volume or key is empty.
    pub fn parse_key(text: &str) -> Outcome<Self> {
        let place = Self::parse(text)?;
        if place.key.is_empty() {
            let fix = format!("write VOLUME/KEY, as in {}/hello", place.volume);
            return Err(CliError::usage(format!("`{text}` names no key"), fix).into());
        }
        Ok(place)
    }
}

/// Whether an argument of `sync` is a path of this machine: it begins with
/// `/`, `.` or `~`. Everything else names a volume.
pub fn is_local(text: &str) -> bool {
    text.starts_with(['/', '.', '~'])
}

/// Finds a node as people name it: `2`, `n2` or its whole id.
///
/// # Errors
/// If no member is meant.
pub fn find_node<'a>(nodes: &'a [NodeRecord], name: &str) -> Outcome<&'a NodeRecord> {
    let number = name.strip_prefix('n').unwrap_or(name).parse::<u64>().ok();
    let id = NodeId::from_hex(name);
    nodes.iter().find(|node| Some(node.node) == id || Some(node.number) == number).ok_or_else(
        || {
            let known: Vec<String> = nodes.iter().map(|node| format!("n{}", node.number)).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            CliError::new(
                ErrorCode::UnknownNode,
                format!("there is no node {name}"),
                format!("the members are {known}"),
                "name one as `cdb node ls` shows it",
            )
            .into()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_hold_slashes_and_a_volume_may_stand_alone() {
        let place = Place::parse_key("data/a/b").unwrap();
        assert_eq!((place.volume.as_str(), place.key.as_str()), ("data", "a/b"));
        assert_eq!(Place::parse("data").unwrap().key, "");
        assert!(Place::parse("/a").is_err());
        assert!(Place::parse_key("data/").is_err());
    }

    #[test]
    fn paths_are_told_from_volumes_by_their_first_character() {
        for path in ["./a", "../a", "/a", ".", "~/a"] {
            assert!(is_local(path), "{path}");
        }
        assert!(!is_local("data/tree/"));
    }
}
