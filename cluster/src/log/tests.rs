//! What the log promises, shown over files that forget what was not synced.

mod damage;
mod oracle;
mod power;
mod world;

use world::{SEGMENT_BYTES, created, entries, open, ready, stamp, trimmed};

use super::{OpenError, SegmentedLog};
use crate::{
    ids::{LogIndex, NodeId, ReplicaId, StoreId, Term},
    memory::MemoryFiles,
    ports::log::{LogError, LogRecord},
    raft::types::HardState,
};

const R1: ReplicaId = ReplicaId(1);
const R2: ReplicaId = ReplicaId(2);

fn begun(files: &MemoryFiles) -> SegmentedLog {
    let mut log = open(files).unwrap().0;
    log.append(&[(R1, created(1)), (R2, created(2))]).unwrap();
    log.sync().unwrap();
    log
}

fn sync_append(log: &mut SegmentedLog, replica: ReplicaId, record: LogRecord) {
    log.append(&[(replica, record)]).unwrap();
    log.sync().unwrap();
    log.reclaim().unwrap();
}

#[test]
fn what_was_synced_is_there_after_a_restart() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    sync_append(&mut log, R1, ready(3, 1..=4));
    sync_append(&mut log, R1, ready(4, 3..=3));
    drop(log);
    let (log, recovery) = open(&files).unwrap();
    let one = &recovery.replicas[0];
    assert_eq!(one.entries, [entries(3, 1..=2), entries(4, 3..=3)].concat());
    assert_eq!(one.hard_state.term, Term(4));
    assert!(!one.damaged && recovery.damage.is_empty() && !recovery.fresh);
    let read = log.read(R1, LogIndex(2), LogIndex(4), usize::MAX).unwrap();
    assert_eq!(read, one.entries[1..]);
}

#[test]
fn a_read_stops_at_its_budget_but_gives_at_least_one_entry() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    sync_append(&mut log, R1, ready(1, 1..=5));
    assert_eq!(log.read(R1, LogIndex(2), LogIndex(6), 0).unwrap(), entries(1, 2..=2));
    assert_eq!(log.read(R1, LogIndex(2), LogIndex(6), usize::MAX).unwrap(), entries(1, 2..=5));
    assert!(matches!(log.read(R1, LogIndex(5), LogIndex(7), 9), Err(LogError::Missing { .. })));
    assert!(matches!(log.read(R2, LogIndex(1), LogIndex(2), 9), Err(LogError::Missing { .. })));
}

#[test]
fn a_trim_moves_the_base_and_a_snapshot_restarts_the_log_behind_it() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    sync_append(&mut log, R1, ready(1, 1..=5));
    sync_append(&mut log, R1, trimmed(3, 1));
    sync_append(&mut log, R2, ready(1, 1..=5));
    let installed = LogRecord::Installed {
        store: StoreId(9),
        index: LogIndex(40),
        term: Term(6),
        hard_state: HardState { term: Term(7), vote: R2, commit: LogIndex(40) },
    };
    sync_append(&mut log, R2, installed);
    sync_append(&mut log, R2, ready(7, 41..=42));
    drop(log);
    let (_, recovery) = open(&files).unwrap();
    let [one, two] = &recovery.replicas[..] else { panic!("two replicas") };
    assert_eq!((one.base_index, one.base_term), (LogIndex(3), Term(1)));
    assert_eq!(one.entries, entries(1, 4..=5));
    assert_eq!((two.base_index, two.base_term, two.store), (LogIndex(40), Term(6), StoreId(9)));
    assert_eq!(two.entries, entries(7, 41..=42));
    assert_eq!(two.hard_state.vote, R2);
}

