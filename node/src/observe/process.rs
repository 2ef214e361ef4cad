//! What the system says of this process.
//!
//! Source: `proc_pid_stat(5)`.

use std::{fs, io, time::Duration};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// Fields of `/proc/self/stat` behind the name, counted from the state.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

/// One look at the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Time of processors, its own and the system's for it.
    pub cpu: Duration,
    /// Bytes that are in memory.
    pub resident_bytes: u64,
    /// Bytes of addresses.
    pub virtual_bytes: u64,
    /// Files that are open.
    pub open_files: u64,
    /// Files that may be.
    pub open_files_max: u64,
}

impl ProcessFigures {
    /// As it is now. Reads a line for each open file.
    ///
    /// # Errors
    /// On systems that do not tell it in `/proc`.
    pub fn now() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let field = |number| field(&stat, number).ok_or(io::ErrorKind::InvalidData);
        let ticks = field(USER_TICKS)? + field(SYSTEM_TICKS)?;
        // The look itself holds one.
        let open_files = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64;
        Ok(Self {
            cpu: Duration::from_millis(
                ticks.saturating_mul(1_000) / clock_ticks_per_second().max(1),
            ),
            resident_bytes: field(RESIDENT_PAGES)?.saturating_mul(page_size() as u64),
            virtual_bytes: field(VIRTUAL_BYTES)?,
            open_files,
            open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        })
    }
}

/// A number of the line; the name before them may hold spaces and brackets.
fn field(stat: &str, number: usize) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_told_in_whole_units() {
        let begun = ProcessFigures::now().unwrap();
        let held: Vec<_> = (0..5).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let now = ProcessFigures::now().unwrap();
        assert!(now.open_files > held.len() as u64 && now.open_files <= now.open_files_max);
        assert!(now.resident_bytes > 1 << 20 && now.resident_bytes <= now.virtual_bytes);
        assert!(now.cpu >= begun.cpu && now.cpu < Duration::from_hours(1));
    }

    #[test]
    fn a_name_with_brackets_moves_no_field() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13";
        assert_eq!(field(stat, USER_TICKS), Some(11));
    }
}
