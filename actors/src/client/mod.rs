//! The typed façade over the native requests, for the command line, the
//! library and the doors.

mod door;

pub use door::{Door, DoorError};
