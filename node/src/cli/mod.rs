//! The command line: one file per noun.

pub mod dev;
pub mod init;
pub mod profile;
pub mod start;
