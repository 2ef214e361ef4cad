//! Protocol gateways; each a thin translation.

pub mod accounts;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod local;
pub mod native;
