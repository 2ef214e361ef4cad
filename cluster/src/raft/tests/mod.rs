//! Tests of the Raft core: single facts, transcripts to read, and random runs.

mod facts;
mod random;
mod show;
mod transcripts;
mod world;
