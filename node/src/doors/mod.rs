//! Protocol gateways; each a thin translation.

pub mod accounts;
pub mod local;