#[test]
fn a_destroyed_replica_stays_destroyed_after_its_segments_are_gone() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    sync_append(&mut log, R1, ready(1, 1..=5));
    sync_append(&mut log, R1, LogRecord::Destroyed);
    for term in 1..200 {
        sync_append(&mut log, R2, ready(term, 1..=3));
    }
    assert!(log.usage().segments <= 2, "{:?}", log.usage());
    assert!(matches!(log.append(&[(R1, ready(2, 1..=1))]), Err(LogError::Refused { .. })));
    drop(log);
    let (_, recovery) = open(&files).unwrap();
    assert_eq!(recovery.replicas.iter().map(|found| found.replica).collect::<Vec<_>>(), [R2]);
}

#[test]
fn entries_of_an_idle_replica_are_moved_out_of_the_oldest_segment() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    sync_append(&mut log, R1, ready(1, 1..=3));
    let mut index = 0;
    while log.usage().segments < 4 {
        index += 1;
        sync_append(&mut log, R2, ready(1, index..=index));
    }
    assert_eq!(log.oldest_segment_replicas(), [R1, R2]);
    sync_append(&mut log, R2, trimmed(index, 1));
    assert_eq!(log.oldest_segment_replicas(), [R1]);
    while log.rewrite_forward(1).unwrap() > 0 {}
    log.sync().unwrap();
    assert!(log.reclaim().unwrap() >= 2);
    assert_eq!(log.usage().segments, 1);
    drop(log);
    let (_, recovery) = open(&files).unwrap();
    assert_eq!(recovery.replicas[0].entries, entries(1, 1..=3));
    assert!(recovery.damage.is_empty());
}

#[test]
fn a_record_that_breaks_a_rule_is_refused_and_changes_nothing() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    sync_append(&mut log, R1, ready(2, 1..=3));
    let vote = |vote| LogRecord::Ready {
        hard_state: Some(HardState { term: Term(2), vote: ReplicaId(vote), commit: LogIndex(0) }),
        entries: Vec::new(),
    };
    sync_append(&mut log, R1, vote(1));
    let before = files.writes();
    for bad in [ready(2, 5..=6), trimmed(4, 2), created(1), vote(2)] {
        assert!(
            matches!(log.append(&[(R1, bad.clone())]), Err(LogError::Refused { .. })),
            "{bad:?}"
        );
    }
    let huge = LogRecord::Ready { hard_state: None, entries: world::big(4, SEGMENT_BYTES) };
    assert!(matches!(log.append(&[(R1, huge)]), Err(LogError::Refused { .. })));
    assert_eq!(files.writes(), before);
}

#[test]
fn one_batch_of_many_replicas_costs_one_write_and_one_sync() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    let (writes, syncs) = (files.writes(), files.syncs());
    log.append(&[(R1, ready(1, 1..=2)), (R2, ready(1, 1..=2))]).unwrap();
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!((files.writes() - writes, files.syncs() - syncs), (1, 1));
}

#[test]
fn a_failed_sync_fences_the_log_although_the_next_sync_would_succeed() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    log.append(&[(R1, ready(1, 1..=2))]).unwrap();
    files.fail_sync(1);
    assert!(matches!(log.sync(), Err(LogError::Fenced(_))));
    assert!(matches!(log.sync(), Err(LogError::Fenced(_))));
    assert!(matches!(log.append(&[(R1, ready(1, 1..=1))]), Err(LogError::Fenced(_))));
    assert!(matches!(log.reclaim(), Err(LogError::Fenced(_))));
    let (_, recovery) = open(&files).unwrap();
    assert!(recovery.replicas[0].entries.is_empty() && recovery.damage.is_empty());
}

#[test]
fn a_failed_write_fences_the_log() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    files.fail_write(1);
    assert!(matches!(log.append(&[(R1, ready(1, 1..=2))]), Err(LogError::Fenced(_))));
    assert!(matches!(log.append(&[(R1, ready(1, 1..=2))]), Err(LogError::Fenced(_))));
}

