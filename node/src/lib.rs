//! WHERE it really runs: devices, doors, command line and embedding façade.

pub mod cli;
pub mod config;
pub mod data_dir;
pub mod devices;
pub mod doors;
pub mod observe;
pub mod status;
