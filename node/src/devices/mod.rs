//! The real world behind the ports.

pub mod clock;
pub mod entropy;
pub mod limits;
pub mod lock;
pub mod workers;
