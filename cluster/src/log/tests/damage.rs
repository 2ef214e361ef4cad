//! The table of outcomes of `node/docs/damage.md`, one test per cell, and the
//! cases around it.
//!
//! A cell runs three logs, one per node, each with one replica of the same
//! shard, and asks after the damage how many of them may vote.

use std::sync::Arc;

use super::{
    SegmentedLog, open,
    world::{SEGMENT_BYTES, created, entries, ready, segments, stamp, trimmed},
};
use crate::{
    ids::{LogIndex, ReplicaId, Term},
    log::{LogOptions, OpenError, Recovery, damage_below},
    memory::MemoryFiles,
    ports::{
        files::Files,
        log::{LogError, LogRecord, RecoveredReplica},
    },
    raft::types::HardState,
};

const R1: ReplicaId = ReplicaId(1);
const R2: ReplicaId = ReplicaId(2);

/// One node's disk and what of it is known to lie where.
struct Node {
    files: MemoryFiles,
    log: SegmentedLog,
}

/// Where a record was written.
struct Place {
    name: String,
    offset: usize,
}

impl Node {
    fn begin() -> Self {
        let files = MemoryFiles::new();
        let log = open(&files).unwrap().0;
        let mut node = Self { files, log };
        node.tell(R1, created(1));
        node
    }

    /// Appends and syncs; answers where.
    fn tell(&mut self, replica: ReplicaId, record: LogRecord) -> Place {
        let before = self.contents();
        self.log.append(&[(replica, record)]).unwrap();
        self.log.sync().unwrap();
        let after = self.contents();
        let changed = |(name, bytes): &(String, Vec<u8>)| {
            let zeros = vec![0; bytes.len()];
            let old = before.iter().find(|(old, _)| old == name).map_or(&zeros, |(_, old)| old);
            let offset = bytes.iter().zip(old).position(|(new, old)| new != old)?;
            Some(Place { name: name.clone(), offset })
        };
        after.iter().rev().find_map(changed).unwrap()
    }

    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let read = |name: String| (name.clone(), self.files.contents(&name).unwrap());
        segments(&self.files).into_iter().map(read).collect()
    }

    /// Fills segments with entries of R2 until `count` more are in use.
    fn fill(&mut self, count: usize) {
        if self.log.index.replica(R2).is_none() {
            self.tell(R2, created(2));
        }
        let goal = self.log.usage().segments + count;
        while self.log.usage().segments < goal {
            let next = self.log.index.replica(R2).map_or(1, |known| known.last_index() + 1);
            self.tell(R2, ready(1, next..=next));
        }
    }

    fn bend(&self, place: &Place) {
        assert!(self.files.flip_bit(&place.name, place.offset * 8));
    }

    fn restart(self) -> (Self, Recovery) {
        drop(self.log);
        self.files.kill();
        let (log, recovery) = open(&self.files).unwrap();
        (Self { files: self.files, log }, recovery)
    }
}

fn found(recovery: &Recovery, replica: ReplicaId) -> &RecoveredReplica {
    recovery.replicas.iter().find(|found| found.replica == replica).unwrap()
}

/// A shard on three nodes with three acknowledged entries, after `harm` was
/// done to the logs of the first `nodes`.
fn shard(nodes: usize, harm: impl Fn(&mut Node)) -> Vec<Recovery> {
    let recover = |number: usize| {
        let mut node = Node::begin();
        node.tell(R1, ready(2, 1..=3));
        if number < nodes {
            harm(&mut node);
        } else {
            node.tell(R1, ready(2, 4..=4));
        }
        node.restart().1
    };
    (0..3).map(recover).collect()
}

fn voters(recoveries: &[Recovery]) -> usize {
    recoveries.iter().filter(|recovery| !found(recovery, R1).damaged).count()
}

fn acknowledged(recovery: &Recovery) -> bool {
    found(recovery, R1).entries.starts_with(&entries(2, 1..=3))
}

/// An append that a power cut tore before it was synced.
fn torn_tail(node: &mut Node) {
    node.log
        .append(&[(R1, LogRecord::Ready { hard_state: None, entries: entries(2, 4..=40) })])
        .unwrap();
    let mut draws = [2, 0].into_iter();
    node.files.crash(&mut || draws.next().unwrap_or(1));
}

/// Rot in an acknowledged entry with others behind it.
fn middle(node: &mut Node) {
    let place = node.tell(R1, ready(2, 4..=4));
    node.tell(R1, ready(2, 5..=5));
    node.bend(&place);
}

