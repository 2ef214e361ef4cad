//! Why a replica cannot go on: its bytes are lost, or it must not.
//!
//! *Lost*: what this disk holds of the replica is damaged, old or gone. Its
//! peers have it all, so the quorum replaces it. Anything else stops the
//! replica for a human to look: a poison entry, which every replica would
//! meet, a bytes' format of a newer release, a bug. A new copy would come to
//! the same end.

use std::fmt;

use cluster::{
    catalog::record::Loss,
    ports::{engine::EngineError, log::LogError},
    shard::{
        machine::{ApplyError, OpenError},
        reader::ReadError,
        root::RootError,
        snapshot::SnapshotError,
    },
};

/// Why a replica cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// What happened, for people.
    pub cause: String,
    /// What is lost; none if it stops for good.
    pub loss: Option<Loss>,
}

impl Halt {
    /// A replica that stops for a human to look.
    pub fn for_good(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), loss: None }
    }

    /// A replica that is lost.
    pub fn lost(loss: Loss, cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), loss: Some(loss) }
    }

    fn of(error: &impl fmt::Display, loss: Option<Loss>) -> Self {
        Self { cause: error.to_string(), loss }
    }
}

fn engine_loss(error: &EngineError) -> Option<Loss> {
    match error {
        EngineError::Damaged { .. } | EngineError::Missing(_) | EngineError::Foreign { .. } => {
            Some(Loss::Store)
        }
        EngineError::Device { .. } => Some(Loss::Device),
        EngineError::Full { .. } | EngineError::NewerFormat { .. } | EngineError::Exists(_) => None,
    }
}

fn root_loss(error: &RootError) -> Option<Loss> {
    match error {
        RootError::Damaged(_) | RootError::Foreign { .. } => Some(Loss::Store),
        RootError::OtherFormat { .. } => None,
    }
}

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Self {
        Self::of(&error, engine_loss(&error))
    }
}

impl From<OpenError> for Halt {
    fn from(error: OpenError) -> Self {
        let loss = match &error {
            OpenError::Missing(_) => Some(Loss::Store),
            OpenError::Root(root) => root_loss(root),
            OpenError::Engine(engine) => engine_loss(engine),
        };
        Self::of(&error, loss)
    }
}

impl From<ApplyError> for Halt {
    fn from(error: ApplyError) -> Self {
        let loss = match &error {
            ApplyError::Root(root) => root_loss(root),
            ApplyError::Engine(engine) => engine_loss(engine),
            ApplyError::OutOfOrder { .. }
            | ApplyError::Unknown { .. }
            | ApplyError::ViewTooOld { .. } => None,
        };
        Self::of(&error, loss)
    }
}

impl From<LogError> for Halt {
    fn from(error: LogError) -> Self {
        let loss = match &error {
            LogError::Damaged { .. } => Some(Loss::Log),
            LogError::Fenced(_)
            | LogError::Full(_)
            | LogError::Busy
            | LogError::Refused { .. }
            | LogError::Missing { .. } => None,
        };
        Self::of(&error, loss)
    }
}

/// The loss that a reader of an open store has found. One that is gone under
/// its reader was replaced by a snapshot or destroyed with its replica, on this
/// node's own order; only who opens a store can find it missing.
fn held_loss(error: &EngineError) -> Option<Loss> {
    if matches!(error, EngineError::Missing(_)) { None } else { engine_loss(error) }
}

/// What a read met that its replica must hear of.
pub(crate) fn read_halt(error: &ReadError) -> Option<Halt> {
    let loss = match error {
        ReadError::Root(root) => root_loss(root),
        ReadError::Engine(engine) => held_loss(engine),
        ReadError::Compacted { .. }
        | ReadError::Denied(_)
        | ReadError::NotWhole(_)
        | ReadError::Future { .. }
        | ReadError::TooLarge(_)
        | ReadError::WrongShard(_)
        | ReadError::ViewTooOld { .. }
        | ReadError::Overtaken { .. }
        | ReadError::GoneOn { .. }
        | ReadError::Gone(_) => None,
    };
    loss.map(|loss| Halt::lost(loss, error.to_string()))
}

/// What the sender of a snapshot met that its replica must hear of.
pub(super) fn snapshot_halt(error: &SnapshotError) -> Option<Halt> {
    match error {
        SnapshotError::Read(read) => read_halt(read),
        SnapshotError::Engine(engine) => {
            held_loss(engine).map(|loss| Halt::lost(loss, error.to_string()))
        }
        // Of what was received, not of what is sent.
        SnapshotError::Root(_) | SnapshotError::Invalid(_) | SnapshotError::OtherSnapshot => None,
    }
}

#[cfg(test)]
mod tests {
    use cluster::ids::{LogIndex, StoreId};

    use super::*;

    #[test]
    fn damaged_bytes_are_lost_and_what_every_replica_would_meet_is_not() {
        let store = StoreId(1);
        let damaged = EngineError::Damaged { store, cause: "a page".into() };
        assert_eq!(Halt::from(damaged.clone()).loss, Some(Loss::Store));
        assert_eq!(Halt::from(ApplyError::Engine(damaged)).loss, Some(Loss::Store));
        let device = EngineError::Device { store, cause: "input/output error".into() };
        assert_eq!(Halt::from(OpenError::Engine(device)).loss, Some(Loss::Device));
        let newer = EngineError::NewerFormat { store, found: 9, supported: 1 };
        assert_eq!(Halt::from(newer).loss, None, "the newer release reads it");
        let order = ApplyError::OutOfOrder { applied: LogIndex(1), found: LogIndex(3) };
        assert_eq!(Halt::from(order).loss, None, "a bug, and not of these bytes");
    }

    #[test]
    fn a_store_that_goes_while_it_is_read_was_replaced_and_one_missing_at_opening_is_lost() {
        let missing = EngineError::Missing(StoreId(1));
        assert_eq!(read_halt(&ReadError::Engine(missing.clone())), None);
        assert_eq!(snapshot_halt(&SnapshotError::Engine(missing.clone())), None);
        assert_eq!(Halt::from(OpenError::Engine(missing)).loss, Some(Loss::Store));
    }
}
