//! Versions rise: a write that began after another was acknowledged has a
//! greater version, on the same key.
//!
//! Source: the root README's vocabulary: a number per shard that rises with
//! every write.

use std::collections::BTreeMap;

use cluster::{mvcc::version::Version, units::Instant};

/// An acknowledged write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The key.
    pub key: String,
    /// When it was asked.
    pub called: Instant,
    /// When it was acknowledged.
    pub returned: Instant,
    /// The version it was told.
    pub version: Version,
}

/// Judges the versions of acknowledged writes.
///
/// # Errors
/// A write whose version did not rise.
pub fn check(writes: &[Stamped]) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<&Stamped>> = BTreeMap::new();
    for write in writes {
        keys.entry(&write.key).or_default().push(write);
    }
    keys.into_values().try_for_each(check_key)
}

/// Walks calls in order beside returns in order: what has returned before a
/// call bounds its version from below.
fn check_key(mut by_call: Vec<&Stamped>) -> Result<(), String> {
    let mut by_return = by_call.clone();
    by_call.sort_by_key(|write| write.called);
    by_return.sort_by_key(|write| write.returned);
    let mut returned = by_return.into_iter().peekable();
    let mut highest = Version(0);
    for write in by_call {
        while let Some(before) = returned.next_if(|before| before.returned < write.called) {
            highest = highest.max(before.version);
        }
        if write.version <= highest {
            let Stamped { key, version, .. } = write;
            return Err(format!("a write of {key} got {version:?}, {highest:?} was given before"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn write(called: u64, returned: u64, version: u64) -> Stamped {
        let at = |ms| Instant::ORIGIN + Duration::from_millis(ms);
        let (called, returned) = (at(called), at(returned));
        Stamped { key: "k".to_owned(), called, returned, version: Version(version) }
    }

    #[test]
    fn a_version_that_falls_or_stays_is_found_and_concurrent_ones_are_free() {
        assert_eq!(check(&[write(0, 10, 1), write(11, 20, 2)]), Ok(()));
        assert_eq!(check(&[write(0, 10, 2), write(5, 20, 1)]), Ok(()));
        assert!(check(&[write(0, 10, 2), write(11, 20, 1)]).is_err());
        assert!(check(&[write(0, 10, 2), write(11, 20, 2)]).is_err());
    }
}
