//! The libc functions through which LMDB and the log reach a disk.
//!
//! On the thread of a world they tell the [`ledger`](crate::power) what is
//! written, synced, renamed and removed below its directories, and fail when
//! it says so; on any other thread, and for any other file, they are the
//! kernel's. The binary stands between the product and the kernel: nothing of
//! the product knows.
#![expect(unsafe_code, reason = "interposing a libc symbol cannot be said in safe Rust")]
#![expect(clippy::cast_possible_truncation, reason = "system calls answer a long")]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

use crate::power::{self, Verdict};

/// What the kernel says of an open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Device and number.
    pub(crate) inode: (u64, u64),
    pub(crate) size: u64,
}

/// Asks the kernel of an open file.
pub(crate) fn stat(fd: c_int) -> Option<Stat> {
    // SAFETY: `stat` is plain data, and fstat only writes into it.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat) == 0).then(|| Stat {
            inode: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
        })
    }
}

/// Reads what the file holds there.
pub(crate) fn read(fd: c_int, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    // SAFETY: the buffer is valid for its length.
    let count = unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), len, at) };
    // Files that are only written to are opened anew.
    let count = usize::try_from(count).or_else(|_| {
        let file = std::fs::File::open(format!("/proc/self/fd/{fd}"))?;
        file.read_at(&mut bytes, u64::try_from(at).unwrap_or(0))
    });
    bytes.truncate(count.unwrap_or(0));
    bytes
}

/// Whether a write is durable when it returns.
pub(crate) fn writes_through(fd: c_int) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_DSYNC != 0 }
}

/// Sets `errno` and answers as a failed call does.
fn fail(errno: c_int) -> isize {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// # Safety
/// `bytes` must be readable for `count` bytes.
unsafe fn slice<'a>(bytes: *const c_void, count: usize) -> &'a [u8] {
    if bytes.is_null() {
        return &[];
    }
    // SAFETY: the caller vouches for the bytes.
    unsafe { std::slice::from_raw_parts(bytes.cast(), count) }
}

/// # Safety
/// `parts` must be `count` valid vectors.
unsafe fn gather(parts: *const libc::iovec, count: c_int) -> Vec<u8> {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller vouches for the vectors and what they point to.
    unsafe {
        let parts = std::slice::from_raw_parts(parts, count);
        parts.iter().flat_map(|part| slice(part.iov_base, part.iov_len)).copied().collect()
    }
}

fn note_write(fd: c_int, at: i64, bytes: &[u8], write: impl FnOnce() -> isize) -> isize {
    let at = u64::try_from(at).unwrap_or_default();
    match power::before_write(fd, at, bytes.len()) {
        Verdict::Refuse(errno) => fail(errno),
        Verdict::Pass => write(),
        Verdict::Note(note) => {
            let written = write();
            let done = usize::try_from(written).unwrap_or(0).min(bytes.len());
            power::after_write(note, &bytes[..done]);
            written
        }
    }
}

/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: usize, at: i64) -> isize {
    // SAFETY: the arguments are passed on as they came.
    let write = || unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, at) } as isize;
    if !power::is_watching() {
        return write();
    }
    // SAFETY: the caller of pwrite vouches for `count` bytes.
    note_write(fd, at, unsafe { slice(bytes, count) }, write)
}

/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, count: usize, at: i64) -> isize {
    // SAFETY: the arguments are passed on as they came.
    unsafe { pwrite64(fd, bytes, count, at) }
}

/// # Safety
/// As `write(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize {
    // SAFETY: the arguments are passed on as they came.
    let write = || unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) } as isize;
    if !power::is_watching() || fd <= libc::STDERR_FILENO {
        return write();
    }
    // SAFETY: lseek takes no pointer; the caller vouches for `count` bytes.
    unsafe { note_write(fd, libc::lseek(fd, 0, libc::SEEK_CUR), slice(bytes, count), write) }
}

/// # Safety
/// As `pwritev(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(
    fd: c_int,
    parts: *const libc::iovec,
    count: c_int,
    at: i64,
) -> isize {
    // SAFETY: the arguments are passed on as they came, the offset in two halves.
    let write = || unsafe { libc::syscall(libc::SYS_pwritev, fd, parts, count, at, 0) } as isize;
    if !power::is_watching() {
        return write();
    }
    // SAFETY: the caller of pwritev vouches for its parts.
    note_write(fd, at, &unsafe { gather(parts, count) }, write)
}

/// # Safety
/// As `pwritev(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, parts: *const libc::iovec, count: c_int, at: i64) -> isize {
    // SAFETY: the arguments are passed on as they came.
    unsafe { pwritev64(fd, parts, count, at) }
}

/// # Safety
/// As `writev(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const libc::iovec, count: c_int) -> isize {
    // SAFETY: the arguments are passed on as they came.
    let write = || unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) } as isize;
    if !power::is_watching() || fd <= libc::STDERR_FILENO {
        return write();
    }
    // SAFETY: lseek takes no pointer; the caller of writev vouches for its parts.
    unsafe { note_write(fd, libc::lseek(fd, 0, libc::SEEK_CUR), &gather(parts, count), write) }
}

fn sync(fd: c_int, call: i64) -> c_int {
    match power::sync(fd) {
        // The ledger is the disk: the kernel need not write anything.
        Some(Ok(())) => 0,
        Some(Err(errno)) => fail(errno) as c_int,
        // SAFETY: a sync takes a descriptor and nothing else.
        None => unsafe { libc::syscall(call, fd) as c_int },
    }
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, bytes: i64) -> c_int {
    power::unmodelled(fd, "ftruncate");
    // SAFETY: plain numbers.
    unsafe { libc::syscall(libc::SYS_ftruncate, fd, bytes) as c_int }
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, bytes: i64) -> c_int {
    ftruncate64(fd, bytes)
}

/// # Safety
/// `path` must be a terminated string.
unsafe fn path<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: the caller vouches for it.
    Path::new(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
}

/// # Safety
/// As `rename(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let at = libc::AT_FDCWD;
    // SAFETY: the arguments are passed on as they came.
    let rename = || unsafe { libc::syscall(libc::SYS_renameat2, at, from, at, to, 0) as c_int };
    if !power::is_watching() {
        return rename();
    }
    // SAFETY: the caller of rename vouches for both strings.
    let (from, to) = unsafe { (path(from), path(to)) };
    let change = power::before_rename(from, to);
    let outcome = rename();
    if outcome == 0 {
        power::changed(change);
    }
    outcome
}

/// # Safety
/// `name` must be a terminated string, below the directory `at`.
unsafe fn remove(at: c_int, name: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the arguments are passed on as they came.
    let remove = || unsafe { libc::syscall(libc::SYS_unlinkat, at, name, flags) as c_int };
    if !power::is_watching() {
        return remove();
    }
    // SAFETY: the caller vouches for the string.
    let change = power::before_remove(at, unsafe { path(name) });
    let outcome = remove();
    if outcome == 0 {
        power::changed(change);
    }
    outcome
}

/// # Safety
/// As `unlink(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(name: *const c_char) -> c_int {
    // SAFETY: the caller of unlink vouches for the string.
    unsafe { remove(libc::AT_FDCWD, name, 0) }
}

/// # Safety
/// As `rmdir(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(name: *const c_char) -> c_int {
    // SAFETY: the caller of rmdir vouches for the string.
    unsafe { remove(libc::AT_FDCWD, name, libc::AT_REMOVEDIR) }
}

/// # Safety
/// As `unlinkat(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(at: c_int, name: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller of unlinkat vouches for the string.
    unsafe { remove(at, name, flags) }
}
