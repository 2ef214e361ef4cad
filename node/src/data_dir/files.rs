//! Small files, replaced whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::DataDirError;

/// Ending of files that are being written; one left behind means nothing.
const TEMPORARY: &str = ".new";
/// Room held for these files: a node whose disk has none left would not start, and one
/// that does not run takes no deletes that make room.
const SPARE: &str = "spare";
const SPARE_BYTES: usize = 64 << 10;

type Result<T> = std::result::Result<T, DataDirError>;

fn fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { action, path, source }
}

pub(super) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY)
}

/// Makes a directory for its owner alone, durable with its parent.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault("create", path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> Result<()> {
    // The parent of a relative name of one part is the empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(fault("sync", path))
}

/// Writes `name` for its owner alone: a new file, synced, renamed over the old
/// one, and the directory synced. On a full disk the spare room is given up for it.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let new = folder.join(format!("{name}{TEMPORARY}"));
    let mut written = write(&new, bytes);
    if written.as_ref().is_err_and(is_full) && folder.join(SPARE).exists() {
        remove(folder, SPARE)?;
        written = write(&new, bytes);
    }
    written.map_err(fault("write", &new))?;
    fs::rename(&new, &path).map_err(fault("replace", &path))?;
    sync_directory(folder)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Holds spare room again, if there is any: a full disk is told elsewhere.
pub(super) fn hold_spare(folder: &Path) {
    let path = folder.join(SPARE);
    let is_whole = fs::metadata(&path).is_ok_and(|held| held.len() == SPARE_BYTES as u64);
    if !is_whole && write(&path, &vec![0; SPARE_BYTES]).is_err() {
        drop(fs::remove_file(&path));
    }
}

pub(super) fn remove(folder: &Path, name: &str) -> Result<()> {
    let path = folder.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => {
            done.map_err(fault("remove", &path))?;
            sync_directory(folder)
        }
    }
}

/// Reads a file of at most `bytes_max`, a frame's header aside.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>> {
    let most = bytes_max + cluster::formats::FRAME_HEADER_BYTES;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(fault("read", path))?;
    if bytes.len() > most {
        let cause = format!("it is longer than {bytes_max} bytes");
        return Err(DataDirError::Damaged { path: path.to_owned(), cause });
    }
    Ok(bytes)
}

pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fault("read", folder))? {
        let entry = entry.map_err(fault("read", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}
