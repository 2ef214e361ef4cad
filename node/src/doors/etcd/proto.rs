//! etcd's messages and services, as `node/tests/protos.rs` generates them from
//! the files in `node/proto`. Their sources and licence: `node/proto/README.md`.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]

/// Users and permissions as stored.
pub mod authpb {
    include!("../../../proto/generated/authpb.rs");
}
/// Keys and events.
pub mod mvccpb {
    include!("../../../proto/generated/mvccpb.rs");
}
/// The services of etcd.
pub mod etcdserverpb {
    include!("../../../proto/generated/etcdserverpb.rs");
}
/// Its locks.
pub mod v3lockpb {
    include!("../../../proto/generated/v3lockpb.rs");
}
/// Its elections.
pub mod v3electionpb {
    include!("../../../proto/generated/v3electionpb.rs");
}