/// Rot in a record that holds a vote and no entry.
fn hard_state(node: &mut Node) {
    let hard_state = HardState { term: Term(9), vote: R2, commit: LogIndex(3) };
    let vote = LogRecord::Ready { hard_state: Some(hard_state), entries: Vec::new() };
    let place = node.tell(R1, vote);
    node.tell(R2, created(2));
    node.bend(&place);
}

/// Rot in the header of the segment.
fn segment_header(node: &mut Node) {
    let name = segments(&node.files).remove(0);
    node.bend(&Place { name, offset: 30 });
}

#[test]
fn torn_tail_on_one_node_is_cut_and_all_vote() {
    let recoveries = shard(1, torn_tail);
    assert_eq!(voters(&recoveries), 3);
    assert!(recoveries.iter().all(acknowledged));
    assert!(recoveries[0].torn.is_some() && recoveries[0].damage.is_empty());
    assert_eq!(found(&recoveries[0], R1).entries.len(), 3);
}

#[test]
fn torn_tail_on_a_majority_is_cut_and_all_vote() {
    let recoveries = shard(2, torn_tail);
    assert_eq!(voters(&recoveries), 3);
    assert!(recoveries.iter().all(acknowledged));
    assert!(recoveries.iter().all(|recovery| recovery.damage.is_empty()));
}

#[test]
fn damage_in_the_middle_on_one_node_silences_its_replica_and_the_quorum_stands() {
    let recoveries = shard(1, middle);
    assert_eq!(voters(&recoveries), 2);
    assert_eq!(recoveries[0].damage.len(), 1);
    assert!(recoveries.iter().skip(1).all(acknowledged));
}

#[test]
fn damage_in_the_middle_on_a_majority_silences_the_shard_and_loses_no_whole_copy() {
    let recoveries = shard(2, middle);
    assert_eq!(voters(&recoveries), 1, "two of three must refuse to vote");
    assert!(recoveries.iter().all(acknowledged), "what lies before the damage is kept");
}

#[test]
fn a_damaged_hard_state_on_one_node_silences_its_replica_though_its_entries_are_whole() {
    let recoveries = shard(1, hard_state);
    assert_eq!(voters(&recoveries), 2);
    assert!(recoveries.iter().all(acknowledged));
}

#[test]
fn a_damaged_hard_state_on_a_majority_silences_the_shard() {
    let recoveries = shard(2, hard_state);
    assert_eq!(voters(&recoveries), 1);
    assert!(recoveries.iter().all(acknowledged));
}

#[test]
fn a_damaged_segment_header_on_one_node_is_rebuilt_and_all_vote() {
    let recoveries = shard(1, segment_header);
    assert_eq!(voters(&recoveries), 3);
    assert_eq!(recoveries[0].damage.len(), 1, "it is reported");
    assert!(recoveries.iter().all(acknowledged));
}

#[test]
fn a_damaged_segment_header_on_a_majority_is_rebuilt_and_all_vote() {
    let recoveries = shard(2, segment_header);
    assert_eq!(voters(&recoveries), 3);
    assert!(recoveries.iter().all(acknowledged));
}

#[test]
fn a_rebuilt_header_is_whole_at_the_next_start() {
    let mut node = Node::begin();
    segment_header(&mut node);
    let (node, recovery) = node.restart();
    assert_eq!(recovery.damage.len(), 1);
    assert!(node.restart().1.damage.is_empty());
}

#[test]
fn a_replica_born_after_the_damage_goes_on() {
    let mut node = Node::begin();
    let place = node.tell(R1, ready(1, 1..=1));
    node.tell(R2, created(2));
    node.tell(R2, ready(1, 1..=3));
    node.bend(&place);
    let (_, recovery) = node.restart();
    assert!(found(&recovery, R1).damaged);
    assert!(!found(&recovery, R2).damaged);
    assert_eq!(found(&recovery, R2).entries, entries(1, 1..=3));
}

#[test]
fn a_replica_whose_needed_state_lies_behind_the_damage_goes_on() {
    let mut node = Node::begin();
    node.tell(R2, created(2));
    let place = node.tell(R1, ready(1, 1..=2));
    node.fill(1);
    node.tell(R1, trimmed(2, 1));
    node.tell(R1, ready(1, 3..=4));
    node.fill(2);
    node.bend(&place);
    let (_, recovery) = node.restart();
    assert_eq!(recovery.damage.len(), 1);
    assert!(!found(&recovery, R1).damaged);
    assert_eq!(found(&recovery, R1).entries, entries(1, 3..=4));
    assert!(found(&recovery, R2).damaged, "its entries reach into the damaged segment");
}

