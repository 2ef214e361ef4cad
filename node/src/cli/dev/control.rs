//! Requests to a running `cdb dev`: stop or start one of its nodes.
//!
//! A request is an empty file in `DIR/control`, named `stop-2` or `start-2`.
//! `cdb dev` looks there ten times a second, does it, and removes the file;
//! how it went stands in `dev.json`. Only the owner of the directory can write
//! there. Nodes started so are children of `cdb dev` like all others, and end
//! with it.

use std::{
    fmt, fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::layout::{DevNodeState, Layout, ProcessState};
use crate::{cli::profile::Profile, devices::lock::Lock};

/// How long a stop may take: the node hands over its leaderships first.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// How long a start may take: the node replays its log and catches up.
const START_WAIT: Duration = Duration::from_mins(1);
/// How often the answer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stop,
    Start,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Start => "start",
        })
    }
}

/// How long a started node is waited for before it is reported as starting.
const READY_WAIT: Duration = Duration::from_secs(4);

/// Requests that wait, oldest number first. Other files are left alone.
pub(super) fn wishes(layout: &Layout) -> Vec<(Wish, u64)> {
    let Ok(entries) = fs::read_dir(layout.control()) else { return Vec::new() };
    let mut wishes: Vec<_> =
        entries.filter_map(|entry| parse(entry.ok()?.file_name().to_str()?)).collect();
    wishes.sort_by_key(|(_, number)| *number);
    wishes
}

fn parse(name: &str) -> Option<(Wish, u64)> {
    let (wish, number) = name.split_once('-')?;
    let wish = match wish {
        "stop" => Wish::Stop,
        "start" => Wish::Start,
        _ => return None,
    };
    Some((wish, number.parse().ok()?))
}

/// Removes a request: it is done, or cannot be.
pub(super) fn done(layout: &Layout, wish: Wish, number: u64) {
    drop(fs::remove_file(layout.control().join(format!("{wish}-{number}"))));
}

/// Stops node `number` of the development cluster of `profile`, and waits.
///
/// # Errors
/// If the profile is of no development cluster, `cdb dev` is not running, or
/// the node does not stop in time.
pub fn stop_node(profile: &Profile, number: u64) -> anyhow::Result<DevNodeState> {
    request(profile, Wish::Stop, number, STOP_WAIT)
}

/// Starts node `number` of the development cluster of `profile`, and waits a
/// little for it to be ready. A node alone cannot get ready before others run
/// too, so a node that lives and still starts is no failure: its state says so.
///
/// # Errors
/// If the profile is of no development cluster, `cdb dev` is not running, or
/// the node ends again.
pub fn start_node(profile: &Profile, number: u64) -> anyhow::Result<DevNodeState> {
    request(profile, Wish::Start, number, START_WAIT)
}

fn request(
    profile: &Profile,
    wish: Wish,
    number: u64,
    wait: Duration,
) -> anyhow::Result<DevNodeState> {
    let dev = profile.dev.as_ref().with_context(|| {
        format!("cluster {} is not one of `cdb dev`; {wish} its nodes where they run", profile.name)
    })?;
    let layout = Layout::new(&dev.data_dir);
    let root = layout.root().display().to_string();
    let known = layout.load()?.unwrap_or_default();
    ensure!(
        known.nodes.iter().any(|node| node.number == number),
        "there is no node n{number} in {root}; it has {} nodes",
        known.nodes.len()
    );
    ensure!(
        Lock::holder(&layout.lock()).is_some(),
        "`cdb dev` is not running in {root}; start it with `cdb dev --data {root}`"
    );
    let path = layout.control().join(format!("{wish}-{number}"));
    fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
    await_answer(&layout, wish, number, wait)
}

#[expect(clippy::disallowed_methods, reason = "a command waits on the machine's own clock")]
fn await_answer(
    layout: &Layout,
    wish: Wish,
    number: u64,
    wait: Duration,
) -> anyhow::Result<DevNodeState> {
    let begin = Instant::now();
    let path = layout.control().join(format!("{wish}-{number}"));
    loop {
        thread::sleep(LOOK_EVERY);
        if !path.exists() {
            let node = node(layout, number)?;
            match (wish, node.state) {
                (Wish::Stop, ProcessState::Stopped | ProcessState::Exited)
                | (Wish::Start, ProcessState::Ready) => return Ok(node),
                (Wish::Start, ProcessState::Stopped | ProcessState::Exited) => {
                    let problem = node.problem.unwrap_or_else(|| "it stopped again".to_owned());
                    bail!("n{number} does not start: {problem} (log: {})", node.log.display());
                }
                (Wish::Start, ProcessState::Starting) if begin.elapsed() > READY_WAIT => {
                    return Ok(node);
                }
                (Wish::Start, ProcessState::Starting)
                | (Wish::Stop, ProcessState::Starting | ProcessState::Ready) => {}
            }
        }
        if begin.elapsed() > wait {
            done(layout, wish, number);
            bail!(
                "n{number} did not {wish} within {} s; see {}",
                wait.as_secs(),
                layout.log(number).display()
            );
        }
    }
}

fn node(layout: &Layout, number: u64) -> anyhow::Result<DevNodeState> {
    let file = layout.load()?.unwrap_or_default();
    let node = file.nodes.into_iter().find(|node| node.number == number);
    node.with_context(|| format!("n{number} is gone from dev.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_by_name_and_strangers_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create().unwrap();
        for name in ["start-3", "stop-1", "dance-2", "stop-x", "notes"] {
            fs::write(layout.control().join(name), "").unwrap();
        }
        assert_eq!(wishes(&layout), [(Wish::Stop, 1), (Wish::Start, 3)]);
        done(&layout, Wish::Stop, 1);
        assert_eq!(wishes(&layout), [(Wish::Start, 3)]);
    }
}
