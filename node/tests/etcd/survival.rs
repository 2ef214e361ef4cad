//! Libraries that others wrote, told of three members, while each of these dies once
//! (kill -9) and comes again: they go on, and nothing that they were told is lost.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use crate::{doors::Doors, libraries::Library};

/// Acknowledged writes before and after each death.
const STEP: u64 = 30;
/// Longest that nothing is acknowledged: an election, and what a library takes to notice
/// a dead connection and to go elsewhere.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A program that goes on until it is told to end.
struct Survivor {
    child: Child,
    /// Dropped to end it.
    typed: Option<ChildStdin>,
    lines: Receiver<String>,
    put: u64,
    saw: Vec<u64>,
    told: Vec<String>,
}

/// Kills each member in turn while a library is at work.
pub(crate) fn outlive(library: &Library, doors: &mut Doors) {
    let addresses: Vec<String> = doors.addresses.iter().map(ToString::to_string).collect();
    let Some(program) = library.survive(&addresses.join(",")) else { return };
    let mut survivor = Survivor::begin(program);
    survivor.goes_on(library.name, "at first");
    for number in 1..=3 {
        doors.cluster.nodes[number - 1].kill();
        survivor.goes_on(library.name, &format!("without n{number}"));
        doors.cluster.restart(number);
        survivor.goes_on(library.name, &format!("with n{number} again"));
    }
    survivor.end(library.name);
}

impl Survivor {
    fn begin(mut child: Child) -> Self {
        let (sender, lines) = channel();
        let printed: ChildStdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            BufReader::new(printed)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let typed = child.stdin.take();
        Self { child, typed, lines, put: 0, saw: Vec::new(), told: Vec::new() }
    }

    /// Takes in a line, if one comes in time.
    fn hear(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(line) = self.lines.recv_timeout(left) else { return false };
        match line.split_once(' ') {
            Some(("put", number)) => self.put = number.parse().unwrap(),
            Some(("saw", number)) => self.saw.push(number.parse().unwrap()),
            Some(_) | None => self.told.push(line),
        }
        true
    }

    /// So many more writes are acknowledged.
    fn goes_on(&mut self, name: &str, when: &str) {
        let (wanted, begun) = (self.put + STEP, Instant::now());
        let (mut before, mut silence) = (self.put, Duration::ZERO);
        let mut last = begun;
        while self.put < wanted {
            assert!(self.hear(last + SILENCE_MAX), "{name}, {when}: nothing after {}", self.put);
            if self.put > before {
                silence = silence.max(last.elapsed());
                (before, last) = (self.put, Instant::now());
            }
        }
        println!("{name}, {when}: silent for {silence:?} at most");
    }

    /// Ends it, and holds what it saw against what it was told.
    fn end(mut self, name: &str) {
        self.typed = None;
        let until = Instant::now() + SILENCE_MAX;
        while self.hear(until) {}
        let _ = self.child.kill();
        let keys = self.put + 1;
        assert_eq!(self.told, [format!("keys {keys}"), "lease true".to_owned()], "{name}");
        // A write whose answer was lost is written again.
        self.saw.dedup();
        assert_eq!(self.saw, (0..keys).collect::<Vec<_>>(), "{name}: every write in its order");
    }
}

impl Drop for Survivor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
