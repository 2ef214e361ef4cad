//! The table of faults: each kind with its word and its arguments.
//!
//! One row makes the kind, the fault and its text in both directions, so that
//! printing and parsing cannot drift apart. Machines are named by number, from 1.

use std::{fmt, str::FromStr, time::Duration};

use crate::disk::Death;

/// Makes [`Kind`] and [`Fault`] from rows of doc, name, word and arguments.
macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident $word:literal ($($field:ident: $type:ty),*);)*) => {
        /// Kinds of faults the swarm switches on and off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind),* }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its word in a schedule.
            pub fn word(self) -> &'static str {
                match self { $(Self::$kind => $word),* }
            }

            /// Its counter: how often it struck.
            pub fn counter(self) -> &'static str {
                match self { $(Self::$kind => concat!("fault ", $word)),* }
            }
        }

        /// One thing that happens to the world.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the row's line says what its arguments are")]
        pub enum Fault { $($(#[$doc])* $kind { $($field: $type),* }),* }

        impl Fault {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind { .. } => Kind::$kind),* }
            }
        }

        impl fmt::Display for Fault {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$kind { $($field),* } => {
                        f.write_str($word)?;
                        $(write!(f, " {}", $field)?;)*
                        Ok(())
                    })*
                }
            }
        }

        impl FromStr for Fault {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut words = text.split_whitespace();
                let fault = match words.next().unwrap_or_default() {
                    $($word => Self::$kind { $($field: argument(&mut words, stringify!($field))?),* },)*
                    other => return Err(format!("no fault is called `{other}`")),
                };
                match words.next() {
                    None => Ok(fault),
                    Some(more) => Err(format!("`{more}` is one word too many")),
                }
            }
        }
    };
}

faults! {
    /// A process is killed and started again.
    Kill "kill" (node: u32);
    /// A machine loses power: unsynced writes are kept, lost, torn or reordered.
    PowerLoss "power-loss" (node: u32);
    /// All machines end at one instant, one way or the other.
    CrashAll "crash-all" (death: Death);
    /// One machine is cut off.
    Isolate "isolate" (node: u32);
    /// Nothing passes between these machines and the others.
    Cut "cut" (side: Machines);
    /// Nothing passes from one machine to another; the way back is open.
    OneWayCut "one-way-cut" (from: u32, to: u32);
    /// Everything takes up to so much longer.
    Delay "delay" (most: Millis);
    /// So many parcels in a million take up to so much longer.
    Jitter "jitter" (ppm: u32, most: Millis);
    /// So many messages in a million may overtake the one before.
    Reorder "reorder" (ppm: u32);
    /// So many messages in a million are lost.
    Drop "drop" (ppm: u32);
    /// So many messages in a million arrive twice.
    Duplicate "duplicate" (ppm: u32);
    /// A disk is so many times slower than usual.
    SlowDisk "slow-disk" (node: u32, factor: u32);
    /// The syncs of a log are so many times slower than usual.
    SlowSyncs "slow-syncs" (node: u32, factor: u32);
    /// A disk has no room.
    FullDisk "full-disk" (node: u32);
    /// A process is killed and starts again at once: connections are reset
    /// while streams are open.
    Bounce "bounce" (node: u32);
    /// So many packets in a million have a bit flipped, where there are packets.
    PacketFlip "packet-flip" (ppm: u32);
    /// So many packets in a million come again later, where there are packets.
    PacketReplay "packet-replay" (ppm: u32);
    /// So many packets of handshakes in a million are lost.
    HandshakeStall "handshake-stall" (ppm: u32);
}

/// The next argument of a fault.
fn argument<T: FromStr<Err: fmt::Display>>(
    words: &mut std::str::SplitWhitespace<'_>,
    name: &str,
) -> Result<T, String> {
    let word = words.next().ok_or_else(|| format!("`{name}` is missing"))?;
    word.parse().map_err(|error| format!("`{word}` is no {name}: {error}"))
}

/// A span in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u32);

impl Millis {
    /// The span.
    pub fn span(self) -> Duration {
        Duration::from_millis(u64::from(self.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

impl FromStr for Millis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("ms").ok_or("a span ends in `ms`")?;
        number.parse().map(Self).map_err(|error| format!("{error}"))
    }
}

/// Some machines, by number: `1,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machines(pub Vec<u32>);

impl fmt::Display for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

impl FromStr for Machines {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split(',').map(|number| number.parse().map_err(|e| format!("{e}")));
        Ok(Self(numbers.collect::<Result<_, String>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_is_wrong_with_its_text() {
        let parse = |text: &str| text.parse::<Fault>().unwrap_err();
        assert_eq!(parse("earthquake 1"), "no fault is called `earthquake`");
        assert_eq!(parse("kill"), "`node` is missing");
        assert_eq!(parse("kill 1 2"), "`2` is one word too many");
        assert!(parse("kill two").starts_with("`two` is no node"));
        assert!(parse("delay 5").contains("`ms`"));
    }

    #[test]
    fn words_of_kinds_differ() {
        let words: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
    }
}
