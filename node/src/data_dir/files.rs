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
/// one, and the directory synced.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let new = folder.join(format!("{name}{TEMPORARY}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(fault("create", &new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fault("write", &new))?;
    fs::rename(&new, &path).map_err(fault("replace", &path))?;
    sync_directory(folder)
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
