//! Metrics of the node itself, and the page that shows those of all crates.
//!
//! Names are `cdb_<noun>_<what>_<unit>[_total]` in base units. Labels have few
//! values: never a key or a peer, and a volume only in [`super::volumes`], which
//! bounds them. Each crate keeps its own names and help texts; whoever uses the
//! `metrics` macros ends on this page.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Jobs that wait for an engine or read thread (label `kind`).
pub const WORKER_JOBS_WAITING: &str = "cdb_worker_jobs_waiting";
/// Jobs that panicked (label `kind`); each stopped a replica or failed a read.
pub const WORKER_PANICS_TOTAL: &str = "cdb_worker_panics_total";
/// How long a batch of the log took to be written and synced.
pub const LOG_SYNC_SECONDS: &str = "cdb_log_sync_duration_seconds";
/// How long a store took to commit a batch, synced.
pub const STORE_COMMIT_SECONDS: &str = "cdb_store_commit_duration_seconds";
/// Always 1; the label `version` says which release runs.
pub const BUILD_INFO: &str = "cdb_build_info";
/// Seconds since 1970 at which the process started.
pub const PROCESS_START_SECONDS: &str = "cdb_process_start_time_seconds";
/// Files the process may have open.
pub const PROCESS_OPEN_FILES_MAX: &str = "cdb_process_open_files_max";
/// Bytes of keys and values below a prefix that has a quota at the etcd door (label
/// `prefix`, as configured), as far as this node has seen them.
pub const ETCD_QUOTA_BYTES: &str = "cdb_etcd_quota_used_bytes";
/// Keys there.
pub const ETCD_QUOTA_KEYS: &str = "cdb_etcd_quota_used_keys";
/// Requests refused because they would have brought more than that quota.
pub const ETCD_QUOTA_REFUSED_TOTAL: &str = "cdb_etcd_quota_refused_total";

/// Keys of a volume (label `volume`) in the shards that this node leads.
pub const VOLUME_KEYS: &str = "cdb_volume_keys";
/// Bytes of those keys and their values; history is not counted.
pub const VOLUME_BYTES: &str = "cdb_volume_used_bytes";
/// The newest version of a volume of kind *single*: etcd's revision.
pub const VOLUME_REVISION: &str = "cdb_volume_revision";
/// The oldest version of it that can be read.
pub const VOLUME_COMPACTED: &str = "cdb_volume_compacted_revision";
/// 1 while a restore of a volume was begun and has not ended.
pub const VOLUME_RESTORING: &str = "cdb_volume_restoring";
/// Volumes of this node that have no lines of their own.
pub const VOLUMES_UNSHOWN: &str = "cdb_volume_unshown";

/// Bounds of every histogram in seconds: from a cached read (10 µs) to a
/// request that used up its deadline (10 s), about 2.5 steps per decade.
const SECONDS_BUCKETS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 10.0,
];
/// Bounds of every histogram in bytes: a small value to the largest frame.
const BYTES_BUCKETS: [f64; 8] =
    [256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 8_388_608.0];
/// How often old samples are put into their buckets when nobody reads the page.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The exporter refused its settings.
    #[error("cannot build the metrics recorder: {0}")]
    Build(#[from] metrics_exporter_prometheus::BuildError),
    /// The process has a recorder already.
    #[error("the process has a metrics recorder already")]
    Installed,
}

/// Makes this process's metrics go to one page, and describes the node's own.
///
/// # Errors
/// If there is a recorder already.
pub fn install() -> Result<PrometheusHandle, MetricsError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Installed)?;
    describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Keeps the recorder's memory small for as long as the runtime lives.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

fn describe() {
    describe_gauge!(WORKER_JOBS_WAITING, "Jobs that wait for an engine or read thread.");
    describe_counter!(WORKER_PANICS_TOTAL, "Jobs that panicked.");
    describe_histogram!(LOG_SYNC_SECONDS, "How long a batch of the log took to be durable.");
    describe_histogram!(STORE_COMMIT_SECONDS, "How long a store took to commit a batch.");
    describe_gauge!(BUILD_INFO, "Always 1; the label says which release runs.");
    describe_gauge!(PROCESS_START_SECONDS, "When the process started, in seconds since 1970.");
    describe_gauge!(PROCESS_OPEN_FILES_MAX, "Files the process may have open.");
    describe_gauge!(ETCD_QUOTA_BYTES, "Bytes of keys and values below a prefix with a quota.");
    describe_gauge!(ETCD_QUOTA_KEYS, "Keys below a prefix with a quota.");
    describe_counter!(ETCD_QUOTA_REFUSED_TOTAL, "Requests that a quota refused.");
    for kind in ["engine", "read"] {
        counter!(WORKER_PANICS_TOTAL, "kind" => kind).increment(0);
        gauge_jobs_waiting(kind, 0);
    }
    actors::metrics::describe();
    transport::metrics::describe();
}

/// Says when the process started and how many files it may open.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; neither comes near 2^52")]
pub fn gauge_process(start: cluster::units::WallTime, open_files_max: u64) {
    gauge!(PROCESS_START_SECONDS).set(start.0 as f64 / 1_000.0);
    gauge!(PROCESS_OPEN_FILES_MAX).set(open_files_max as f64);
}

#[expect(clippy::cast_precision_loss, reason = "the queue is capped far below 2^52")]
pub(crate) fn gauge_jobs_waiting(kind: &'static str, jobs: usize) {
    gauge!(WORKER_JOBS_WAITING, "kind" => kind).set(jobs as f64);
}

pub(crate) fn time_log_sync(took: Duration) {
    histogram!(LOG_SYNC_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn time_store_commit(took: Duration) {
    histogram!(STORE_COMMIT_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn count_job_panic(kind: &'static str) {
    counter!(WORKER_PANICS_TOTAL, "kind" => kind).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_was_counted_and_there_is_only_one() {
        let handle = install().unwrap();
        count_job_panic("engine");
        let page = handle.render();
        assert!(page.contains("# HELP cdb_worker_panics_total Jobs that panicked."), "{page}");
        assert!(page.contains("cdb_worker_panics_total{kind=\"engine\"}"), "{page}");
        assert!(matches!(install(), Err(MetricsError::Installed)));
    }
}
