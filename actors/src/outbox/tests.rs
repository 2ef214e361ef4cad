//! Frames keep order and size.

use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, Term},
    raft::types::{Addressed, Entry, Message, Payload, RaftMessage, RaftMessageKind},
};

use super::{BATCH_BYTES_MAX, messages::weight};

fn append(number: u64, bytes: usize) -> Addressed {
    let entry =
        Entry { index: LogIndex(number), term: Term(1), payload: Payload::Command(vec![0; bytes]) };
    Addressed {
        shard: ShardId(1),
        from: ReplicaId(1),
        to: ReplicaId(2),
        message: Message::Raft(RaftMessage {
            kind: RaftMessageKind::Append,
            term: Term(1),
            log_term: Term(1),
            index: LogIndex(number),
            commit: LogIndex(0),
            commit_term: Term(0),
            reject: false,
            reject_hint: LogIndex(0),
            priority: 0,
            context: Vec::new(),
            entries: vec![entry],
        }),
    }
}

#[test]
fn a_message_weighs_at_least_its_entries() {
    assert!(weight(&append(1, 5_000)) >= 5_000);
}

#[test]
fn frames_keep_order_and_stay_near_their_size() {
    let messages: Vec<_> = (0..50).map(|number| append(number, 100_000)).collect();
    let frames = super::state::frames(messages.clone());
    assert!(frames.len() >= 5);
    for frame in &frames {
        assert!(frame.iter().map(weight).sum::<usize>() <= BATCH_BYTES_MAX);
    }
    assert_eq!(frames.concat(), messages);
}

#[test]
fn a_message_over_the_frame_size_travels_alone() {
    let frames = super::state::frames(vec![append(1, 10), append(2, 3 << 20), append(3, 10)]);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
}
