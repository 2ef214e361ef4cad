//! How a command fails: four lines, one stable code, one exit code.
//!
//! ```text
//! error[E0412]: no quorum for volume data within 10s
//!   cause: 31 tries; last: this replica does not lead its shard
//!   fix:   see which nodes are down: cdb status; start them: cdb node start N
//!   docs:  cdb explain E0412
//! ```

use std::{fmt, io, path::Path, process::ExitCode};

use actors::client::ClientError;
use cluster::{codes::ErrorCode, log::OpenError};

use super::{profile::ProfileError, start::JoinRefused};
use crate::{config::ConfigError, data_dir::DataDirError};

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// Its code.
    pub code: ErrorCode,
    /// What failed.
    pub headline: String,
    /// What was seen.
    pub cause: String,
    /// What mends it.
    pub fix: String,
}

/// How a command ends that does not succeed.
#[derive(Debug)]
pub enum Failure {
    /// With an error to show.
    Error(Box<CliError>),
    /// The reader of our output went away (`cdb ls | head`): nobody is left to
    /// tell, and nothing went wrong.
    ClosedPipe,
}

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl CliError {
    /// An error of a code.
    pub fn new(
        code: ErrorCode,
        headline: impl Into<String>,
        cause: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { code, headline: headline.into(), cause: cause.into(), fix: fix.into() }
    }

    /// A local file that cannot be used.
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(
            ErrorCode::LocalFile,
            format!("cannot {doing} {}", path.display()),
            error.to_string(),
            "check the path, its permissions and the free space",
        )
    }

    /// Arguments that do not make sense.
    pub fn usage(headline: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, headline, "the arguments do not make sense together", fix)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.code, one_line(&self.headline))?;
        writeln!(f, "  cause: {}", one_line(&self.cause))?;
        writeln!(f, "  fix:   {}", one_line(&self.fix))?;
        write!(f, "  docs:  cdb explain {}", self.code)
    }
}

/// Four lines are a promise: causes of libraries may hold more.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Error(Box::new(error))
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::new(error.code(), error.to_string(), error.cause(), error.fix())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        CliError::from(error).into()
    }
}

impl From<ProfileError> for CliError {
    fn from(error: ProfileError) -> Self {
        let (headline, fix) = match &error {
            ProfileError::Missing(_) => (
                "no profile says where the cluster is".to_owned(),
                "start one (cdb dev), or name it: --profile DIR/client.yaml, or CDB_PROFILE"
                    .to_owned(),
            ),
            ProfileError::Io { path, .. } => (
                format!("the profile {} cannot be used", path.display()),
                "check the path and its permissions".to_owned(),
            ),
            ProfileError::Malformed { path, .. } => (
                format!("the profile {} is malformed", path.display()),
                "use the client.yaml the cluster wrote".to_owned(),
            ),
            ProfileError::Exposed { path } => (
                "others can read the private key of this profile".to_owned(),
                format!("chmod 600 {}", path.display()),
            ),
        };
        Self::new(ErrorCode::BadProfile, headline, error.to_string(), fix)
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        CliError::from(error).into()
    }
}

/// Output that could not be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        let cause = error.to_string();
        CliError::new(ErrorCode::LocalFile, "cannot write the output", cause, "check where it goes")
            .into()
    }
}

/// The exit code of an error: 1 failed, 2 usage, 3 not found, 4 conflict,
/// 5 no quorum or unreachable, 6 not allowed.
pub fn exit_number(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::UnknownVolume
        | ErrorCode::UnknownKey
        | ErrorCode::UnknownNode
        | ErrorCode::NoSuchVersion
        | ErrorCode::Compacted
        | ErrorCode::UnknownLease
        | ErrorCode::UnknownCode => 3,
        ErrorCode::BadKey | ErrorCode::Usage | ErrorCode::BadConfiguration => 2,
        ErrorCode::VolumeExists
        | ErrorCode::LeaseExists
        | ErrorCode::RestoreRefused
        | ErrorCode::UnknownOutcome
        | ErrorCode::AnswerLost
        | ErrorCode::CatalogRefused
        | ErrorCode::DirectoryInUse
        | ErrorCode::DirectoryForeign
        | ErrorCode::AddressInUse => 4,
        ErrorCode::NoQuorum
        | ErrorCode::Unreachable
        | ErrorCode::Overloaded
        | ErrorCode::Restoring
        | ErrorCode::WaitedInVain => 5,
        ErrorCode::NotAllowed | ErrorCode::BadCertificate | ErrorCode::TokenRefused => 6,
        ErrorCode::ValueTooLarge
        | ErrorCode::BadBatch
        | ErrorCode::BadTransaction
        | ErrorCode::InvalidRequest
        | ErrorCode::DiskFull
        | ErrorCode::StoreFull
        | ErrorCode::ReplicaStopped
        | ErrorCode::ClockSkew
        | ErrorCode::BadAnswer
        | ErrorCode::BadProfile
        | ErrorCode::LocalFile
        | ErrorCode::BadSnapshot
        | ErrorCode::SyncIncomplete
        | ErrorCode::NotADevNode
        | ErrorCode::DirectoryNewer
        | ErrorCode::DirectoryOlder
        | ErrorCode::DirectoryEmpty
        | ErrorCode::NodeFailed => 1,
    }
}

