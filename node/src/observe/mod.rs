//! Metrics, logs, health, and who changed what.

pub mod audit;
pub mod health;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod volumes;
