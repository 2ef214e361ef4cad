//! `cdb volume restore`: what a saved snapshot holds, into an empty volume.
//!
//! The file is read to its end before anything is done. Then its keys go to the
//! volume in parts, each one entry of the log; the volume answers nobody until
//! the last of them is there. The command may be interrupted and run again at any
//! point: it goes on behind the last key that is there.

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use actors::client::Client;
use clap::Args;
use cluster::{
    codes::ErrorCode,
    request::{Item, ReadLevel},
    shard::{
        range::Range,
        restore::{RESTORE_BUMP, RestoreCommand, RestoreStep, Restored},
        saved::SavedRecord,
        transaction::Keys,
    },
    units::ByteSize,
};
use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::{
        Context,
        error::{CliError, Failure, Outcome},
        render::{printable, tell},
    },
    saved::{Checked, FileError, Records, check},
};

/// Keys of one part, and bytes of them: an entry takes four times that, or one
/// largest value.
const PART_KEYS: usize = 4_096;
const PART_BYTES: usize = 1 << 20;
/// Leases of one part: 24 KiB.
const PART_LEASES: usize = 1_024;
/// Leases revoked at a time, each by an entry of its own.
const REVOKED_AT_ONCE: usize = 32;

/// `cdb volume restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Into which volume; it is of kind single, and empty
    name: String,
    /// What cdb volume snapshot or etcdctl snapshot save wrote
    file: PathBuf,
    /// Lets what the volume holds go first, keys and leases
    #[arg(long)]
    replace: bool,
    /// How far versions rise above those of the volume and of the snapshot
    #[arg(long, value_name = "VERSIONS", default_value_t = RESTORE_BUMP)]
    bump_revision: u64,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only read the file, and tell what it holds
    #[arg(long)]
    dry_run: bool,
}

/// One restore on its way.
struct Run<'a> {
    client: &'a Client,
    args: &'a RestoreArgs,
    saved: &'a Checked,
}

pub(super) async fn run(context: &Context, args: RestoreArgs) -> Outcome {
    let saved = check(&args.file).map_err(|error| unusable(&args, error))?;
    if args.dry_run {
        return told(context, &args, &saved, None);
    }
    let client = context.client()?;
    super::single(&client, &args.name).await?;
    let restored = Run { client: &client, args: &args, saved: &saved }.all().await;
    client.with_deadline(crate::cli::CLOSE_WITHIN).close().await;
    told(context, &args, &saved, Some(&restored?))
}

