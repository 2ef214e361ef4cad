//! A directory of the real disk.
//!
//! What is created is allocated and filled with zeros and synced, so that a
//! later sync of one batch writes that batch and no metadata. Only one process
//! may use a directory; the lock that sees to it is the node's, not ours.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use cluster::ports::files::{File, Files};
use rustix::fs::{FallocateFlags, fallocate};

/// Zeros written at a time: large enough that the calls do not count.
const FILL_BYTES: usize = 1 << 20;

/// One directory.
#[derive(Debug)]
pub struct DirectoryFiles {
    path: PathBuf,
    /// Kept open for its syncs, so that they reach this very directory.
    handle: fs::File,
}

impl DirectoryFiles {
    /// Opens the directory at `path`, making it (and syncing its parent) when
    /// it is not there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { path: path.to_owned(), handle: fs::File::open(path)? })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Files for DirectoryFiles {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn File>> {
        let path = self.at(name);
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        match fill(&file, bytes) {
            Ok(()) => Ok(Box::new(DiskFile { file })),
            Err(error) => {
                fs::remove_file(&path)?;
                Err(error)
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(self.at(name))?;
        Ok(Box::new(DiskFile { file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Allocates, then writes zeros: allocation alone leaves extents that the
/// first write to them must convert, which costs each sync a journal commit.
fn fill(file: &fs::File, bytes: u64) -> io::Result<()> {
    if bytes > 0
        && let Err(error) = fallocate(file, FallocateFlags::empty(), 0, bytes)
        && error != rustix::io::Errno::OPNOTSUPP
    {
        return Err(error.into());
    }
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < bytes {
        let count = usize::try_from(bytes - at).unwrap_or(FILL_BYTES).min(FILL_BYTES);
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    file.sync_all()
}

#[derive(Debug)]
struct DiskFile {
    file: fs::File,
}

impl File for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_file_is_whole_and_zero_and_reads_back_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let files = DirectoryFiles::open(&directory.path().join("log")).unwrap();
        let file = files.create("a", 3 << 20).unwrap();
        assert_eq!(file.size().unwrap(), 3 << 20);
        file.write_at((3 << 20) - 4, b"tail").unwrap();
        file.sync().unwrap();
        let mut buffer = [1; 16];
        assert_eq!(file.read_at((3 << 20) - 8, &mut buffer).unwrap(), 8);
        assert_eq!(&buffer[..8], b"\0\0\0\0tail");
        assert_eq!(files.create("a", 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        files.rename("a", "b").unwrap();
        files.sync_directory().unwrap();
        assert_eq!(files.list().unwrap(), ["b"]);
    }
}
