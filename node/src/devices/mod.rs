//! The real world behind the ports.

pub mod clock;
pub mod entropy;
pub mod files;
pub mod floor;
pub mod limits;
pub mod lmdb;
pub mod lock;
pub mod log;
pub mod runtime;
pub mod workers;