#[test]
fn a_full_disk_refuses_entries_but_takes_trims_and_destructions_and_then_entries_again() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    files.limit(Some((SEGMENT_BYTES * 4) as u64));
    let mut index = 0;
    let full = loop {
        index += 1;
        if let Err(error) = log.append(&[(R1, ready(1, index..=index))]) {
            break error;
        }
        log.sync().unwrap();
        log.prepare().ok();
    };
    assert!(matches!(full, LogError::Full(_)), "{full:?}");
    assert!(log.fenced().is_none());
    let mut trims = 0;
    for index in 1..index {
        sync_append(&mut log, R1, trimmed(index, 1));
        trims += 1;
    }
    assert!(trims > 3);
    sync_append(&mut log, R2, LogRecord::Destroyed);
    sync_append(&mut log, R1, ready(1, index..=index));
    drop(log);
    let (_, recovery) = open(&files).unwrap();
    assert_eq!(recovery.replicas.len(), 1);
    assert_eq!(recovery.replicas[0].entries, entries(1, index..=index));
}

#[test]
fn a_log_opens_on_a_full_disk() {
    let files = MemoryFiles::new();
    drop(begun(&files));
    for name in files_free(&files) {
        use crate::ports::files::Files;
        files.remove(&name).unwrap();
    }
    files.limit(Some(0));
    let (mut log, recovery) = open(&files).unwrap();
    assert_eq!(recovery.replicas.len(), 2);
    sync_append(&mut log, R1, LogRecord::Destroyed);
}

fn files_free(files: &MemoryFiles) -> Vec<String> {
    use crate::ports::files::Files;
    let is_free = |name: &String| name.contains(".free");
    files.list().unwrap().into_iter().filter(is_free).collect()
}

#[test]
fn a_log_of_another_node_is_refused_by_name() {
    let files = MemoryFiles::new();
    drop(begun(&files));
    let other = super::LogStamp { node: NodeId(99 << 96), ..stamp() };
    let options = super::LogOptions { segment_bytes: SEGMENT_BYTES, begun: false };
    let error = SegmentedLog::open(std::sync::Arc::new(files), other, options).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }));
    let text = error.to_string();
    assert!(text.contains("n-00000063") && text.contains("put the disk back"), "{text}");
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let files = MemoryFiles::new();
    drop(begun(&files));
    let name = world::segments(&files).remove(0);
    let mut header = files.contents(&name).unwrap()[..24].to_vec();
    header[6] = 7;
    let crc = crc32c::crc32c(&header[..20]).to_le_bytes();
    header[20..].copy_from_slice(&crc);
    files.scribble(&name, 0, &header);
    let error = open(&files).unwrap_err().to_string();
    assert!(error.contains("format 7") && error.contains("format 1"), "{error}");
}

#[test]
fn stale_batches_of_a_reused_file_are_never_read() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    for term in 1..300 {
        sync_append(&mut log, R1, ready(term, 1..=2));
    }
    assert!(log.usage().bytes <= (SEGMENT_BYTES * 4) as u64, "files were not reused");
    for cut in 0..40 {
        let log_files = files.fork();
        let (mut log, _) = open(&log_files).unwrap();
        for term in 0..cut {
            sync_append(&mut log, R1, ready(300 + term, 1..=1));
        }
        drop(log);
        let (_, recovery) = open(&log_files).unwrap();
        let expected = if cut == 0 { entries(299, 1..=2) } else { entries(299 + cut, 1..=1) };
        assert_eq!(recovery.replicas[0].entries, expected);
        assert!(recovery.damage.is_empty());
    }
}

#[test]
fn a_replica_read_back_for_its_actor_is_durable_first() {
    let files = MemoryFiles::new();
    let mut log = begun(&files);
    log.stage(R1, &ready(5, 1..=2)).unwrap();
    let back = log.recover(R1).unwrap();
    assert!(back.entries == entries(5, 1..=2) && !back.damaged);
    files.crash(&mut || 1);
    let (_, recovery) = open(&files).unwrap();
    assert_eq!(recovery.replicas[0], back);
}
