//! Local files as `get` and `sync` write them: whole or not at all, and never
//! outside the folder asked for.

use std::{
    fs, io,
    io::Write,
    path::{Component, Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

/// Writes a file through a temporary one beside it, then renames; sets its
/// time of change when one is given.
///
/// # Errors
/// The operating system's.
pub(super) fn write_whole(path: &Path, bytes: &[u8], modified_ms: Option<u64>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut part_name = std::ffi::OsString::from(".cdb-");
    // A name of 255 bytes leaves no room for an addition: take the process id
    // and a hash of the name instead.
    let hash = cluster::shard::descriptor::key_hash(name.as_encoded_bytes());
    part_name.push(format!("{}-{hash:016x}.part", std::process::id()));
    let part = path.with_file_name(part_name);
    let written = write_part(&part, bytes, modified_ms).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // The first error is the one to report.
        drop(fs::remove_file(&part));
    }
    written
}

fn write_part(part: &Path, bytes: &[u8], modified_ms: Option<u64>) -> io::Result<()> {
    let mut file = fs::File::create(part)?;
    file.write_all(bytes)?;
    if let Some(millis) = modified_ms {
        file.set_modified(UNIX_EPOCH + Duration::from_millis(millis))?;
    }
    Ok(())
}

/// Milliseconds since 1970 of a file's last change, rounded up: a file changed
/// within the millisecond of a copy then counts as newer.
pub(super) fn modified_ms(meta: &fs::Metadata) -> u64 {
    // Of an unknown time nothing is newer, so such a file is copied.
    let unknown = || UNIX_EPOCH + Duration::from_secs(1 << 40);
    let since = meta.modified().unwrap_or_else(|_| unknown());
    let micros = since.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
    u64::try_from(micros.div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Why a key is no path below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnsafeKey {
    /// It would leave the folder, or names no file.
    #[error("it would not lie below the target folder")]
    Leaves,
    /// A part of it is no file name here.
    #[error("a part of it is no file name on this machine")]
    NoName,
    /// Something on the way is a link.
    #[error("a link on the way leads out of the target folder")]
    Link,
}

/// Longest file name of the usual file systems.
const NAME_BYTES_MAX: usize = 255;

/// The path of a key below `folder`.
///
/// # Errors
/// If it would leave the folder: empty, `.` and `..` parts, a leading slash.
pub(super) fn path_below(folder: &Path, key: &str) -> Result<PathBuf, UnsafeKey> {
    if key.is_empty() || key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(UnsafeKey::Leaves);
    }
    if key.contains('\0') || key.split('/').any(|part| part.len() > NAME_BYTES_MAX) {
        return Err(UnsafeKey::NoName);
    }
    let relative = Path::new(key);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(UnsafeKey::Leaves);
    }
    Ok(folder.join(relative))
}

/// Refuses a path whose way below `folder` goes over a link.
///
/// # Errors
/// If it does.
pub(super) fn no_link_between(folder: &Path, path: &Path) -> Result<(), UnsafeKey> {
    let mut way = path.parent();
    while let Some(part) = way.filter(|part| *part != folder && part.starts_with(folder)) {
        if fs::symlink_metadata(part).is_ok_and(|meta| meta.is_symlink()) {
            return Err(UnsafeKey::Link);
        }
        way = part.parent();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_would_leave_the_folder_are_refused() {
        let folder = Path::new("out");
        for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a/."] {
            assert_eq!(path_below(folder, key), Err(UnsafeKey::Leaves), "{key}");
        }
        assert_eq!(path_below(folder, "a\0b"), Err(UnsafeKey::NoName));
        assert_eq!(path_below(folder, &"x".repeat(256)), Err(UnsafeKey::NoName));
        assert_eq!(path_below(folder, "a/..b/c"), Ok(folder.join("a/..b/c")));
    }

    #[test]
    fn a_link_inside_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
        let path = path_below(folder.path(), "out/etc/x").unwrap();
        assert_eq!(no_link_between(folder.path(), &path), Err(UnsafeKey::Link));
        let fine = path_below(folder.path(), "in/x").unwrap();
        assert_eq!(no_link_between(folder.path(), &fine), Ok(()));
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        write_whole(&path, b"old", None).unwrap();
        write_whole(&path, b"new", Some(1_234_000)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(modified_ms(&fs::metadata(&path).unwrap()), 1_234_000);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
