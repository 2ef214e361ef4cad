//! The `Workers` port: jobs run inline, each after a drawn virtual time.
//!
//! Jobs of one replica form a lane and run in order, one at a time, as the
//! product's engine threads do; their completions are messages like any other.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cluster::{
    ids::ReplicaId,
    ports::workers::{Job, Workers},
};

use crate::{disk::Pace, life::Life, rng::Rng};

/// The workers of one boot.
///
/// A lock, though there is one thread: the port is `Sync` by contract.
#[derive(Clone, Debug)]
pub struct InlineWorkers(Arc<Mutex<Lanes>>, Option<Life>);

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
    /// Workers of a disk that is as slow as `pace`, for as long as `life` lasts.
    pub fn new(pace: Pace, rng: Rng, life: Option<Life>) -> Self {
        Self(Arc::new(Mutex::new(Lanes { pace, rng, waiting: BTreeMap::new() })), life)
    }

    fn is_dead(&self) -> bool {
        self.1.as_ref().is_some_and(Life::is_over)
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as the disk takes.
    async fn wait(&self) {
        let (pace, latency) = {
            let mut lanes = self.lock();
            let Lanes { pace, rng, .. } = &mut *lanes;
            (pace.clone(), pace.draw(rng))
        };
        pace.wait(latency).await;
    }

    /// Runs a lane's jobs until none waits.
    async fn run(self, replica: ReplicaId) {
        loop {
            self.wait().await;
            if self.is_dead() {
                return;
            }
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
            this.wait().await;
            if !this.is_dead() {
                job();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::units::Instant;

    use super::*;
    use crate::host::Host;

    #[test]
    fn jobs_of_one_replica_run_in_order_and_of_several_side_by_side() {
        let workers = InlineWorkers::new(Pace::default(), Rng::stream(1, "test", 0), None);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let host = Host::new(Arc::default(), Instant::ORIGIN);
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
