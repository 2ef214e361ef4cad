//! Runs at a time, each in a process of its own.
//!
//! A process per seed because tokio and ractor count runtimes, tasks and actors
//! process-wide, and what they count reaches what they do (see
//! `simulation::hooks`): a second run in one process is another run.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use simulation::case::Case;

use super::{outcome::Outcome, real_now};

/// Real time one run may take before it is called endless: some hundred times
/// what one takes.
const PATIENCE: Duration = Duration::from_mins(5);
/// Pause between two looks at the processes.
const GLANCE: Duration = Duration::from_millis(2);

/// A run that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) case: Case,
    pub(crate) outcome: Outcome,
}

/// How cases are run.
#[derive(Debug)]
pub(crate) struct Swarm {
    /// The simulator that runs them.
    pub(crate) executable: PathBuf,
    /// How many at a time.
    pub(crate) width: usize,
    /// When no more are begun.
    pub(crate) until: Option<Instant>,
}

impl Swarm {
    /// A swarm of this very executable.
    ///
    /// # Errors
    /// If the system does not say where it is.
    pub(crate) fn of_myself(width: Option<usize>, until: Option<Instant>) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let width = width.unwrap_or(cores).max(1);
        Ok(Self { executable: std::env::current_exe()?, width, until })
    }

    /// Runs cases and shows each that ended, until one is enough.
    ///
    /// # Errors
    /// If a process cannot be started or watched.
    pub(crate) fn run(
        &self,
        cases: impl IntoIterator<Item = Case>,
        mut ended: impl FnMut(Ended) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut cases = cases.into_iter();
        let mut running: Vec<Running> = Vec::new();
        loop {
            while running.len() < self.width && !self.is_late() {
                let Some(case) = cases.next() else { break };
                running.push(Running::begin(self, case)?);
            }
            if running.is_empty() {
                return Ok(());
            }
            let mut done = None;
            for (at, run) in running.iter_mut().enumerate() {
                if run.is_over()? {
                    done = Some(at);
                    break;
                }
            }
            let Some(at) = done else {
                std::thread::sleep(GLANCE);
                continue;
            };
            if ended(running.swap_remove(at).end()?).is_break() {
                return Ok(());
            }
        }
    }

    /// Whether no run is begun any more.
    pub(crate) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| real_now() >= until)
    }
}

/// A process at work; it ends with its owner.
#[derive(Debug)]
struct Running {
    case: Case,
    child: Child,
    since: Instant,
}

impl Running {
    fn begin(swarm: &Swarm, case: Case) -> io::Result<Self> {
        let mut child = Command::new(&swarm.executable)
            .args(["replay", "--brief", "--case", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(case.to_string().as_bytes())?;
        }
        Ok(Self { case, child, since: real_now() })
    }

    /// Whether it ended, by itself or because it would never.
    fn is_over(&mut self) -> io::Result<bool> {
        if self.child.try_wait()?.is_some() {
            return Ok(true);
        }
        if self.since.elapsed() < PATIENCE {
            return Ok(false);
        }
        self.child.kill()?;
        Ok(true)
    }

    fn end(mut self) -> io::Result<Ended> {
        let status = self.child.wait()?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let Some(pipe) = &mut self.child.stdout {
            pipe.read_to_end(&mut stdout)?;
        }
        if let Some(pipe) = &mut self.child.stderr {
            pipe.read_to_end(&mut stderr)?;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let outcome = Outcome::read(status, &text(&stdout), &text(&stderr));
        Ok(Ended { case: self.case.clone(), outcome })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that ended already has nothing to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
