//! An entry that no replica can apply, put into the logs of a shard while its
//! machines are down: as if its last leader had taken it from a client.

use std::sync::Arc;

use cluster::{
    ports::log::{LogRecord, LogStore, RecoveredReplica},
    raft::types::{Entry, Payload},
    shard::command::COMMAND_VERSION,
};
use tokio::sync::oneshot;

use crate::checkers::Poison;

/// A command in a form that no release has had yet.
fn command() -> Vec<u8> {
    let mut command = COMMAND_VERSION.wrapping_add(7).to_le_bytes().to_vec();
    command.extend([1, 2, 3]);
    command
}

/// Adds the entry to what a log held of the shard, if all before it is there
/// and nothing is at its place.
pub(crate) async fn put(poison: Poison, log: &Arc<dyn LogStore>, found: &mut [RecoveredReplica]) {
    let Poison { shard, index, term } = poison;
    for replica in found.iter_mut().filter(|replica| replica.shard == shard && !replica.damaged) {
        let base = (replica.base_index, replica.base_term);
        let end = replica.entries.last().map_or(base, |last| (last.index, last.term));
        if (end.0.0 + 1, end.1) != (index.0, term) {
            continue;
        }
        let entry = Entry { index, term, payload: Payload::Command(command()) };
        let record = LogRecord::Ready { hard_state: None, entries: vec![entry.clone()] };
        let (told, done) = oneshot::channel();
        let tell = |written| drop(told.send(written));
        log.append(replica.replica, record, Box::new(tell));
        // A machine that dies meanwhile finds out at its next start.
        if matches!(done.await, Ok(Ok(()))) {
            replica.entries.push(entry);
        }
    }
}
