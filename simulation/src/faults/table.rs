//! The table of faults: each kind with its word and its arguments.
//!
//! One row makes the kind, the fault and its text in both directions, so that
//! printing and parsing cannot drift apart. Machines are named by number, from 1.

use std::{fmt, str::FromStr, time::Duration};

use actors::failpoint::FailPoint;

use crate::disk::Death;

/// What faults strike: a host application that cannot bear a group leaves it
/// out of its [`super::Ground`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A process: it ends, stands still, is slow. Only what it had not synced
    /// is gone.
    Process,
    /// What passes between machines.
    Network,
    /// A clock.
    Clock,
    /// A device: it is slow, full, or says that it failed. What it holds is sound.
    Device,
    /// What a disk holds: it goes bad, is old, another's, or gone. Borne by
    /// whoever keeps copies on other machines, and tells a bad one.
    Data,
    /// What an operator does with the product.
    Operation,
}

impl Group {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Process, Self::Network, Self::Clock, Self::Device, Self::Data, Self::Operation];
}

/// Makes [`Kind`] and [`Fault`] from rows of doc, name, group, word and arguments.
macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident $group:ident $word:literal ($($field:ident: $type:ty),*);)*) => {
        /// Kinds of faults the swarm switches on and off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind),* }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// What it strikes.
            pub fn group(self) -> Group {
                match self { $(Self::$kind => Group::$group),* }
            }

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
    Kill Process "kill" (node: u32);
    /// A machine loses power: unsynced writes are kept, lost, torn or reordered.
    PowerLoss Process "power-loss" (node: u32);
    /// All machines end at one instant, one way or the other.
    CrashAll Process "crash-all" (death: Death);
    /// A process stands still (SIGSTOP); its clocks jump when it goes on.
    Pause Process "pause" (node: u32);
    /// A process runs only once in so many ticks of a millisecond.
    SlowProcessor Process "slow-processor" (node: u32, ticks: u32);
    /// A process is killed and started again every so often.
    RestartLoop Process "restart-loop" (node: u32, every: Millis);
    /// A machine dies at a named place in the product, when it comes there; of
    /// machine 0, whichever is the first.
    FailPoint Process "fail-point" (node: u32, point: FailPoint, death: Death);
    /// One machine is cut off.
    Isolate Network "isolate" (node: u32);
    /// Nothing passes between these machines and the others.
    Cut Network "cut" (side: Machines);
    /// Nothing passes from one machine to another; the way back is open.
    OneWayCut Network "one-way-cut" (from: u32, to: u32);
    /// Everything takes up to so much longer.
    Delay Network "delay" (most: Millis);
    /// So many parcels in a million take up to so much longer.
    Jitter Network "jitter" (ppm: u32, most: Millis);
    /// So many messages in a million may overtake the one before.
    Reorder Network "reorder" (ppm: u32);
    /// So many messages in a million are lost.
    Drop Network "drop" (ppm: u32);
    /// So many messages in a million arrive twice.
    Duplicate Network "duplicate" (ppm: u32);
    /// So many messages in a million arrive again, seconds later.
    Replay Network "replay" (ppm: u32);
    /// What one machine sends another queues up, and flows when the clog ends.
    Clog Network "clog" (from: u32, to: u32);
    /// All ways of a machine clog; several overlap, and end in another order.
    Swizzle Network "swizzle" (node: u32);
    /// All connections of a machine break at once.
    Reset Network "reset" (node: u32);
    /// No connection with a machine comes up.
    Deaf Network "deaf" (node: u32);
    /// A wall clock jumps by so many milliseconds, and back.
    WallJump Clock "wall-jump" (node: u32, by_ms: i32);
    /// A monotonic clock gains so many millionths.
    Drift Clock "drift" (node: u32, ppm: i32);
    /// A wall clock stands still.
    WallFreeze Clock "wall-freeze" (node: u32);
    /// A wall clock jumps to and fro.
    Strobe Clock "strobe" (node: u32, by_ms: i32, every: Millis);
    /// A disk is so many times slower than usual.
    SlowDisk Device "slow-disk" (node: u32, factor: u32);
    /// The syncs of a log are so many times slower than usual.
    SlowSyncs Device "slow-syncs" (node: u32, factor: u32);
    /// Nothing that is asked of a disk comes to its end.
    StalledDisk Device "stalled-disk" (node: u32);
    /// Reads of log and state files fail.
    ReadError Device "read-error" (node: u32);
    /// Writes of log and state files fail.
    WriteError Device "write-error" (node: u32);
    /// The next sync of the log fails once, and its pages are gone.
    SyncError Device "sync-error" (node: u32);
    /// The next commit of a store fails once.
    CommitError Device "commit-error" (node: u32);
    /// The next read of the log brings a flipped bit.
    FlipOnRead Data "flip-on-read" (node: u32, draw: u32);
    /// A bit of the log flips on disk.
    RotLog Data "rot-log" (node: u32, draw: u32);
    /// A store cannot be read any more.
    RotStore Data "rot-store" (node: u32, draw: u32);
    /// A bit of the copy of the catalog flips on disk.
    RotCopy Data "rot-copy" (node: u32, draw: u32);
    /// A sector meant for elsewhere overwrites one of the log.
    Misdirected Data "misdirected" (node: u32, draw: u32);
    /// A file of the log ends too early.
    Truncated Data "truncated" (node: u32, draw: u32);
    /// A disk is set back to what it was when the fault began.
    OldImage Data "old-image" (node: u32);
    /// A disk is lost; its machine comes back as a stranger, same address.
    WipedDisk Data "wiped-disk" (node: u32);
    /// Log and stores of a disk are gone; the small files that say who it is stay.
    EmptiedDisk Data "emptied-disk" (node: u32);
    /// Two machines have each other's log and stores.
    SwappedDisks Data "swapped-disks" (a: u32, b: u32);
    /// A machine gives every leadership away.
    TransferLeaders Operation "transfer-leaders" (node: u32);
    /// A new machine joins the cluster.
    AddNode Operation "add-node" ();
    /// A node is removed for good.
    RemoveNode Operation "remove-node" (node: u32);
    /// A new machine joins, and a node is removed for good.
    ReplaceNode Operation "replace-node" (node: u32);
    /// A disk has no room.
    FullDisk Device "full-disk" (node: u32);
    /// A process is killed and starts again at once: connections are reset
    /// while streams are open.
    Bounce Process "bounce" (node: u32);
    /// So many packets in a million have a bit flipped, where there are packets.
    PacketFlip Network "packet-flip" (ppm: u32);
    /// So many packets in a million come again later, where there are packets.
    PacketReplay Network "packet-replay" (ppm: u32);
    /// So many packets of handshakes in a million are lost.
    HandshakeStall Network "handshake-stall" (ppm: u32);
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
