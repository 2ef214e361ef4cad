//! The table of faults: each kind with its word and its arguments.
//!
//! One row makes the kind, the fault and its text in both directions, so that
//! printing and parsing cannot drift apart. Machines are named by number, from 1.

use std::{fmt, str::FromStr, time::Duration};

use actors::failpoint::FailPoint;

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
    /// A process stands still (SIGSTOP); its clocks jump when it goes on.
    Pause "pause" (node: u32);
    /// A process runs only once in so many ticks of a millisecond.
    SlowProcessor "slow-processor" (node: u32, ticks: u32);
    /// A process is killed and started again every so often.
    RestartLoop "restart-loop" (node: u32, every: Millis);
    /// A machine dies at a named place in the product, when it comes there.
    FailPoint "fail-point" (node: u32, point: FailPoint, death: Death);
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
    /// So many messages in a million arrive again, seconds later.
    Replay "replay" (ppm: u32);
    /// What one machine sends another queues up, and flows when the clog ends.
    Clog "clog" (from: u32, to: u32);
    /// All ways of a machine clog; several overlap, and end in another order.
    Swizzle "swizzle" (node: u32);
    /// All connections of a machine break at once.
    Reset "reset" (node: u32);
    /// No connection with a machine comes up.
    Deaf "deaf" (node: u32);
    /// A wall clock jumps by so many milliseconds, and back.
    WallJump "wall-jump" (node: u32, by_ms: i32);
    /// A monotonic clock gains so many millionths.
    Drift "drift" (node: u32, ppm: i32);
    /// A wall clock stands still.
    WallFreeze "wall-freeze" (node: u32);
    /// A wall clock jumps to and fro.
    Strobe "strobe" (node: u32, by_ms: i32, every: Millis);
    /// A disk is so many times slower than usual.
    SlowDisk "slow-disk" (node: u32, factor: u32);
    /// The syncs of a log are so many times slower than usual.
    SlowSyncs "slow-syncs" (node: u32, factor: u32);
    /// Nothing that is asked of a disk comes to its end.
    StalledDisk "stalled-disk" (node: u32);
    /// Reads of log and state files fail.
    ReadError "read-error" (node: u32);
    /// Writes of log and state files fail.
    WriteError "write-error" (node: u32);
    /// The next sync of the log fails once, and its pages are gone.
    SyncError "sync-error" (node: u32);
    /// The next read of the log brings a flipped bit.
    FlipOnRead "flip-on-read" (node: u32, draw: u32);
    /// A bit of the log flips on disk.
    RotLog "rot-log" (node: u32, draw: u32);
    /// A store cannot be read any more.
    RotStore "rot-store" (node: u32, draw: u32);
    /// A bit of the copy of the catalog flips on disk.
    RotCopy "rot-copy" (node: u32, draw: u32);
    /// A sector meant for elsewhere overwrites one of the log.
    Misdirected "misdirected" (node: u32, draw: u32);
    /// A file of the log ends too early.
    Truncated "truncated" (node: u32, draw: u32);
    /// A disk is set back to what it was when the fault began.
    OldImage "old-image" (node: u32);
    /// A disk is lost; its machine comes back as a stranger, same address.
    WipedDisk "wiped-disk" (node: u32);
    /// Two machines have each other's log and stores.
    SwappedDisks "swapped-disks" (a: u32, b: u32);
    /// A machine gives every leadership away.
    TransferLeaders "transfer-leaders" (node: u32);
    /// A new machine joins the cluster.
    AddNode "add-node" ();
    /// A node is removed for good.
    RemoveNode "remove-node" (node: u32);
    /// A new machine joins, and a node is removed for good.
    ReplaceNode "replace-node" (node: u32);
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
