//! The faults of one run by time, as data and as text; and their course.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use cluster::units::Instant;

use super::Fault;
use crate::world::World;

/// One fault with its time. Both times are whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it begins.
    pub at: Instant,
    /// How long it lives.
    pub life: Duration,
    /// What happens.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, life) = (self.at.since(Instant::ORIGIN), self.life);
        write!(f, "{}.{:03} ", at.as_secs(), at.subsec_millis())?;
        write!(f, "+{}.{:03} {}", life.as_secs(), life.subsec_millis(), self.fault)
    }
}

impl FromStr for Planned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, rest) = text.trim().split_once(' ').ok_or("a line is: time +life fault")?;
        let (life, fault) = rest.trim_start().split_once(' ').ok_or("the fault is missing")?;
        let life = life.strip_prefix('+').ok_or("the life of a fault begins with `+`")?;
        let at = Instant::ORIGIN + seconds(at)?;
        Ok(Self { at, life: seconds(life)?, fault: fault.parse()? })
    }
}

/// Reads `12.345`.
fn seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no time: write seconds with three digits, as 12.345");
    let (whole, millis) = text.split_once('.').ok_or_else(bad)?;
    let (whole, millis): (u64, u64) = match (whole.parse(), millis.parse(), millis.len()) {
        (Ok(whole), Ok(millis), 3) => (whole, millis),
        _ => return Err(bad()),
    };
    Ok(Duration::from_secs(whole) + Duration::from_millis(millis))
}

/// The faults of one run, by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(Vec<Planned>);

impl Schedule {
    /// A schedule of these faults; times are cut to whole milliseconds.
    pub fn of(faults: impl IntoIterator<Item = Planned>) -> Self {
        let whole = |span: Duration| {
            Duration::from_secs(span.as_secs())
                + Duration::from_millis(u64::from(span.subsec_millis()))
        };
        let mut faults: Vec<Planned> = faults
            .into_iter()
            .map(|Planned { at, life, fault }| {
                let at = Instant::ORIGIN + whole(at.since(Instant::ORIGIN));
                Planned { at, life: whole(life), fault }
            })
            .collect();
        faults.sort_by_key(|planned| planned.at);
        Self(faults)
    }

    /// The faults, by time.
    pub fn faults(&self) -> &[Planned] {
        &self.0
    }

    /// Its course; its times count from `from`.
    pub fn course(&self, from: Instant) -> Course {
        let shifted = |planned: &Planned| {
            let at = from + planned.at.since(Instant::ORIGIN);
            Planned { at, ..planned.clone() }
        };
        let ahead = self.0.iter().map(shifted).rev().collect();
        Course { ahead, under_way: BTreeMap::new(), begun: 0 }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|planned| writeln!(f, "{planned}"))
    }
}

impl FromStr for Schedule {
    type Err = String;

    /// Reads one fault a line; what follows `#` is a remark.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                faults.push(line.parse().map_err(|error| format!("line {number}: {error}"))?);
            }
        }
        Ok(Self::of(faults))
    }
}

/// A schedule that takes its course in a world.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// The last comes first.
    ahead: Vec<Planned>,
    /// By their ends.
    under_way: BTreeMap<(Instant, usize), Fault>,
    begun: usize,
}

impl Course {
    /// Ends and begins what is due; call it before each tick.
    pub fn advance(&mut self, world: &mut World) {
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > world.now() {
                break;
            }
            entry.remove().end(world);
        }
        while self.ahead.last().is_some_and(|planned| planned.at <= world.now()) {
            let Some(Planned { at, life, fault }) = self.ahead.pop() else { return };
            if fault.begin(world) {
                self.begun += 1;
                self.under_way.insert((at + life, self.begun), fault);
            }
        }
    }

    /// When it goes on.
    pub(crate) fn due(&self) -> Option<Instant> {
        let ends = self.under_way.first_key_value().map(|((end, _), _)| *end);
        self.ahead.last().map(|planned| planned.at).into_iter().chain(ends).min()
    }

    /// Ends all that is under way and forgets what was to come.
    pub fn finish(&mut self, world: &mut World) {
        self.ahead.clear();
        for fault in std::mem::take(&mut self.under_way).into_values() {
            fault.end(world);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_reads_what_it_prints() {
        let text =
            "5.300 +2.150 kill 2\n6.000 +0.800 one-way-cut 1 3\n7.001 +0.000 jitter 300 20ms\n";
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.to_string(), text);
        let remarked: Schedule =
            format!("# why\n\n{text}9.000 +1.000 drop 5 # last\n").parse().unwrap();
        assert_eq!(remarked.faults().len(), 4);
        assert_eq!(remarked.faults()[..3], *schedule.faults());
    }

    #[test]
    fn a_bad_line_is_named() {
        let bad = |text: &str| text.parse::<Schedule>().unwrap_err();
        assert!(
            bad("5.300 +1.000 kill 1\n5.3 +1.000 kill 2").starts_with("line 2: `5.3` is no time")
        );
        assert!(bad("5.300 1.000 kill 1").contains("begins with `+`"));
        assert!(bad("5.300").contains("time +life fault"));
    }
}
