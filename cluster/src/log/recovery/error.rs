//! Why a log did not open, in words that say what to do.

use std::io;

use crate::{log::LogStamp, ports::log::LogError};

/// Why a log did not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system's.
    #[error("cannot {operation} {name} of the log")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        name: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// Written by another release.
    #[error(
        "{name} has log format {found}, this release reads format {supported}: start the release that wrote it"
    )]
    Format {
        /// The file.
        name: String,
        /// Its version.
        found: u16,
        /// Ours.
        supported: u16,
    },
    /// Of another cluster, node or disk.
    #[error(
        "{name} belongs to {} {} disk {}, this is {} {} disk {}: put the disk back where it was",
        found.cluster, found.node, found.disk, expected.cluster, expected.node, expected.disk
    )]
    Foreign {
        /// The file.
        name: String,
        /// Its stamp.
        found: Box<LogStamp>,
        /// Ours.
        expected: Box<LogStamp>,
    },
    /// Nothing in it can be read, so nothing is known of what was promised.
    #[error(
        "no batch of the log can be read ({segments} segments): keep the directory and let the node join anew under a new identity"
    )]
    Unreadable {
        /// Segments found.
        segments: usize,
    },
    /// No room for a segment that recovery needs.
    #[error("no room for a segment of the log, free some space and start again: {0}")]
    Full(String),
    /// A write or sync of recovery failed.
    #[error("recovery of the log could not write: {0}")]
    Fenced(String),
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full(cause) => Self::Full(cause),
            LogError::Fenced(_)
            | LogError::Busy
            | LogError::Refused { .. }
            | LogError::Missing { .. }
            | LogError::Damaged { .. } => Self::Fenced(error.to_string()),
        }
    }
}

/// An error of the operating system, with what was tried.
pub(super) fn io_error<'a>(
    operation: &'static str,
    name: &'a str,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { operation, name: name.to_owned(), source }
}
