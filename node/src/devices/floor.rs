//! What the machine itself costs: a sync of the disk, and CPU time so far.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use tokio::time::Instant;

/// Syncs measured: enough for a median, under a second on a slow disk.
const SYNCS: usize = 60;
/// Bytes written before each: one page.
const WRITE: [u8; 4_096] = [7; 4_096];
/// Clock ticks a second in `/proc`; a constant of the kernel's interface on
/// every architecture we run on. Source: `man 5 proc_pid_stat`, `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// The floor a disk sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Median of the measured syncs.
    pub median_us: u32,
}

impl Floor {
    /// Measures in a file of its own below `folder`; none if it cannot.
    pub async fn measure(folder: &Path) -> Option<Self> {
        let path = folder.join(format!(".cdb-floor-{}", std::process::id()));
        tokio::task::spawn_blocking(move || measure(&path)).await.ok()?.ok()
    }
}

fn measure(path: &PathBuf) -> io::Result<Floor> {
    let mut file = fs::File::create(path)?;
    let mut times = Vec::with_capacity(SYNCS);
    let measured = (0..SYNCS).try_for_each(|_| {
        file.write_all(&WRITE)?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        Ok(())
    });
    fs::remove_file(path)?;
    measured.map(|()| {
        times.sort_unstable();
        Floor { median_us: times.get(times.len() / 2).copied().unwrap_or(0) }
    })
}

/// CPU time of a process of this machine, all threads, user and system.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    cpu_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 14 and 15 of the file; the name in field 2 may hold spaces and
/// parentheses, so counting begins after the last one.
fn cpu_of(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_a_name_with_parentheses() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 9 9 9";
        assert_eq!(cpu_of(stat), Some(3.0));
        assert!(cpu_seconds(std::process::id()).is_some());
    }

    #[test]
    fn the_floor_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        measure(&folder.path().join("floor")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
