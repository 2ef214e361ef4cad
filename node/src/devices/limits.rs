//! Limits the operating system sets on this process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files towards `wanted`, as far as the hard limit
/// allows, and returns what now holds. A limit that is higher stays.
///
/// # Errors
/// If the system refuses what its own hard limit allows.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    let soft = now.current.unwrap_or(u64::MAX);
    let target = now.maximum.map_or(wanted, |hard| wanted.min(hard));
    if soft >= target {
        return Ok(soft);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: now.maximum })?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_limit_stays_and_the_hard_one_binds() {
        let before = raise_open_files(1).unwrap();
        assert!(before > 1, "asking for one file must not lower the limit");
        let hard = getrlimit(Resource::Nofile).maximum;
        let raised = raise_open_files(u64::MAX).unwrap();
        assert_eq!(Some(raised), hard.or(Some(u64::MAX)));
    }
}