/// The error of a command that runs nodes (`dev`, `start`, `cluster init`).
pub fn of_node(error: &anyhow::Error) -> CliError {
    let find = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<DataDirError>() {
            let (code, fix) = directory(error);
            return Some((code, "the data directory cannot be used", fix));
        }
        if cause.downcast_ref::<JoinRefused>().is_some() {
            let fix = "make another token: cdb cluster token; and check the address";
            return Some((ErrorCode::TokenRefused, "the cluster did not let this node in", fix));
        }
        if let Some(error) = cause.downcast_ref::<OpenError>() {
            let (code, fix) = log(error);
            return Some((code, "the log of the data directory cannot be used", fix));
        }
        cause.downcast_ref::<ConfigError>().map(|_| {
            let fix = "correct the file, then start again";
            (ErrorCode::BadConfiguration, "the configuration cannot be used", fix)
        })
    };
    let failed =
        (ErrorCode::NodeFailed, "the command failed", "do as the cause says, and see the log");
    let (code, headline, fix) = error.chain().find_map(find).unwrap_or(failed);
    CliError::new(code, headline, causes(error), fix)
}

/// All causes in one line; what an error has told in its own words is not told twice.
fn causes(error: &anyhow::Error) -> String {
    let tell = |told: String, cause: String| {
        if told.ends_with(&cause) { told } else { format!("{told}: {cause}") }
    };
    error.chain().map(ToString::to_string).reduce(tell).unwrap_or_default()
}

fn log(error: &OpenError) -> (ErrorCode, &'static str) {
    match error {
        OpenError::Format { .. } => (ErrorCode::DirectoryNewer, "start the release that wrote it"),
        OpenError::Foreign { .. } => {
            (ErrorCode::DirectoryForeign, "put the disk back where it was")
        }
        OpenError::Full(_) => (ErrorCode::DiskFull, "free some space, then start again"),
        OpenError::Io { .. } => {
            (ErrorCode::LocalFile, "check the directory, its permissions and the disk")
        }
        OpenError::Unreadable { .. } | OpenError::Fenced(_) => {
            (ErrorCode::NodeFailed, "do as the cause says, and check the disk")
        }
    }
}

fn directory(error: &DataDirError) -> (ErrorCode, &'static str) {
    match error {
        DataDirError::InUse { .. } => {
            (ErrorCode::DirectoryInUse, "stop the other process, or use another data_dir")
        }
        DataDirError::Fresh { .. } => (
            ErrorCode::DirectoryEmpty,
            "cdb cluster init -c FILE, or cdb start -c FILE --join HOST:PORT --token T",
        ),
        DataDirError::NewerFormat { .. } => (ErrorCode::DirectoryNewer, "start the newer release"),
        DataDirError::OlderFormat { .. } => (
            ErrorCode::DirectoryOlder,
            "start the release that wrote it; to move to this one: cdb explain E0709",
        ),
        DataDirError::Foreign { .. }
        | DataDirError::Occupied { .. }
        | DataDirError::OtherCluster { .. }
        | DataDirError::OtherAuthority { .. } => {
            (ErrorCode::DirectoryForeign, "name the right directory, or an empty one")
        }
        DataDirError::Io { .. } => {
            (ErrorCode::LocalFile, "check the directory, its permissions and the free space")
        }
        DataDirError::Damaged { .. } | DataDirError::MemoryGone { .. } => (
            ErrorCode::NodeFailed,
            "remove this node from its cluster and join again with an empty directory",
        ),
    }
}

/// Shows a failure and gives its exit code.
pub fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Error(error)) => {
            use io::Write;
            // Standard error may be closed too; the exit code still tells.
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::from(exit_number(error.code))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_always_four_lines() {
        let error = CliError::new(ErrorCode::NoQuorum, "no\nquorum", "a\n\n  b", "start n2");
        assert_eq!(
            error.to_string(),
            "error[E0412]: no; quorum\n  cause: a; b\n  fix:   start n2\n  docs:  cdb explain E0412"
        );
    }

    #[test]
    fn a_cause_that_an_error_names_itself_is_told_once() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let error = DataDirError::Io { action: "write", path: "n1/identity".into(), source };
        let error = anyhow::Error::from(error).context("the node does not start");
        let told = causes(&error);
        assert_eq!(told, "the node does not start: cannot write n1/identity: no storage space");
    }

    #[test]
    fn exit_codes_are_those_scripts_rely_on() {
        let exit = |error: ClientError| exit_number(error.code());
        assert_eq!(exit(ClientError::UnknownVolume { volume: "v".into() }), 3);
        assert_eq!(
            exit(ClientError::Unreachable { subject: "v".into(), last: "refused".into() }),
            5
        );
        assert_eq!(exit(ClientError::BadCertificate { cause: "unknown issuer".into() }), 6);
        assert_eq!(exit_number(ErrorCode::VolumeExists), 4);
        assert_eq!(exit_number(ErrorCode::Usage), 2);
        assert_eq!(exit_number(ErrorCode::ValueTooLarge), 1);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Failure::from(error), Failure::ClosedPipe));
    }
}
