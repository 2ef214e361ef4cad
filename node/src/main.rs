//! The `cdb` binary: parse, dispatch.

use std::process::ExitCode;

use clap::Parser;
use clusterdb::cli::{self, Cli};
use tikv_jemallocator::Jemalloc;

/// libc's takes a seventh of a busy node's processor time
/// (`node/docs/decisions/2026-11-26-allocator.md`). A host application that embeds
/// a node chooses its own.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    cli::run(globals, command)
}
