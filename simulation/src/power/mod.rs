//! What a power cut leaves of real directories.
//!
//! The product writes real files through libc; the hooks tell this ledger.
//! For each file it keeps the writes since its last sync with the bytes they
//! replaced, for each directory the names that a sync of it made durable and
//! the changes since. At a cut ([`Ledger::cut`]) the directory is built anew:
//! unsynced writes kept, lost or torn, unsynced names kept or lost, each by a
//! draw. A killed process loses nothing, so nothing happens then.
//!
//! One ledger per thread, because a world is one thread. While the ledger
//! itself works on files it is borrowed, and the hooks let its calls pass.
//!
//! Source: Pillai et al., "All File Systems Are Not Created Equal" (OSDI'14);
//! Rebello et al. on what a failed fsync leaves (ATC'20).

mod image;
mod ledger;

use std::{cell::RefCell, ffi::c_int, path::Path};

pub(crate) use ledger::{DiskId, Ledger, Note, Pending};

thread_local! {
    static LEDGER: RefCell<Option<Ledger>> = const { RefCell::new(None) };
}

/// What is to become of a write.
pub(crate) enum Verdict {
    /// It is none of the ledger's.
    Pass,
    /// It fails with this `errno`.
    Refuse(c_int),
    /// It is made, and then noted.
    Note(Note),
}

/// Works on this thread's ledger, which is made if need be.
pub(crate) fn with<T>(work: impl FnOnce(&mut Ledger) -> T) -> T {
    LEDGER.with(|ledger| work(ledger.borrow_mut().get_or_insert_default()))
}

/// The same from a hook: nothing while the ledger itself is at work.
fn hooked<T>(work: impl FnOnce(&mut Ledger) -> Option<T>) -> Option<T> {
    let asked = LEDGER.try_with(|ledger| work(ledger.try_borrow_mut().ok()?.as_mut()?));
    asked.ok().flatten()
}

/// Whether any disk of this thread is watched.
pub(crate) fn is_watching() -> bool {
    hooked(|ledger| Some(ledger.is_watching())).unwrap_or(false)
}

/// Before bytes are written through a descriptor.
pub(crate) fn before_write(fd: c_int, at: u64, len: usize) -> Verdict {
    hooked(|ledger| ledger.before_write(fd, at, len)).unwrap_or(Verdict::Pass)
}

/// After they were.
pub(crate) fn after_write(note: Note, bytes: &[u8]) {
    hooked(|ledger| {
        ledger.after_write(note, bytes);
        Some(())
    });
}

/// A file or directory is synced; none if it is not watched.
pub(crate) fn sync(fd: c_int) -> Option<Result<(), c_int>> {
    hooked(|ledger| ledger.sync(fd))
}

/// A call the ledger has no model of. A disk that met one ends the run.
pub(crate) fn unmodelled(fd: c_int, call: &'static str) {
    hooked(|ledger| {
        ledger.unmodelled(fd, call);
        Some(())
    });
}

/// Before a name becomes another.
pub(crate) fn before_rename(from: &Path, to: &Path) -> Option<Pending> {
    hooked(|ledger| ledger.before_rename(from, to))
}

/// Before a name below the directory `at` is removed.
pub(crate) fn before_remove(at: c_int, name: &Path) -> Option<Pending> {
    hooked(|ledger| ledger.before_remove(at, name))
}

/// After names have changed.
pub(crate) fn changed(change: Option<Pending>) {
    hooked(|ledger| {
        ledger.changed(change?);
        Some(())
    });
}