impl Run<'_> {
    async fn all(&self) -> Outcome<Restored> {
        let (version, bump) = (self.saved.version, self.args.bump_revision);
        let first = || RestoreStep::Begin { version, bump };
        let mut begun = self.step(first()).await;
        let holds = match &begun {
            Ok(begun) => begun.whole,
            Err(Failure::Error(error)) => error.code == ErrorCode::RestoreRefused,
            Err(Failure::ClosedPipe) => false,
        };
        if self.args.replace && holds {
            self.clear().await?;
            begun = self.step(first()).await;
        }
        let begun = begun?;
        if begun.whole {
            tell(
                "nothing was done: this snapshot was restored into the volume before (again: --replace)",
            );
            return Ok(begun);
        }
        if !begun.upto.is_empty() {
            let key = String::from_utf8_lossy(&begun.upto).into_owned();
            tell(&format!("goes on behind key {}", printable(&key)));
        }
        for leases in self.saved.leases.chunks(PART_LEASES) {
            self.step(RestoreStep::Leases(begun.begun, leases.to_vec())).await?;
        }
        self.bring(&begun).await?;
        self.step(RestoreStep::End(begun.begun)).await
    }

    async fn step(&self, step: RestoreStep) -> Outcome<Restored> {
        let command = RestoreCommand { saved: self.saved.id, step };
        Ok(self.client.restore_step(&self.args.name, &command).await?)
    }

    /// Brings the keys behind the last one that is there.
    async fn bring(&self, begun: &Restored) -> Outcome {
        let Restored { begun, upto, .. } = begun;
        let unusable = |error| unusable(self.args, error);
        let bar = bar(self.saved.bytes);
        let mut records = Records::open(&self.args.file).map_err(unusable)?;
        let (mut part, mut bytes) = (Vec::<Item>::new(), 0);
        loop {
            match records.next().map_err(unusable)? {
                SavedRecord::Key(item) if item.key > *upto => {
                    let item_bytes = item.key.len() + item.value.len();
                    if part.len() >= PART_KEYS || (bytes > 0 && bytes + item_bytes > PART_BYTES) {
                        let part = std::mem::take(&mut part);
                        self.step(RestoreStep::Keys(*begun, part)).await?;
                        bytes = 0;
                        bar.set_position(records.read);
                    }
                    bytes += item_bytes;
                    part.push(item);
                }
                SavedRecord::Key(_) | SavedRecord::Lease(_) => {}
                SavedRecord::End { .. } => break,
            }
        }
        if records.finish().map_err(unusable)? != self.saved.id {
            let headline = format!("{} changed while it was restored", self.args.file.display());
            let cause = "its checksum is another one than before";
            let fix = "remove the volume, create it again, and restore a file that nobody writes";
            return Err(CliError::new(ErrorCode::BadSnapshot, headline, cause, fix).into());
        }
        if !part.is_empty() {
            self.step(RestoreStep::Keys(*begun, part)).await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Lets go of what the volume holds.
    async fn clear(&self) -> Outcome {
        let name = &self.args.name;
        let all = || Keys::range("", "");
        let count = Range::of(all()).count_only();
        let keys = self.client.range(name, count, ReadLevel::Strong).await?.result.count;
        let what = format!("delete the {keys} keys of volume {name}");
        if !self.args.yes && !super::confirmed(name, &what)? {
            let headline = format!("nothing was deleted from volume {name}, nor restored");
            return Err(CliError::usage(headline, "restore into a new volume").into());
        }
        let leases = self.client.list_leases(name).await?.0;
        for some in leases.chunks(REVOKED_AT_ONCE) {
            let revoked = some.iter().map(|lease| self.client.revoke_lease(name, *lease));
            for revoked in join_all(revoked).await {
                match revoked {
                    Err(error) if error.code() != ErrorCode::UnknownLease => {
                        return Err(error.into());
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        self.client.delete_range_in_parts(name, all(), false).await?;
        Ok(())
    }
}

fn unusable(args: &RestoreArgs, error: FileError) -> Failure {
    let path = args.file.as_path();
    match error {
        FileError::Io(error) => CliError::file("read", path, &error),
        FileError::Saved(error) => CliError::new(
            ErrorCode::BadSnapshot,
            format!("{} cannot be restored", path.display()),
            error.to_string(),
            "name a file that cdb volume snapshot or etcdctl snapshot save wrote, or another copy of it",
        ),
    }
    .into()
}

fn told(
    context: &Context,
    args: &RestoreArgs,
    saved: &Checked,
    restored: Option<&Restored>,
) -> Outcome {
    let (keys, leases, from) = (saved.keys, saved.leases.len(), saved.version.0);
    let view = serde_json::json!({
        "volume": args.name, "keys": keys, "leases": leases, "bytes": saved.bytes,
        "snapshot_version": from, "version": restored.map(|restored| restored.version.0),
    });
    let holds = format!("{keys} keys, {leases} leases as of version {from}");
    let text = if let Some(Restored { version, .. }) = restored {
        format!("volume {} is restored: {holds}; it goes on from version {version}", args.name)
    } else {
        let size = ByteSize(saved.bytes);
        format!("{} is sound ({size}): {holds}; nothing was restored", args.file.display())
    };
    context.output.record(&view, &text)
}

fn bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    let style = "{bar:30} {binary_bytes} of {binary_total_bytes}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
