//! Is every acknowledged write still there at the end?
//!
//! Simpler than linearizability and independent of it: a key's final value
//! must come from a write that no acknowledged write certainly followed.

use std::fmt;

use super::history::{Action, Operation, Value};

/// An acknowledged write that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The write that was acknowledged.
    pub write: Operation,
    /// What the key holds instead.
    pub found: Option<Value>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost: {}; the key holds {:?} at the end", self.write, self.found)
    }
}

/// Judges the final value of `key` against the writes of a history.
///
/// # Errors
/// An acknowledged write that is gone.
pub fn check(history: &[Operation], key: &str, found: Option<Value>) -> Result<(), Loss> {
    let writes = || {
        history
            .iter()
            .filter(|operation| operation.key == key)
            .filter(|operation| matches!(operation.action, Action::Write(_)))
    };
    // The writes that explain what was found, and acknowledged ones after each.
    let mut lost = None;
    for source in writes().filter(|write| write.action == Action::Write(found)) {
        let Some(ended) = source.returned else { return Ok(()) };
        let later = writes().find(|write| write.returned.is_some() && write.called > ended);
        let Some(later) = later else { return Ok(()) };
        lost = Some(later.clone());
    }
    if found.is_none() && lost.is_none() {
        // The key as it was before the first write explains it too.
        lost = writes().find(|write| write.returned.is_some()).cloned();
    } else if lost.is_none() {
        lost = writes().next_back().cloned();
    }
    match lost {
        Some(write) => Err(Loss { write, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::units::Instant;

    use super::*;

    fn write(value: Option<Value>, called: u64, returned: Option<u64>) -> Operation {
        let at = |ms| Instant::ORIGIN + Duration::from_millis(ms);
        Operation {
            client: 1,
            key: "k".to_owned(),
            action: Action::Write(value),
            called: at(called),
            returned: returned.map(at),
        }
    }

    #[test]
    fn the_last_acknowledged_write_must_be_there() {
        let history = [write(Some(1), 0, Some(10)), write(Some(2), 11, Some(20))];
        assert_eq!(check(&history, "k", Some(2)), Ok(()));
        assert_eq!(check(&history, "k", Some(1)).unwrap_err().write, history[1]);
        assert!(check(&history, "k", None).is_err());
        assert!(check(&history, "k", Some(3)).is_err());
    }

    #[test]
    fn concurrent_and_unknown_writes_may_be_the_last() {
        let both = [write(Some(1), 0, Some(10)), write(Some(2), 5, Some(20))];
        assert_eq!(check(&both, "k", Some(1)), Ok(()));
        let unknown = [write(Some(1), 0, None), write(Some(2), 5, Some(20))];
        assert_eq!(check(&unknown, "k", Some(1)), Ok(()));
        assert_eq!(check(&unknown[..1], "k", None), Ok(()));
    }

    #[test]
    fn a_deleted_key_stays_deleted() {
        let history = [write(Some(1), 0, Some(10)), write(None, 11, Some(20))];
        assert_eq!(check(&history, "k", None), Ok(()));
        assert!(check(&history, "k", Some(1)).is_err());
    }
}
