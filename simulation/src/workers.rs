//! The `Workers` port: jobs run inline, each after a drawn virtual time.
//!
//! Jobs of one replica form a lane and run in order, one at a time, as the
//! product's engine threads do; their completions are messages like any other.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cluster::{
    ids::ReplicaId,
    ports::workers::{Job, Workers},
};

use crate::{disk::Pace, rng::Rng};

/// The workers of one boot.
///
/// A lock, though there is one thread: the port is `Sync` by contract.
#[derive(Clone, Debug)]
pub struct InlineWorkers(Arc<Mutex<Lanes>>);

struct Lanes {
    pace: Pace,
    rng: Rng,
    /// Jobs by replica; a lane is there while its task is.
    waiting: BTreeMap<ReplicaId, VecDeque<Job>>,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("lanes", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl InlineWorkers {
    /// Workers of a disk that is as slow as `pace`.
    pub fn new(pace: Pace, rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(Lanes { pace, rng, waiting: BTreeMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latency(&self) -> Duration {
        let mut lanes = self.lock();
        let Lanes { pace, rng, .. } = &mut *lanes;
        pace.draw(rng)
    }

    /// Runs a lane's jobs until none waits.
    async fn run(self, replica: ReplicaId) {
        loop {
            tokio::time::sleep(self.latency()).await;
            let next = self.lock().waiting.get_mut(&replica).and_then(VecDeque::pop_front);
            if let Some(job) = next {
                // A panic ends its job alone; the world notes it as a finding.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            }
            let mut lanes = self.lock();
            if lanes.waiting.get(&replica).is_none_or(VecDeque::is_empty) {
                lanes.waiting.remove(&replica);
                return;
            }
        }
    }
}

impl Workers for InlineWorkers {
    fn in_order(&self, replica: ReplicaId, job: Job) {
        let mut lanes = self.lock();
        let fresh = !lanes.waiting.contains_key(&replica);
        lanes.waiting.entry(replica).or_default().push_back(job);
        drop(lanes);
        if fresh {
            tokio::spawn(self.clone().run(replica));
        }
    }

    fn beside(&self, job: Job) {
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(this.latency()).await;
            job();
        });
    }
}

#[cfg(test)]
mod tests {
    use cluster::units::Instant;

    use super::*;
    use crate::{clock::Skew, host::Host};

    #[test]
    fn jobs_of_one_replica_run_in_order_and_of_several_side_by_side() {
        let workers = InlineWorkers::new(Pace::default(), Rng::stream(1, "test", 0));
        let ran = Arc::new(Mutex::new(Vec::new()));
        let host = Host::new(Skew::default(), Instant::ORIGIN);
        host.inside(|| {
            for number in 0..50 {
                for replica in [1, 2] {
                    let ran = ran.clone();
                    let job = move || ran.lock().unwrap().push((replica, number));
                    workers.in_order(ReplicaId(replica), Box::new(job));
                }
            }
        });
        assert_eq!(ran.lock().unwrap().len(), 0, "a job ran at once");
        host.step_to(Instant::ORIGIN + Duration::from_secs(1));
        let ran = ran.lock().unwrap().clone();
        let of =
            |wanted| ran.iter().filter(move |(replica, _)| *replica == wanted).map(|(_, n)| *n);
        assert!(of(1).eq(0..50) && of(2).eq(0..50));
        let mixed = ran.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
        assert!(mixed > 10, "the lanes waited for each other");
    }
}
