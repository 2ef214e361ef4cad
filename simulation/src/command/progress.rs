//! How far it is, on a terminal; and what it cost.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use super::real_now;

/// Time between two lines of progress.
const PACE: Duration = Duration::from_millis(250);

/// A line that is written over and over, and only where somebody can see it.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    shown: Option<Instant>,
    visible: bool,
}

impl Progress {
    pub(crate) fn begin() -> Self {
        Self { began: real_now(), shown: None, visible: io::stderr().is_terminal() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Shows a line, if the last is old enough.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        if !self.visible || self.shown.is_some_and(|shown| shown.elapsed() < PACE) {
            return;
        }
        self.shown = Some(real_now());
        // A terminal that is gone is no reason to stop.
        let _ = write!(io::stderr(), "\r\x1b[K{}", line());
        let _ = io::stderr().flush();
    }

    /// Takes the line away, so that others can be printed.
    pub(crate) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Processor time of all processes this one has waited for; none where the
/// system does not tell. Linux counts it in hundredths of a second here.
pub(crate) fn children_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process stands in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let field = |number: usize| fields.split_whitespace().nth(number)?.parse::<u64>().ok();
    // Fields 16 and 17 of proc(5); the first after the name is the third.
    Some(Duration::from_millis(10 * (field(13)? + field(14)?)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_time_of_a_child_is_counted_once_it_ended() {
        let before = children_time().expect("a count");
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", script]).status().expect("a shell").success());
        let spent = children_time().expect("a count").saturating_sub(before);
        assert!(spent > Duration::ZERO && spent < Duration::from_secs(30), "{spent:?}");
    }
}
