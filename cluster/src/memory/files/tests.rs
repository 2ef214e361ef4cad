//! What a power cut and planned faults leave of files in memory.

use super::*;

fn synced(files: &MemoryFiles) -> Box<dyn File> {
    let file = files.create("a", 4096).unwrap();
    file.sync().unwrap();
    files.sync_directory().unwrap();
    file
}

#[test]
fn a_crash_takes_what_was_not_synced_when_the_draw_says_so() {
    let files = MemoryFiles::new();
    let file = synced(&files);
    file.write_at(0, b"kept").unwrap();
    file.sync().unwrap();
    file.write_at(4, b"lost").unwrap();
    files.crash(&mut || 1);
    assert_eq!(&files.contents("a").unwrap()[..8], b"kept\0\0\0\0");
    assert!(file.size().is_err(), "a handle outlived the crash");
}

#[test]
fn a_torn_write_breaks_between_sectors() {
    let files = MemoryFiles::new();
    let file = synced(&files);
    file.write_at(100, &[7; 1000]).unwrap();
    let mut draws = [2, 0, 1, 0].into_iter();
    files.crash(&mut || draws.next().unwrap_or(1));
    let bytes = files.contents("a").unwrap();
    assert!(bytes[100..512].iter().all(|byte| *byte == 7));
    assert!(bytes[512..1024].iter().all(|byte| *byte == 0));
    assert!(bytes[1024..1100].iter().all(|byte| *byte == 7));
}

#[test]
fn an_unsynced_name_may_be_lost_with_its_file() {
    let files = MemoryFiles::new();
    synced(&files);
    files.create("b", 10).unwrap().sync().unwrap();
    files.rename("a", "c").unwrap();
    files.crash(&mut || 1);
    assert_eq!(files.list().unwrap(), ["a"]);
}

#[test]
fn a_failed_sync_drops_the_pages_and_the_next_one_succeeds() {
    let files = MemoryFiles::new();
    let file = synced(&files);
    file.write_at(0, b"gone").unwrap();
    files.fail_sync(1);
    assert!(file.sync().is_err());
    assert!(file.sync().is_ok());
    assert_eq!(&files.contents("a").unwrap()[..4], &[0; 4]);
}

#[test]
fn a_bad_device_stays_bad_over_a_crash_and_counts_what_it_spoilt() {
    let files = MemoryFiles::new();
    synced(&files).write_at(0, b"kept").unwrap();
    files.fail_reads(true);
    files.fail_writes(true);
    files.kill();
    let file = files.open("a").unwrap();
    let mut byte = [0];
    assert!(file.read_at(0, &mut byte).is_err() && file.write_at(0, b"x").is_err());
    files.fail_reads(false);
    files.fail_writes(false);
    assert_eq!(file.read_at(0, &mut byte).unwrap(), 1);
    assert_eq!((&byte, files.struck()), (b"k", 2));
}

#[test]
fn a_read_lies_once_and_the_disk_keeps_the_truth() {
    let files = MemoryFiles::new();
    let file = synced(&files);
    files.flip_next_read(13);
    let mut bytes = [0; 2];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1 << 5]);
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 2]);
}

#[test]
fn a_truncated_file_stays_short() {
    let files = MemoryFiles::new();
    let file = synced(&files);
    assert!(files.truncate("a", 100) && !files.truncate("a", 100));
    assert_eq!(file.size().unwrap(), 100);
    files.crash(&mut || 1);
    assert_eq!(files.contents("a").unwrap().len(), 100);
}

#[test]
fn a_quota_refuses_with_the_error_of_a_full_disk() {
    let files = MemoryFiles::new();
    synced(&files);
    files.limit(Some(5000));
    let refused = files.create("b", 1000).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert_eq!(files.list().unwrap(), ["a"]);
}
