//! Error codes people can look up: one stable number per kind of failure.
//!
//! The same code stands in what the command line prints, in what the
//! administration door answers and in logs; `cdb explain CODE` shows its page
//! (`node/docs/errors/CODE.md`). Numbers are never reused.
//!
//! | range | about |
//! |---|---|
//! | 01xx | what was asked for is not there |
//! | 02xx | the request itself is wrong |
//! | 03xx | it conflicts with what is there |
//! | 04xx | the cluster cannot serve it now |
//! | 05xx | the asker may not |
//! | 06xx | this machine: profile, files, arguments |
//! | 07xx | starting and running a node |

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                }
            }
        }
    };
}

codes! {
    /// No volume of that name.
    UnknownVolume = 101,
    /// No such key.
    UnknownKey = 102,
    /// No such node.
    UnknownNode = 103,
    /// The version asked for lies in the future.
    NoSuchVersion = 104,
    /// The version asked for is compacted away.
    Compacted = 105,
    /// No such lease, or it has ended.
    UnknownLease = 106,
    /// A key is empty, too long or not UTF-8.
    BadKey = 201,
    /// A value is larger than what is kept inline.
    ValueTooLarge = 202,
    /// A batch has too many operations or bytes.
    BadBatch = 203,
    /// Anything else wrong with a request.
    InvalidRequest = 204,
    /// A transaction is malformed, too large or spans shards.
    BadTransaction = 205,
    /// A volume of that name exists.
    VolumeExists = 301,
    /// Whether the request was executed is not known.
    UnknownOutcome = 302,
    /// The catalog refused the change.
    CatalogRefused = 303,
    /// A transaction was executed, but what it read is gone.
    AnswerLost = 304,
    /// A lease of that id exists.
    LeaseExists = 305,
    /// A restore does not fit what is in the volume.
    RestoreRefused = 306,
    /// No quorum answered within the deadline.
    NoQuorum = 412,
    /// No node could be reached at all.
    Unreachable = 413,
    /// Admission refused it until the deadline.
    Overloaded = 414,
    /// A disk is too full for writes.
    DiskFull = 415,
    /// A replica stopped itself.
    ReplicaStopped = 416,
    /// Two clocks are too far apart.
    ClockSkew = 417,
    /// The answer was not understood.
    BadAnswer = 418,
    /// The volume is being restored and is not whole yet.
    Restoring = 419,
    /// The store of a shard is near its limit.
    StoreFull = 420,
    /// The asker may not do that.
    NotAllowed = 501,
    /// Certificate or authority do not fit.
    BadCertificate = 502,
    /// No profile was found, or it cannot be read.
    BadProfile = 601,
    /// A local file cannot be read or written.
    LocalFile = 602,
    /// Arguments do not make sense together.
    Usage = 603,
    /// Some files of a sync were left out.
    SyncIncomplete = 604,
    /// The node is not one that runs on this machine for development.
    NotADevNode = 605,
    /// No page for that code.
    UnknownCode = 606,
    /// What was waited for did not come in time.
    WaitedInVain = 607,
    /// A file is no saved snapshot, or a damaged one.
    BadSnapshot = 608,
    /// A configuration file cannot be read or is wrong.
    BadConfiguration = 701,
    /// The data directory is in use by another process.
    DirectoryInUse = 702,
    /// The data directory belongs to another cluster or node.
    DirectoryForeign = 703,
    /// The data directory was written by a newer release.
    DirectoryNewer = 704,
    /// The data directory has no identity, and neither init nor join was asked for.
    DirectoryEmpty = 705,
    /// A port or address cannot be bound.
    AddressInUse = 706,
    /// The join token was refused.
    TokenRefused = 707,
    /// The node stopped because of damage or a failed device.
    NodeFailed = 708,
    /// The data directory was written by an older release.
    DirectoryOlder = 709,
}

impl ErrorCode {
    /// Finds a code as a user types it: `E0412`, `e412`, `412`.
    pub fn parse(text: &str) -> Option<Self> {
        let number: u16 = text.trim().trim_start_matches(['E', 'e']).parse().ok()?;
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{:04}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_read_back() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.number()), "{code} is used twice");
            assert_eq!(ErrorCode::parse(&code.to_string()), Some(*code));
        }
        assert_eq!(ErrorCode::parse("412"), Some(ErrorCode::NoQuorum));
        assert_eq!(ErrorCode::parse("E9999"), None);
    }
}
