//! `cdb sync`: a tree of local files into a volume, or back.
//!
//! A file counts as unchanged when both sides have the same size and the copy
//! is not older than its source: a local file's time of change against the
//! time the cluster wrote the key. `sync` back sets the local time to the
//! key's, so a second run in either direction copies nothing. `--checksum`
//! compares contents instead, for trees whose times cannot be trusted. What is
//! copied is verified: an upload is read back and its SHA-256 compared, a
//! download is compared with the size its head names before it gets its name.
//!
//! Nothing is deleted on either side. What cannot be copied is listed with its
//! reason, everything else is copied, and the exit code is 1.

mod local;
mod transfer;

use std::{fmt, io::IsTerminal, path::PathBuf, sync::Arc, time::Duration};

use actors::client::Client;
use clap::Args;
use cluster::codes::ErrorCode;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use self::transfer::{Done, Job};
use super::{
    Context,
    error::{CliError, Failure, Outcome},
    place::{Place, is_local},
    render::{printable, tell},
};

/// `cdb sync`
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// From: a folder (./tree) or VOLUME/PREFIX/
    source: String,
    /// To: VOLUME/PREFIX/ or a folder (./copy)
    target: String,
    /// Files under way at once; each may take 4 MiB of memory
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Compare contents, not sizes and times
    #[arg(long)]
    checksum: bool,
    /// Do not read back what was uploaded
    #[arg(long)]
    no_verify: bool,
    /// Only show what would be copied
    #[arg(long)]
    dry_run: bool,
}

/// Something that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    /// File or key.
    pub(super) name: String,
    /// Why.
    pub(super) reason: String,
}

/// What a sync came to.
#[derive(Debug, Default, Serialize)]
struct Summary {
    copied: u64,
    unchanged: u64,
    bytes: u64,
    left_out: Vec<LeftOut>,
    seconds: f64,
    dry_run: bool,
}

/// What all files of a sync share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) client: Client,
    pub(super) volume: String,
    pub(super) checksum: bool,
    pub(super) verify: bool,
    pub(super) dry_run: bool,
}

/// Runs `cdb sync`.
///
/// # Errors
/// See [`CliError`]; `SyncIncomplete` when files were left out.
pub async fn run(context: &Context, args: SyncArgs) -> Outcome {
    let began = tokio::time::Instant::now();
    let (up, folder, place) = sides(&args)?;
    let plan = Arc::new(Plan {
        client: context.client()?,
        volume: place.volume.clone(),
        checksum: args.checksum,
        verify: !args.no_verify,
        dry_run: args.dry_run,
    });
    let (jobs, left_out) = if up {
        transfer::uploads(&plan, &folder, &place.key).await?
    } else {
        transfer::downloads(&plan, &folder, &place.key).await?
    };
    let mut summary = Summary { left_out, dry_run: args.dry_run, ..Summary::default() };
    let ended = copy(&plan, jobs, usize::from(args.jobs), &mut summary).await;
    plan.client.with_deadline(super::CLOSE_WITHIN).close().await;
    ended?;
    summary.seconds = began.elapsed().as_secs_f64();
    show(context, &args, summary)
}

/// Which side is local, and which way it goes.
fn sides(args: &SyncArgs) -> Outcome<(bool, PathBuf, Place)> {
    let (source, target) = (is_local(&args.source), is_local(&args.target));
    let (up, folder, place) = match (source, target) {
        (true, false) => (true, &args.source, &args.target),
        (false, true) => (false, &args.target, &args.source),
        (true, true) | (false, false) => {
            return Err(CliError::usage(
                "one side must be a folder and the other a volume",
                "write a folder as ./tree and a volume as data/tree/",
            )
            .into());
        }
    };
    let mut place = Place::parse(place)?;
    if !place.key.is_empty() && !place.key.ends_with('/') {
        place.key.push('/');
    }
    Ok((up, folder.into(), place))
}

async fn copy(plan: &Arc<Plan>, jobs: Vec<Job>, at_once: usize, summary: &mut Summary) -> Outcome {
    let progress = bar(jobs.len());
    let runs = jobs.into_iter().map(|job| {
        let plan = plan.clone();
        async move { transfer::run(&plan, job).await }
    });
    let mut runs = stream::iter(runs).buffer_unordered(at_once);
    while let Some(done) = runs.next().await {
        progress.inc(1);
        match done? {
            Done::Copied { name, bytes } => {
                summary.copied += 1;
                summary.bytes += bytes;
                if summary.dry_run {
                    super::render::line(&printable(&name))?;
                }
            }
            Done::Unchanged => summary.unchanged += 1,
            Done::LeftOut(left_out) => summary.left_out.push(left_out),
        }
        progress.set_message(cluster::units::ByteSize(summary.bytes).to_string());
    }
    progress.finish_and_clear();
    Ok(())
}

fn bar(files: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(files as u64);
    let style = "{bar:30} {pos}/{len} files  {msg}  {rate}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        // Its own `per_sec` has four decimals and no unit.
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            let _ = write!(text, "{:.0} files/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Lines of left-out files shown; JSON has all.
const LEFT_OUT_SHOWN: usize = 50;

fn show(context: &Context, args: &SyncArgs, mut summary: Summary) -> Outcome {
    summary.left_out.sort_by(|a, b| a.name.cmp(&b.name));
    if context.output.is_json() {
        context.output.json(&summary)?;
    } else {
        for left in summary.left_out.iter().take(LEFT_OUT_SHOWN) {
            tell(&format!("left out: {}: {}", printable(&left.name), left.reason));
        }
        let verb = if summary.dry_run { "would be copied" } else { "copied" };
        tell(&format!(
            "{} {verb} ({}), {} unchanged, {} left out, {:.1} s",
            summary.copied,
            cluster::units::ByteSize(summary.bytes),
            summary.unchanged,
            summary.left_out.len(),
            summary.seconds
        ));
    }
    let Some(first) = summary.left_out.first() else { return Ok(()) };
    Err(Failure::from(CliError::new(
        ErrorCode::SyncIncomplete,
        format!("{} files of {} were left out", summary.left_out.len(), args.source),
        format!("first: {}: {}", printable(&first.name), first.reason),
        "mend what is listed, then run the same sync again",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(source: &str, target: &str) -> SyncArgs {
        SyncArgs {
            source: source.into(),
            target: target.into(),
            jobs: 1,
            checksum: false,
            no_verify: false,
            dry_run: false,
        }
    }

    #[test]
    fn the_direction_follows_from_which_side_is_a_path() {
        let (up, folder, place) = sides(&args("./tree", "data/tree")).unwrap();
        assert!(up);
        assert_eq!((folder, place.key.as_str()), (PathBuf::from("./tree"), "tree/"));
        let (up, _, place) = sides(&args("data", "./copy")).unwrap();
        assert!(!up);
        assert_eq!(place.key, "");
        assert!(sides(&args("./a", "./b")).is_err());
        assert!(sides(&args("a/b", "c/d")).is_err());
    }
}
