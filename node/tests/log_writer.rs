//! The log's thread over real and forgetful files.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use cluster::{
    ids::{ClusterId, LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term, VolumeId},
    log::{LogOptions, LogStamp, SegmentedLog},
    memory::MemoryFiles,
    ports::{
        files::Files,
        log::{LogError, LogRecord, LogStore},
    },
    raft::types::{Entry, Payload},
};
use clusterdb::devices::{
    files::DirectoryFiles,
    log::{LogWriter, LogWriterOptions},
};

const STAMP: LogStamp = LogStamp { cluster: ClusterId(1), node: NodeId(2), disk: 0 };
const OPTIONS: LogOptions = LogOptions { segment_bytes: 1 << 20, begun: false };
const WAIT: Duration = Duration::from_mins(1);

type Outcome = Result<(), LogError>;

fn created() -> LogRecord {
    LogRecord::Created {
        shard: ShardId(1),
        volume: VolumeId(1),
        store: StoreId(1),
        index: LogIndex(0),
        term: Term(0),
    }
}

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(vec![index.to_le_bytes()[0]; 200]);
    Entry { index: LogIndex(index), term: Term(1), payload }
}

fn ready(index: u64) -> LogRecord {
    LogRecord::Ready { hard_state: None, entries: vec![entry(index)] }
}

fn start(files: &Arc<dyn Files>, options: LogWriterOptions) -> (LogWriter, Receiver<String>) {
    let (log, _) = SegmentedLog::open(Arc::clone(files), STAMP, OPTIONS).unwrap();
    let (tell, told) = channel();
    let writer = LogWriter::start(log, options, move |cause| tell.send(cause).unwrap()).unwrap();
    (writer, told)
}

fn append(writer: &LogWriter, replica: u64, record: LogRecord, to: &Sender<(u64, Outcome)>) {
    let to = to.clone();
    let done = Box::new(move |outcome| to.send((replica, outcome)).unwrap_or(()));
    writer.append(ReplicaId(replica), record, done);
}

fn wait_append(writer: &LogWriter, replica: u64, record: LogRecord) -> Outcome {
    let (to, from) = channel();
    append(writer, replica, record, &to);
    from.recv_timeout(WAIT).unwrap().1
}

#[test]
fn what_waits_shares_a_sync_and_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(DirectoryFiles::open(directory.path()).unwrap());
    let (writer, _fences) = start(&files, LogWriterOptions::default());
    for replica in 1..=64 {
        wait_append(&writer, replica, created()).unwrap();
    }
    let before = writer.stats();
    let (to, from) = channel();
    for index in 1..=50 {
        for replica in 1..=64 {
            append(&writer, replica, ready(index), &to);
        }
    }
    for _ in 0..50 * 64 {
        from.recv_timeout(WAIT).unwrap().1.unwrap();
    }
    let after = writer.stats();
    assert_eq!(after.records - before.records, 50 * 64);
    assert!(after.batches - before.batches < 1600, "no group commit: {after:?}");
    assert_eq!((after.queue_records, after.queue_bytes), (0, 0));
    writer.stop();
    assert!(matches!(wait_append(&writer, 1, ready(51)), Err(LogError::Fenced(_))));

    let (_, recovery) = SegmentedLog::open(files, STAMP, OPTIONS).unwrap();
    assert_eq!(recovery.replicas.len(), 64);
    for replica in &recovery.replicas {
        assert_eq!(replica.entries, (1..=50).map(entry).collect::<Vec<_>>());
    }
    assert!(recovery.damage.is_empty());
}

#[test]
fn a_read_sees_what_was_appended_before_it() {
    let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
    let (writer, _fences) = start(&files, LogWriterOptions::default());
    let (to, from) = channel();
    append(&writer, 1, created(), &to);
    append(&writer, 1, ready(1), &to);
    append(&writer, 1, ready(2), &to);
    let (read_to, read_from) = channel();
    let done = Box::new(move |entries| read_to.send(entries).unwrap());
    writer.read(ReplicaId(1), LogIndex(1), LogIndex(3), usize::MAX, done);
    assert_eq!(read_from.recv_timeout(WAIT).unwrap().unwrap(), [entry(1), entry(2)]);
    drop(from);
}

#[test]
fn a_full_queue_answers_busy_at_once() {
    let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
    let options = LogWriterOptions { queue_records_max: 4, ..LogWriterOptions::default() };
    let (writer, _fences) = start(&files, options);
    let (release, gate) = channel::<()>();
    writer.pins(Box::new(move |_| gate.recv().unwrap_or(())));
    let (to, from) = channel();
    for replica in 1..=20 {
        append(&writer, replica, created(), &to);
    }
    let (_, first) = from.recv_timeout(WAIT).unwrap();
    assert_eq!(first, Err(LogError::Busy), "the refusal waited for the disk");
    release.send(()).unwrap();
    let outcomes: Vec<Outcome> = (1..20).map(|_| from.recv_timeout(WAIT).unwrap().1).collect();
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((1..=8).contains(&taken), "{taken} of 20 were taken");
    assert_eq!(writer.stats().refused, 20 - taken as u64);
}

#[test]
fn a_failed_sync_fences_the_writer_and_tells_so_once() {
    let memory = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(memory.clone());
    let (writer, fences) = start(&files, LogWriterOptions::default());
    wait_append(&writer, 1, created()).unwrap();
    let before = writer.stats().batches;
    memory.fail_sync(1);
    let failed = wait_append(&writer, 1, ready(1));
    assert!(matches!(failed, Err(LogError::Fenced(_))), "{failed:?}");
    assert!(matches!(wait_append(&writer, 1, ready(1)), Err(LogError::Fenced(_))));
    assert!(fences.recv_timeout(WAIT).unwrap().contains("sync"));
    assert!(fences.recv_timeout(Duration::from_millis(10)).is_err());
    assert!(writer.stats().batches > before);
}
