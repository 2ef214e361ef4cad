//! `cdb volume snapshot`: all of a volume of kind *single* as a file.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use cluster::units::ByteSize;

use crate::{
    cli::{
        Context,
        error::{CliError, Outcome},
    },
    saved::Saving,
};

/// `cdb volume snapshot`
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// Of which volume; it is of kind single
    name: String,
    /// Where to: a new file
    file: PathBuf,
}

pub(super) async fn run(context: &Context, args: SnapshotArgs) -> Outcome {
    let path = args.file.as_path();
    let mut part_name = path.as_os_str().to_owned();
    part_name.push(".part");
    let part = PathBuf::from(part_name);
    if path.exists() {
        let exists = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(CliError::file("write", path, &exists).into());
    }
    let client = context.client()?;
    super::single(&client, &args.name).await?;
    let mut saving = Saving::new(&client, &args.name);
    let bytes = match save(&mut saving, &part, path).await {
        Ok(bytes) => bytes,
        Err(failure) => {
            // Nobody can use half of it; that it cannot go either is the lesser news.
            let _ = fs::remove_file(&part);
            return Err(failure);
        }
    };
    let ((keys, leases), version) = (saving.counts(), saving.version().0);
    let view = serde_json::json!({
        "volume": args.name, "version": version, "keys": keys, "leases": leases, "bytes": bytes,
    });
    let text = format!(
        "volume {} is saved as of version {version}: {keys} keys, {leases} leases, {}",
        args.name,
        ByteSize(bytes)
    );
    context.output.record(&view, &text)
}

/// Writes it beside the file it is to be, and gives it that name at the end; how
/// many bytes it has.
async fn save(saving: &mut Saving<'_>, part: &Path, path: &Path) -> Outcome<u64> {
    let failed = |error: io::Error| CliError::file("write", path, &error);
    let mut file = File::create(part).map_err(failed)?;
    let mut bytes = 0_u64;
    while let Some(piece) = saving.next().await? {
        file.write_all(&piece).map_err(failed)?;
        bytes += piece.len() as u64;
    }
    settle(&file, part, path).map_err(failed)?;
    Ok(bytes)
}

/// Gives a file its name once all of it is on the disk.
fn settle(file: &File, part: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(part, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
