//! What a run came to, as read from what its process printed.

use std::{collections::BTreeMap, process::ExitStatus};

/// Characters of a failure that fit one line of a table.
const HEADLINE_CHARS: usize = 90;

/// One run's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
    /// What it met, by name.
    pub(crate) counters: BTreeMap<String, u64>,
    /// Simulated time.
    pub(crate) simulated_ms: u64,
}

impl Outcome {
    /// Reads what a verdict prints: counters, the judgement, time and hash. A
    /// process that printed no verdict (it was aborted, or ran too long) failed.
    pub(crate) fn read(status: ExitStatus, stdout: &str, stderr: &str) -> Self {
        let mut outcome = Self::default();
        let mut failure: Option<Vec<&str>> = None;
        let mut ended = false;
        for line in stdout.lines() {
            if let Some((time, _)) = line.split_once(" simulated ms, ")
                && let Ok(time) = time.parse()
            {
                outcome.simulated_ms = time;
                ended = true;
            } else if let Some(first) = line.strip_prefix("FAILED: ") {
                failure = Some(vec![first]);
            } else if let Some(lines) = &mut failure {
                lines.push(line);
            } else if let Some((count, name)) = counter(line) {
                outcome.counters.insert(name.to_owned(), count);
            }
        }
        outcome.failure = match failure {
            Some(lines) => Some(lines.join("\n")),
            None if ended && status.success() => None,
            None => Some(format!("no verdict ({status}): {}", tail(stderr))),
        };
        outcome
    }

    /// The failure in one line.
    pub(crate) fn headline(&self) -> String {
        let failure = self.failure.as_deref().unwrap_or("passed");
        let line = failure.lines().next().unwrap_or_default();
        match line.char_indices().nth(HEADLINE_CHARS) {
            Some((at, _)) => format!("{}…", line.get(..at).unwrap_or(line)),
            None => line.to_owned(),
        }
    }
}

/// A line of a run's counters.
fn counter(line: &str) -> Option<(u64, &str)> {
    let (count, name) = line.strip_prefix(' ')?.trim_start().split_once(' ')?;
    Some((count.parse().ok()?, name))
}

/// The last lines of what a process complained.
fn tail(text: &str) -> String {
    const LINES: usize = 8;
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, time::Duration};

    use simulation::trial::Verdict;

    use super::*;

    fn verdict(failure: Option<&str>) -> Verdict {
        Verdict {
            failure: failure.map(str::to_owned),
            hash: 0xfeed,
            lines: Vec::new(),
            counters: vec![("power loss".to_owned(), 3), ("election".to_owned(), 12)],
            operations: 900,
            simulated: Duration::from_secs(61),
        }
    }

    #[test]
    fn what_a_verdict_prints_is_read_back() {
        let passed = Outcome::read(ExitStatus::default(), &verdict(None).to_string(), "");
        assert_eq!(passed.failure, None);
        assert_eq!(passed.simulated_ms, 61_000);
        assert_eq!(passed.counters.get("power loss"), Some(&3));
        let text = "key k is not linearizable; no place for: x\n    y\n    z";
        let failed = Outcome::read(ExitStatus::from_raw(256), &verdict(Some(text)).to_string(), "");
        assert_eq!(failed.failure.as_deref(), Some(text));
        assert_eq!(failed.headline(), "key k is not linearizable; no place for: x");
        assert_eq!(failed.counters.get("election"), Some(&12));
    }

    #[test]
    fn a_process_without_a_verdict_failed() {
        for (status, text) in [(0, ""), (134, "   3 election\n"), (256, "passed\n")] {
            let outcome = Outcome::read(ExitStatus::from_raw(status), text, "stack overflow");
            let failure = outcome.failure.expect("a failure");
            assert!(failure.ends_with("stack overflow"), "{failure}");
        }
    }
}
