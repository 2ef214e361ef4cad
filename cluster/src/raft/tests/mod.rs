//! Tests of the Raft core: single facts, transcripts to read, and random runs.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::format_push_string,
    reason = "a test looks at the effects it is about, and prints at leisure"
)]

mod facts;
mod random;
mod show;
mod transcripts;
mod world;
