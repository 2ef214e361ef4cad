//! Which shard a request goes to, and what its sender does when it is not served.
//!
//! Pure: a door or a client holds the map, asks [`reaction`] what a fault
//! means, waits as [`Backoff`] says and joins the pages of several shards with
//! [`Merge`]. Nothing here knows time or network.

mod backoff;
mod merge;
mod reaction;
mod sessions;
mod shards;

pub use backoff::Backoff;
pub use merge::{Cursor, CursorError, Merge, PageWanted};
pub use reaction::{Reaction, reaction, refusal_reaction};
pub use sessions::{Lease, SESSIONS_PER_CLIENT_MAX, SessionBook, Taken};
pub use shards::{covers_prefix, listing_shards, shard_of};
