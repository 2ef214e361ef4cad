//! The `cdb` binary: parse, dispatch.

use std::process::ExitCode;

use clap::Parser;
use clusterdb::cli::{self, Cli};
use mimalloc::MiMalloc;

/// libc's took a seventh of a busy node's processor time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    cli::run(globals, command)
}
