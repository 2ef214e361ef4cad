//! The root's children that may be started again.

/// An actor that holds nothing and that nobody addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// The disk's pacer.
    Disk,
    /// The catalog's follower.
    Follower,
    /// The controller.
    Controller,
}

impl Child {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Follower => "catalog follower",
            Self::Controller => "controller",
        }
    }
}