#[test]
fn a_replica_destroyed_after_the_damage_stays_destroyed() {
    let mut node = Node::begin();
    let place = node.tell(R1, ready(1, 1..=2));
    node.tell(R2, created(2));
    node.tell(R1, LogRecord::Destroyed);
    node.bend(&place);
    let (_, recovery) = node.restart();
    assert_eq!(recovery.replicas.len(), 1);
    assert!(!found(&recovery, R2).damaged);
}

#[test]
fn a_verdict_outlives_the_damaged_segment_which_is_kept_aside() {
    let mut node = Node::begin();
    node.tell(R1, ready(2, 1..=3));
    middle(&mut node);
    let (mut node, recovery) = node.restart();
    assert!(found(&recovery, R1).damaged);
    while node.log.rewrite_forward(SEGMENT_BYTES).unwrap() > 0 {}
    node.log.sync().unwrap();
    assert_eq!(node.log.reclaim().unwrap(), 1);
    let names = node.files.list().unwrap();
    assert!(names.iter().any(|name| name.contains(".quarantined")), "{names:?}");
    let (_, again) = node.restart();
    assert!(again.damage.is_empty());
    assert!(found(&again, R1).damaged, "the verdict went with the segment");
}

#[test]
fn a_replica_whose_birth_was_lost_is_never_created_again_under_its_id() {
    let mut node = Node::begin();
    let place = node.tell(R2, created(2));
    node.tell(R1, ready(1, 1..=1));
    node.bend(&place);
    let (mut node, recovery) = node.restart();
    assert_eq!(recovery.replicas.len(), 1);
    assert_eq!(recovery.forgotten_up_to, Some(R2));
    let refused = node.log.append(&[(R2, created(2))]);
    assert!(matches!(refused, Err(LogError::Refused { .. })), "{refused:?}");
    node.log.append(&[(ReplicaId(3), created(3))]).unwrap();
}

#[test]
fn a_missing_segment_is_damage_to_all_who_had_entries_there() {
    let mut node = Node::begin();
    node.fill(3);
    node.files.remove(&segments(&node.files)[1]).unwrap();
    let (_, recovery) = node.restart();
    assert_eq!(recovery.damage[0].cause, "the segment is missing");
    assert!(found(&recovery, R2).damaged);
    assert!(!found(&recovery, R1).damaged, "it has no entries and a later checkpoint");
}

/// Cuts the last segment off at the start of its newest record, which was
/// acknowledged.
fn cut_short(node: &mut Node) {
    let place = node.tell(R1, ready(2, 4..=4));
    assert!(node.files.truncate(&place.name, place.offset / 64 * 64));
}

#[test]
fn a_segment_cut_short_on_one_node_silences_its_replica_and_is_no_torn_tail() {
    let recoveries = shard(1, cut_short);
    assert_eq!(voters(&recoveries), 2, "an acknowledged entry went without a word");
    assert!(recoveries[0].torn.is_none());
    assert_eq!(recoveries[0].damage[0].to, SEGMENT_BYTES as u64);
    assert!(recoveries.iter().all(acknowledged), "what lies before the cut is kept");
}

#[test]
fn a_segment_cut_short_on_a_majority_silences_the_shard() {
    assert_eq!(voters(&shard(2, cut_short)), 1);
}

#[test]
fn a_segment_cut_short_takes_no_record_and_the_next_one_does() {
    let mut node = Node::begin();
    node.tell(R1, ready(2, 1..=3));
    cut_short(&mut node);
    let (mut node, mut recovery) = node.restart();
    node.log.condemn(R1, &mut recovery).unwrap();
    node.tell(R2, created(2));
    node.tell(R2, ready(1, 1..=3));
    node.files.crash(&mut || 1);
    let (_, again) = node.restart();
    assert!(found(&again, R1).damaged, "the verdict stands");
    assert!(!found(&again, R2).damaged);
    assert_eq!(found(&again, R2).entries, entries(1, 1..=3));
    assert!(again.torn.is_none());
}

/// Seed 894 of the swarm: three replicas were born anew under their ids, and what
/// they had acknowledged before still counted.
#[test]
fn a_segment_cut_short_forgets_who_was_born_behind_the_cut_and_says_so() {
    let mut node = Node::begin();
    let place = node.tell(R2, created(2));
    assert!(node.files.truncate(&place.name, place.offset / 64 * 64));
    let (mut node, recovery) = node.restart();
    assert_eq!(recovery.forgotten_up_to, Some(ReplicaId(u64::MAX)));
    let again = node.log.append(&[(R2, created(2))]);
    assert!(matches!(again, Err(LogError::Refused { .. })), "{again:?}");
}

