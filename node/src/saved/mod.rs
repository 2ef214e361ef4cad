//! Saved snapshots: writing one from a volume, reading one from a file.
//!
//! The bytes are those of [`cluster::shard::saved`]. Both ways hold a page of keys
//! or one record at a time, and the numbers of the leases that keys hang on, of
//! which a volume has ten thousand at most.

mod file;
mod save;
mod walk;

pub(crate) use file::{Checked, FileError, Records, check};
pub(crate) use save::Saving;
// Its other user is the etcd door, which may be left out.
#[cfg_attr(
    not(feature = "etcd"),
    expect(unused_imports, reason = "the etcd door hashes keys")
)]
pub(crate) use walk::Walk;
