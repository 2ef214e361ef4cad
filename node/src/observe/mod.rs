//! Metrics, logs, health.

pub mod health;
pub mod logs;
pub mod metrics;