#[test]
fn a_segment_cut_short_whose_header_rotted_too_is_damage_at_every_start() {
    let mut node = Node::begin();
    node.tell(R1, ready(2, 1..=3));
    cut_short(&mut node);
    segment_header(&mut node);
    let (node, recovery) = node.restart();
    assert!(found(&recovery, R1).damaged && recovery.torn.is_none());
    let (_, again) = node.restart();
    assert!(found(&again, R1).damaged && again.torn.is_none());
}

#[test]
fn a_segment_cut_short_before_one_without_a_checkpoint_may_have_been_full() {
    let mut node = Node::begin();
    node.fill(1);
    let names = segments(&node.files);
    let used = node.files.contents(&names[0]).unwrap();
    let end = used.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(node.files.truncate(&names[0], end.next_multiple_of(64)));
    node.files.scribble(&names[1], 128, &[0xAA; SEGMENT_BYTES - 128]);
    let (_, recovery) = node.restart();
    assert!(recovery.damage.iter().any(|damage| damage.segment == 1), "{:?}", recovery.damage);
}

#[test]
fn a_segment_cut_short_behind_its_stated_end_lost_nothing() {
    let mut node = Node::begin();
    node.fill(1);
    let names = segments(&node.files);
    let used = node.files.contents(&names[0]).unwrap();
    let end = used.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(node.files.truncate(&names[0], end.next_multiple_of(64)));
    let (_, recovery) = node.restart();
    assert!(recovery.damage.is_empty(), "{:?}", recovery.damage);
    assert!(!found(&recovery, R2).damaged);
}

#[test]
fn a_lost_checkpoint_of_the_last_segment_is_damage_though_nothing_follows() {
    let mut node = Node::begin();
    node.fill(1);
    let last = segments(&node.files).pop().unwrap();
    node.files.scribble(&last, 128, &[0xAA; SEGMENT_BYTES - 128]);
    let (mut node, recovery) = node.restart();
    assert!(found(&recovery, R1).damaged && found(&recovery, R2).damaged);
    let refused = node.log.append(&[(ReplicaId(77), created(77))]);
    assert!(matches!(refused, Err(LogError::Refused { .. })), "who was born there is unknown");
}

#[test]
fn a_log_of_which_nothing_can_be_read_does_not_open_and_is_not_touched() {
    let node = Node::begin();
    let name = segments(&node.files).remove(0);
    node.files.scribble(&name, 0, &[0xAA; SEGMENT_BYTES]);
    let before = (node.files.list().unwrap(), node.files.contents(&name));
    let error = open(&node.files).unwrap_err();
    assert!(matches!(error, OpenError::Unreadable { segments: 1 }), "{error}");
    assert_eq!((node.files.list().unwrap(), node.files.contents(&name)), before);
}

#[test]
fn damage_to_the_very_last_batch_is_noticed_after_a_graceful_stop() {
    let mut node = Node::begin();
    let place = node.tell(R1, ready(1, 1..=1));
    node.log.close().unwrap();
    node.bend(&place);
    let (_, recovery) = node.restart();
    assert!(found(&recovery, R1).damaged);
}

#[test]
fn a_whole_batch_behind_a_torn_one_never_comes_back() {
    let mut node = Node::begin();
    node.log.append(&[(R1, ready(1, 1..=1))]).unwrap();
    node.log.append(&[(R1, ready(1, 2..=2))]).unwrap();
    let mut draws = [1, 0].into_iter();
    node.files.crash(&mut || draws.next().unwrap_or(0));
    let (mut node, recovery) = node.restart();
    assert!(found(&recovery, R1).entries.is_empty() && recovery.torn.is_some());
    node.tell(R1, ready(1, 1..=1));
    let (_, recovery) = node.restart();
    assert_eq!(found(&recovery, R1).entries, entries(1, 1..=1));
}

#[test]
fn what_a_restart_found_unsynced_is_synced_before_it_is_believed() {
    let mut node = Node::begin();
    node.log.append(&[(R1, ready(1, 1..=1))]).unwrap();
    let (node, recovery) = node.restart();
    assert_eq!(found(&recovery, R1).entries, entries(1, 1..=1));
    node.files.crash(&mut || 1);
    let (_, recovery) = node.restart();
    assert_eq!(found(&recovery, R1).entries, entries(1, 1..=1));
}

#[test]
fn an_entry_that_rots_under_a_running_log_is_an_error_of_its_read() {
    let mut node = Node::begin();
    let place = node.tell(R1, ready(1, 1..=1));
    node.tell(R1, ready(1, 2..=2));
    assert!(node.files.flip_bit(&place.name, (place.offset + 140) * 8));
    let read = node.log.read(R1, LogIndex(1), LogIndex(3), usize::MAX);
    assert!(matches!(read, Err(LogError::Damaged { .. })), "{read:?}");
    assert_eq!(node.log.read(R1, LogIndex(2), LogIndex(3), 0).unwrap(), entries(1, 2..=2));
}

