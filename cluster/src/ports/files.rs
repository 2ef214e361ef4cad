//! Files of one disk, flat and synchronous, as the log needs them.
//!
//! What is written is durable only after `sync`; what is created, renamed or
//! removed only after [`Files::sync_directory`]. The in-memory implementation
//! keeps exactly that promise and nothing more, so a crash there loses, tears
//! or reorders what was not synced.

use std::{fmt, io};

/// One directory.
pub trait Files: Send + Sync + fmt::Debug {
    /// Creates `name` with `bytes` allocated and zeroed; fails if it exists.
    /// Without room it fails with [`io::ErrorKind::StorageFull`] and leaves no
    /// file behind.
    ///
    /// # Errors
    /// The operating system's.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn File>>;
    /// Opens `name` for reading and writing.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Names in the directory, sorted.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Renames `from` to `to`, replacing it.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes `name`.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_directory(&self) -> io::Result<()>;
}

/// One open file.
pub trait File: Send + Sync + fmt::Debug {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn size(&self) -> io::Result<u64>;
    /// Reads at most `buffer.len()` bytes at `offset`; fewer only at the end.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The operating system's.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all writes so far durable (`fdatasync`).
    ///
    /// # Errors
    /// The operating system's. After an error nothing written since the last
    /// success may be believed: the caller fences the disk.
    fn sync(&self) -> io::Result<()>;
}
