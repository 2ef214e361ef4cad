//! Doors to the world. `node` implements them with devices, `simulation` with
//! fakes; nothing else in the system touches time, chance, disk or network.

pub mod clock;
pub mod engine;
pub mod entropy;
pub mod files;
pub mod log;
pub mod network;
pub mod workers;
