//! Sweeping the store beside apply: batch after batch of what nobody can read.
//!
//! Each batch is found and committed on an engine thread, under the replica's
//! gate like a flush, so two of them never write for one replica. Neither apply
//! nor readers wait for it: apply goes to the overlay, readers have views. A
//! batch that fails or a replica that dies loses nothing: the next one finds
//! what is left.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cluster::{
    ids::LogIndex,
    mvcc::{compaction::BatchLimits, version::Version},
    ports::engine::{EngineError, Store},
    shard::{
        reader::{ReadError, Reader},
        sweep::Sweep,
    },
};

use super::{
    apply::{ApplyHalf, panic_text},
    gate::Turn,
    halt::{Halt, read_halt},
    messages::ReplicaMessage,
};

/// Batches in a row before the pacer is asked again: of 2,048 changes each, so
/// a replica that is asked four times a second keeps up with 32,000 writes.
const BATCHES_MAX: u32 = 4;

impl ApplyHalf {
    /// Sweeps what the store holds and nobody can read at `upto` or later.
    pub(super) fn sweep(self: &Arc<Self>, upto: Version) {
        self.in_lane(move |half| half.begin_sweep(upto, BATCHES_MAX));
    }

    fn begin_sweep(self: &Arc<Self>, upto: Version, batches: u32) {
        let mut guard = self.lock();
        let Some(open) = guard.as_mut().filter(|open| !open.sweeping) else { return };
        if upto <= open.swept {
            return;
        }
        open.sweeping = true;
        let (reader, store, turn) = (open.machine.reader(), Arc::clone(&open.store), open.turn);
        drop(guard);
        let begun = Begun { turn, upto, flushed: reader.flushed(), batches };
        let half = Arc::clone(self);
        self.world.workers.beside(Box::new(move || {
            let work = || {
                catch_unwind(AssertUnwindSafe(|| sweep_batch(&reader, store.as_ref(), upto)))
                    .map_err(|panic| panic_text(panic.as_ref()))
            };
            // Another opening has the store: its own sweep goes on.
            let Some(result) = half.gate.commit(turn, work) else { return };
            half.in_lane(move |half| match result {
                Ok(result) => half.swept(&begun, result),
                Err(cause) => half.tell(ReplicaMessage::Halted(Halt::for_good(cause))),
            });
        }));
    }

    fn swept(self: &Arc<Self>, begun: &Begun, result: Result<Sweep, ReadError>) {
        let mut guard = self.lock();
        let Some(open) = guard.as_mut().filter(|open| open.turn == begun.turn) else { return };
        open.sweeping = false;
        match result {
            Ok(sweep) => {
                let (upto, entries, bytes) = (begun.upto, sweep.entries, sweep.bytes);
                tracing::debug!(replica = %self.replica, %upto, entries, bytes, "history swept");
                metrics::counter!(crate::metrics::SWEPT_ENTRIES).increment(sweep.entries as u64);
                metrics::counter!(crate::metrics::SWEPT_BYTES).increment(sweep.bytes);
                if sweep.more && begun.batches > 1 {
                    drop(guard);
                    return self.begin_sweep(begun.upto, begun.batches - 1);
                }
                // A flush that came between may have brought more.
                if !sweep.more && open.machine.flushed_index() == begun.flushed {
                    open.swept = begun.upto;
                    self.publish(open);
                }
            }
            // The next round tries again; deletes have a reserve.
            Err(ReadError::Engine(EngineError::Full { .. })) => {
                metrics::counter!(crate::metrics::SWEEPS_FAILED).increment(1);
            }
            Err(error) => {
                metrics::counter!(crate::metrics::SWEEPS_FAILED).increment(1);
                tracing::error!(replica = %self.replica, %error, "history could not be swept");
                open.swept = begun.upto;
                self.publish(open);
                if let Some(halt) = read_halt(&error) {
                    self.tell(ReplicaMessage::Halted(halt));
                }
            }
        }
    }
}

/// A batch on its way.
struct Begun {
    turn: Turn,
    upto: Version,
    /// Where the store stood.
    flushed: LogIndex,
    /// Batches that may be begun in a row, this one included.
    batches: u32,
}

/// One batch, found and committed. The view is closed first: LMDB could not
/// use the pages again that it still shows.
fn sweep_batch(reader: &Reader, store: &dyn Store, upto: Version) -> Result<Sweep, ReadError> {
    let sweep = {
        let view = store.view()?;
        reader.sweep(view.as_ref(), upto, BatchLimits::USUAL)?
    };
    if !sweep.writes.is_empty() {
        store.commit(&sweep.writes)?;
    }
    Ok(sweep)
}
