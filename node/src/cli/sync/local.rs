//! The local side of a sync: which files there are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cluster::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::LeftOut;
use crate::cli::files::modified_ms;

/// A file to upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) modified_ms: u64,
}

/// Deepest folder followed: a key has at most 1,024 bytes, so at most 512
/// parts; deeper ones are left out by their length anyway.
const DEPTH_MAX: usize = 520;

/// Walks `folder` in order of names. Links and special files are not followed
/// but listed, like everything else that cannot be stored.
///
/// # Errors
/// If `folder` itself cannot be read.
pub(super) fn walk(folder: &Path, prefix: &str) -> io::Result<(Vec<LocalFile>, Vec<LeftOut>)> {
    let mut walk = Walk { files: Vec::new(), left_out: Vec::new() };
    walk.folder(folder, prefix, 0)?;
    Ok((walk.files, walk.left_out))
}

struct Walk {
    files: Vec<LocalFile>,
    left_out: Vec<LeftOut>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if let Err(reason) = self.entry(&entry, &path, prefix, depth) {
                let name = path.display().to_string();
                self.left_out.push(LeftOut { name, reason });
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &fs::DirEntry,
        path: &Path,
        prefix: &str,
        depth: usize,
    ) -> Result<(), String> {
        let name = entry.file_name();
        let name = name.to_str().ok_or("its name is not UTF-8")?;
        let key = format!("{prefix}{name}");
        let meta = entry.metadata().map_err(|error| error.to_string())?;
        if meta.is_dir() {
            if depth >= DEPTH_MAX {
                return Err("its folder lies too deep".into());
            }
            let inner = format!("{key}/");
            return self.folder(path, &inner, depth + 1).map_err(|error| error.to_string());
        }
        if meta.is_symlink() {
            return Err("it is a link; links are not followed".into());
        }
        if !meta.is_file() {
            return Err("it is no regular file".into());
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("its key would have {} bytes; the limit is 1,024", key.len()));
        }
        if meta.len() > VALUE_BYTES_MAX as u64 {
            return Err(format!("it has {} bytes; the limit is 4 MiB", meta.len()));
        }
        self.files.push(LocalFile {
            path: path.to_owned(),
            key,
            bytes: meta.len(),
            modified_ms: modified_ms(&meta),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    #[test]
    fn what_cannot_be_stored_is_listed_and_the_rest_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::write(root.join("b/c/two"), "2").unwrap();
        fs::write(root.join("a one"), "1").unwrap();
        fs::write(root.join("näme"), "3").unwrap();
        fs::write(root.join("big"), vec![0; VALUE_BYTES_MAX + 1]).unwrap();
        fs::write(root.join(OsStr::from_bytes(b"bad\xff")), "x").unwrap();
        std::os::unix::fs::symlink("a one", root.join("link")).unwrap();
        let mut deep = root.to_owned();
        for _ in 0..5 {
            deep.push("d".repeat(220));
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("long"), "x").unwrap();

        let (files, left_out) = walk(root, "tree/").unwrap();

        let keys: Vec<&str> = files.iter().map(|file| file.key.as_str()).collect();
        assert_eq!(keys, ["tree/a one", "tree/b/c/two", "tree/näme"]);
        let reasons: Vec<&str> = left_out.iter().map(|left| left.reason.as_str()).collect();
        assert_eq!(reasons.len(), 4, "{reasons:?}");
        for part in ["not UTF-8", "4 MiB", "1,024", "link"] {
            assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
        }
    }
}
