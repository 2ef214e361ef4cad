//! Time as the node sees it.

use std::fmt;

use crate::units::{Instant, WallTime};

/// A node's two clocks. The monotonic one drives timers; the wall clock only
/// names points of time in records.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now on the monotonic clock.
    fn now(&self) -> Instant;
    /// Now on the wall clock.
    fn wall(&self) -> WallTime;
}
