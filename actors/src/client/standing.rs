//! How far each watch of a stream has told its reader, and a progress of all of them.
//!
//! A progress is a promise: all that happened up to its version was put before the
//! reader on this stream. So it takes the newest version first and then waits until
//! every watch has got there; watches that wait for news are told to hurry.
//!
//! Source: etcd's `RequestProgress`, and its bug 15220: progress ahead of events.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cluster::mvcc::version::Version;
use tokio::sync::Notify;

/// What a watch and its stream know of each other.
#[derive(Debug, Default)]
pub struct Standing {
    /// All up to this version was put before the reader.
    upto: AtomicU64,
    /// The place moved.
    moved: Notify,
    /// Somebody wants to know the place soon.
    hurry: Notify,
}

impl Standing {
    /// All up to `version` was sent.
    pub fn reached(&self, version: Version) {
        self.upto.fetch_max(version.0, Ordering::AcqRel);
        self.moved.notify_waiters();
    }

    /// The watch has ended: nobody need wait for it.
    pub fn over(&self) {
        self.reached(Version(u64::MAX));
    }

    /// Returns when somebody wants to know the place soon.
    pub async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Waits until all up to `version` was sent.
    async fn reaches(&self, version: Version) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Registered before looking, so that no step in between is missed.
            moved.as_mut().enable();
            if self.upto.load(Ordering::Acquire) >= version.0 {
                return;
            }
            self.hurry.notify_one();
            moved.await;
        }
    }
}

/// The version up to which all watches of a stream have told everything: the newest
/// there is now.
pub async fn progress(
    standings: Vec<Arc<Standing>>,
    newest: impl Future<Output = Version>,
) -> Version {
    let now = newest.await;
    for standing in standings {
        standing.reaches(now).await;
    }
    now
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_progress_waits_for_every_watch_and_for_none_that_has_ended() {
        let watches: [Arc<Standing>; 3] = std::array::from_fn(|_| Arc::default());
        let [ahead, behind, ended] = &watches;
        ahead.reached(Version(9));
        behind.reached(Version(6));
        let told = progress(watches.to_vec(), async { Version(7) });
        tokio::pin!(told);
        assert!(timeout(SOON, &mut told).await.is_err(), "one is behind");
        behind.hurried().await;
        behind.reached(Version(7));
        assert!(timeout(SOON, &mut told).await.is_err(), "another told nothing yet");
        ended.over();
        assert_eq!(timeout(SOON, told).await, Ok(Version(7)));
    }
}
