//! The leaks no port can close: libraries that ask libc for chance or time.
//!
//! `HashMap` order and tokio's own generator begin with `getrandom`; tokio reads
//! the real clock for its statistics at every turn. This file interposes libc's
//! `getrandom`, `syscall` and `clock_gettime`: on a thread of
//! [`on_seeded_thread`] they draw from the seed, and where hosts live the clock
//! is theirs (`time.rs`); on any other thread they are libc's.
//! A fresh thread per run matters: thread-local generators start over with it.
//! A fresh process matters too, where tokio's unbiased `select!` or the wake
//! order of a watch channel is in play: tokio mixes a count of all runtimes of
//! the process into its generator. The binary therefore runs a process per seed.
#![expect(unsafe_code, reason = "interposing a libc symbol cannot be said in safe Rust")]

#[cfg(feature = "real")]
pub(crate) mod disk;
pub(crate) mod time;

use std::{
    cell::RefCell,
    ffi::{CStr, c_int, c_long, c_uint, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::rng::Rng;

thread_local! {
    static SEEDED: RefCell<Option<Rng>> = const { RefCell::new(None) };
}

/// Stack of a simulated world; debug builds of deep futures need it.
const STACK_BYTES: usize = 16 << 20;

/// Runs `work` on a fresh thread on which every library's chance is `seed`'s.
///
/// # Panics
/// With what `work` panicked, or if no thread can be made.
pub fn on_seeded_thread<T: Send + 'static>(
    seed: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let body = move || {
        SEEDED.with(|slot| *slot.borrow_mut() = Some(Rng::stream(seed, "libc", 0)));
        time::set(0);
        crate::panics::watch();
        catch_unwind(AssertUnwindSafe(work)).map_err(|_| crate::panics::take().unwrap_or_default())
    };
    #[expect(clippy::disallowed_methods, reason = "the one thread of a world")]
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(body);
    #[expect(clippy::expect_used, reason = "a host without threads cannot simulate")]
    match thread.expect("a simulation needs one thread").join() {
        Ok(Ok(value)) => value,
        Ok(Err(message)) => panic!("on a seeded thread: {message}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether this thread belongs to a simulated world.
pub(crate) fn is_seeded() -> bool {
    SEEDED.try_with(|slot| slot.borrow().is_some()).unwrap_or(false)
}

/// Fills the buffer from the seed; false on a thread without one.
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes.
unsafe fn fill_seeded(buffer: *mut c_void, len: usize) -> bool {
    if buffer.is_null() {
        return false;
    }
    let fill = |slot: &RefCell<Option<Rng>>| {
        let mut slot = slot.borrow_mut();
        let Some(rng) = slot.as_mut() else { return false };
        // SAFETY: the caller promises a writable buffer of that length.
        rng.fill(unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) });
        true
    };
    SEEDED.try_with(fill).unwrap_or(false)
}

/// Address of libc's own function `name`, looked up once.
fn next_symbol(cache: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = cache.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: RTLD_NEXT with a terminated name; dlsym has no other demands.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    cache.store(found, Ordering::Relaxed);
    found
}

type GetRandom = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> isize;
type Syscall =
    unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

static LIBC_GETRANDOM: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static LIBC_SYSCALL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Stands in for libc's `getrandom`.
///
/// # Safety
/// As libc's: `buffer` must be valid for writes of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    // SAFETY: the caller gave a buffer of that length.
    if unsafe { fill_seeded(buffer, len) } {
        return isize::try_from(len).unwrap_or(isize::MAX);
    }
    let libc_own = next_symbol(&LIBC_GETRANDOM, c"getrandom");
    if libc_own.is_null() {
        return -1;
    }
    // SAFETY: the symbol is libc's getrandom and has this signature.
    unsafe { std::mem::transmute::<*mut c_void, GetRandom>(libc_own)(buffer, len, flags) }
}

/// Stands in for libc's `syscall`, which some libraries use for `getrandom`, and
/// std to sleep.
///
/// # Safety
/// As libc's: the arguments must be what the system call demands.
#[unsafe(no_mangle)]
#[expect(clippy::many_single_char_names, reason = "the words of a system call have no names")]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_getrandom {
        let len = usize::try_from(b).unwrap_or(0);
        // SAFETY: the caller gave a buffer of that length.
        if unsafe { fill_seeded(a as *mut c_void, len) } {
            return b;
        }
    }
    // SAFETY: the caller gave what its system call demands.
    if number == libc::SYS_futex && unsafe { sleeps(b, d) } {
        // SAFETY: libc's own place for the thread's error.
        unsafe { *libc::__errno_location() = libc::ETIMEDOUT };
        return -1;
    }
    let libc_own = next_symbol(&LIBC_SYSCALL, c"syscall");
    if libc_own.is_null() {
        return -1;
    }
    // SAFETY: the symbol is libc's syscall; passing six words is what a variadic
    // call with up to six arguments does on the supported architectures.
    unsafe { std::mem::transmute::<*mut c_void, Syscall>(libc_own)(number, a, b, c, d, e, f) }
}

/// Sleeps in the thread's own time, if it has one and this is a wait with an end
/// (std gives an absolute one of the monotonic clock).
///
/// # Safety
/// `end` must be null or valid for a read, as the operation demands.
unsafe fn sleeps(operation: c_long, end: c_long) -> bool {
    let waits = operation & c_long::from(libc::FUTEX_CMD_MASK);
    let end = end as *const libc::timespec;
    if waits != c_long::from(libc::FUTEX_WAIT_BITSET) || end.is_null() {
        return false;
    }
    // SAFETY: the caller promises a readable time.
    let end = unsafe { end.read() };
    time::sleep_until(end.tv_sec, end.tv_nsec)
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

static LIBC_CLOCK_GETTIME: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Stands in for libc's `clock_gettime`: in a world there is only its hosts'
/// time, so that nobody's behaviour can depend on the real one.
///
/// # Safety
/// As libc's: `time` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let tells_time = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC);
    let own = if tells_time && !time.is_null() { time::reading() } else { None };
    if let Some((tv_sec, tv_nsec)) = own {
        // SAFETY: the caller gave a writable place.
        unsafe { time.write(libc::timespec { tv_sec, tv_nsec }) };
        return 0;
    }
    let libc_own = next_symbol(&LIBC_CLOCK_GETTIME, c"clock_gettime");
    if libc_own.is_null() {
        return -1;
    }
    // SAFETY: the symbol is libc's clock_gettime and has this signature.
    unsafe { std::mem::transmute::<*mut c_void, ClockGettime>(libc_own)(clock, time) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn order(seed: u64) -> Vec<u32> {
        on_seeded_thread(seed, || (0..32).collect::<HashSet<_>>().into_iter().collect())
    }

    #[test]
    fn hash_maps_iterate_by_the_seed_on_a_seeded_thread() {
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn real_time_stands_still_on_a_seeded_thread_and_nowhere_else() {
        #[expect(clippy::disallowed_methods, reason = "the clock is what is tested")]
        fn passes() -> bool {
            let begin = std::time::Instant::now();
            (0..1_000_000).any(|_| begin.elapsed() > std::time::Duration::ZERO)
        }
        assert!(!on_seeded_thread(1, passes));
        assert!(passes());
    }

    #[test]
    fn other_threads_keep_real_randomness() {
        assert!(!is_seeded());
        let mut drawn = [0u8; 16];
        // SAFETY: the buffer is valid for its length.
        let count = unsafe { getrandom(drawn.as_mut_ptr().cast(), drawn.len(), 0) };
        assert_eq!(count, 16);
        assert_ne!(drawn, [0; 16]);
    }
}
