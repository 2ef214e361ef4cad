//! `cdb explain CODE`: the page of an error code.

use cluster::codes::ErrorCode;

use super::{
    error::{CliError, Outcome},
    render::line,
};

/// The page of a code.
pub fn page(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UnknownVolume => include_str!("../../docs/errors/E0101.md"),
        ErrorCode::UnknownKey => include_str!("../../docs/errors/E0102.md"),
        ErrorCode::UnknownNode => include_str!("../../docs/errors/E0103.md"),
        ErrorCode::NoSuchVersion => include_str!("../../docs/errors/E0104.md"),
        ErrorCode::Compacted => include_str!("../../docs/errors/E0105.md"),
        ErrorCode::UnknownLease => include_str!("../../docs/errors/E0106.md"),
        ErrorCode::BadKey => include_str!("../../docs/errors/E0201.md"),
        ErrorCode::ValueTooLarge => include_str!("../../docs/errors/E0202.md"),
        ErrorCode::BadBatch => include_str!("../../docs/errors/E0203.md"),
        ErrorCode::InvalidRequest => include_str!("../../docs/errors/E0204.md"),
        ErrorCode::BadTransaction => include_str!("../../docs/errors/E0205.md"),
        ErrorCode::VolumeExists => include_str!("../../docs/errors/E0301.md"),
        ErrorCode::UnknownOutcome => include_str!("../../docs/errors/E0302.md"),
        ErrorCode::CatalogRefused => include_str!("../../docs/errors/E0303.md"),
        ErrorCode::AnswerLost => include_str!("../../docs/errors/E0304.md"),
        ErrorCode::LeaseExists => include_str!("../../docs/errors/E0305.md"),
        ErrorCode::RestoreRefused => include_str!("../../docs/errors/E0306.md"),
        ErrorCode::NoQuorum => include_str!("../../docs/errors/E0412.md"),
        ErrorCode::Unreachable => include_str!("../../docs/errors/E0413.md"),
        ErrorCode::Overloaded => include_str!("../../docs/errors/E0414.md"),
        ErrorCode::DiskFull => include_str!("../../docs/errors/E0415.md"),
        ErrorCode::ReplicaStopped => include_str!("../../docs/errors/E0416.md"),
        ErrorCode::ClockSkew => include_str!("../../docs/errors/E0417.md"),
        ErrorCode::BadAnswer => include_str!("../../docs/errors/E0418.md"),
        ErrorCode::Restoring => include_str!("../../docs/errors/E0419.md"),
        ErrorCode::StoreFull => include_str!("../../docs/errors/E0420.md"),
        ErrorCode::NotAllowed => include_str!("../../docs/errors/E0501.md"),
        ErrorCode::BadCertificate => include_str!("../../docs/errors/E0502.md"),
        ErrorCode::BadProfile => include_str!("../../docs/errors/E0601.md"),
        ErrorCode::LocalFile => include_str!("../../docs/errors/E0602.md"),
        ErrorCode::Usage => include_str!("../../docs/errors/E0603.md"),
        ErrorCode::SyncIncomplete => include_str!("../../docs/errors/E0604.md"),
        ErrorCode::NotADevNode => include_str!("../../docs/errors/E0605.md"),
        ErrorCode::UnknownCode => include_str!("../../docs/errors/E0606.md"),
        ErrorCode::WaitedInVain => include_str!("../../docs/errors/E0607.md"),
        ErrorCode::BadSnapshot => include_str!("../../docs/errors/E0608.md"),
        ErrorCode::BadConfiguration => include_str!("../../docs/errors/E0701.md"),
        ErrorCode::DirectoryInUse => include_str!("../../docs/errors/E0702.md"),
        ErrorCode::DirectoryForeign => include_str!("../../docs/errors/E0703.md"),
        ErrorCode::DirectoryNewer => include_str!("../../docs/errors/E0704.md"),
        ErrorCode::DirectoryOlder => include_str!("../../docs/errors/E0709.md"),
        ErrorCode::DirectoryEmpty => include_str!("../../docs/errors/E0705.md"),
        ErrorCode::AddressInUse => include_str!("../../docs/errors/E0706.md"),
        ErrorCode::TokenRefused => include_str!("../../docs/errors/E0707.md"),
        ErrorCode::NodeFailed => include_str!("../../docs/errors/E0708.md"),
    }
}

/// Shows a page.
///
/// # Errors
/// If there is no such code.
pub fn run(code: &str) -> Outcome {
    let found = ErrorCode::parse(code).ok_or_else(|| {
        CliError::new(
            ErrorCode::UnknownCode,
            format!("there is no code {code}"),
            "codes look like E0412",
            "copy the code from the error message",
        )
    })?;
    line(page(found).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_of_its_own_that_says_what_to_do() {
        for code in ErrorCode::ALL {
            let page = page(*code);
            assert!(page.starts_with(&format!("# {code}: ")), "{code}");
            assert!(page.contains("**What to do.**"), "{code}");
        }
    }
}
