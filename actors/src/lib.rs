//! WHO does it: the supervised actors that drive the cores of `cluster`.

pub mod client;
pub mod membership;
