//! The `cdb` binary: parse, dispatch.

use std::process::ExitCode;

use clap::Parser;
use clusterdb::cli::{self, Cli};

fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    cli::run(globals, command)
}
