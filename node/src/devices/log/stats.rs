//! What the log's thread counts, for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Latencies are sorted into buckets whose bounds double; the first ends at 2 µs,
/// the last holds everything above 8 s.
const BUCKETS: usize = 24;

/// Counters of a log since its birth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Batches, each with one sync.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// About the bytes in them.
    pub bytes: u64,
    /// Appends and reads refused because the queue was full or the log ended.
    pub refused: u64,
    /// Time of all writes and syncs of batches.
    pub sync_time: Duration,
    /// The longest.
    pub sync_time_max: Duration,
    /// Batches by time of write and sync: bucket n counts those below 2^(n+1) µs.
    pub sync_time_buckets: Vec<u64>,
    /// Records waiting now.
    pub queue_records: usize,
    /// Bytes waiting now.
    pub queue_bytes: usize,
}

impl LogStats {
    /// Upper bound of the time that `share` (0 to 1) of the batches stayed below.
    pub fn sync_time_quantile(&self, share: f64) -> Duration {
        let mut seen = 0;
        for (number, count) in (0_u32..).zip(&self.sync_time_buckets) {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "a quantile of counts needs no more")]
            if seen as f64 >= self.batches as f64 * share && seen > 0 {
                return Duration::from_micros(2 << number);
            }
        }
        self.sync_time_max
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    sync_ns: AtomicU64,
    sync_ns_max: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Counters {
    pub(super) fn batch(&self, records: usize, bytes: usize, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Relaxed);
        self.records.fetch_add(records as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.sync_ns.fetch_add(nanos, Relaxed);
        self.sync_ns_max.fetch_max(nanos, Relaxed);
        let bucket = (nanos / 1_000).checked_ilog2().unwrap_or(0) as usize;
        if let Some(count) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self, queue_records: usize, queue_bytes: usize) -> LogStats {
        LogStats {
            batches: self.batches.load(Relaxed),
            records: self.records.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            refused: self.refused.load(Relaxed),
            sync_time: Duration::from_nanos(self.sync_ns.load(Relaxed)),
            sync_time_max: Duration::from_nanos(self.sync_ns_max.load(Relaxed)),
            sync_time_buckets: self.buckets.iter().map(|count| count.load(Relaxed)).collect(),
            queue_records,
            queue_bytes,
        }
    }
}