#[test]
fn a_condemned_log_trusts_no_replica_it_held_and_takes_those_born_later() {
    let mut node = Node::begin();
    node.tell(R1, ready(1, 1..=3));
    let (mut node, mut recovery) = node.restart();
    assert!(!found(&recovery, R1).damaged);
    node.log.condemn(ReplicaId(20), &mut recovery).unwrap();
    assert!(found(&recovery, R1).damaged, "whoever starts on this hears of it");
    // The verdict is durable: it stands after a cut of power.
    node.files.crash(&mut || 1);
    let (mut node, recovery) = node.restart();
    assert!(found(&recovery, R1).damaged);
    assert_eq!(recovery.forgotten_up_to, Some(ReplicaId(20)));
    let refused = node.log.append(&[(ReplicaId(20), created(20))]);
    assert!(matches!(refused, Err(LogError::Refused { .. })), "it may have lived here since");
    node.tell(ReplicaId(21), created(21));
    node.tell(ReplicaId(21), ready(1, 1..=1));
    let (_, recovery) = node.restart();
    assert!(!found(&recovery, ReplicaId(21)).damaged);
}

#[test]
fn all_of_a_segment_but_its_last_batch_is_known_to_be_damaged_if_it_is_bent() {
    let mut node = Node::begin();
    let first = node.tell(R1, ready(1, 1..=1));
    let last = node.tell(R1, ready(1, 2..=2));
    let (_, below) = damage_below(&node.files.contents(&last.name).unwrap()).unwrap();
    assert!((first.offset + 1..=last.offset).contains(&usize::try_from(below).unwrap()));
    assert_eq!(damage_below(&[0; 256]), None);
}

#[test]
fn damage_behind_a_verdict_does_not_take_it_back() {
    let node = Node::begin();
    let (mut node, mut recovery) = node.restart();
    node.log.condemn(ReplicaId(20), &mut recovery).unwrap();
    let place = node.tell(R1, ready(1, 1..=1));
    node.tell(R1, ready(1, 2..=2));
    assert!(node.files.flip_bit(&place.name, (place.offset + 140) * 8));
    let (mut node, recovery) = node.restart();
    assert_eq!(recovery.damage.len(), 1);
    assert_eq!(recovery.forgotten_up_to, Some(ReplicaId(20)));
    let again = node.log.append(&[(ReplicaId(20), created(20))]);
    assert!(matches!(again, Err(LogError::Refused { .. })), "{again:?}");
}

#[test]
fn a_log_that_is_gone_takes_no_replica_at_any_later_start_until_it_is_condemned() {
    let files = MemoryFiles::new();
    let begun = LogOptions { segment_bytes: SEGMENT_BYTES, begun: true };
    let (mut log, recovery) = SegmentedLog::open(Arc::new(files.clone()), stamp(), begun).unwrap();
    let unknown = Some(ReplicaId(u64::MAX));
    assert!(recovery.fresh && recovery.forgotten_up_to == unknown);
    assert!(matches!(log.append(&[(R1, created(1))]), Err(LogError::Refused { .. })));
    drop(log);
    files.crash(&mut || 1);
    // There is a log now, and it still knows that it knows nothing.
    let (mut log, mut recovery) = open(&files).unwrap();
    assert!(!recovery.fresh && recovery.forgotten_up_to == unknown);
    assert!(matches!(log.append(&[(R1, created(1))]), Err(LogError::Refused { .. })));
    log.condemn(R1, &mut recovery).unwrap();
    log.append(&[(R2, created(2))]).unwrap();
}

#[test]
fn a_log_that_forgot_who_was_born_takes_new_replicas_once_it_is_condemned() {
    let mut node = Node::begin();
    node.fill(1);
    let name = segments(&node.files).pop().unwrap();
    node.files.scribble(&name, 256, &[0xAA; 256]);
    let (mut node, mut recovery) = node.restart();
    if recovery.forgotten_up_to == Some(ReplicaId(u64::MAX)) {
        node.log.condemn(ReplicaId(20), &mut recovery).unwrap();
        node.tell(ReplicaId(21), created(21));
        let (_, recovery) = node.restart();
        assert_eq!(recovery.forgotten_up_to, Some(ReplicaId(20)));
    } else {
        panic!("{:?}", recovery.forgotten_up_to);
    }
}
