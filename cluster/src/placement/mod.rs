//! Where replicas go: the ring, the walk, the policy.
//!
//! A ring of virtual nodes gives every shard its own order of all nodes
//! ([`ring`]); a walk along that order picks different nodes, different zones
//! while there are any, and passes by nodes that hold their share already
//! ([`walk`]); the policy says how many and how wide ([`policy`]). The result
//! is an intent of the catalog: it is stored, never recomputed to find data.

pub mod policy;
pub mod ring;
#[cfg(test)]
mod tests;
pub mod walk;
