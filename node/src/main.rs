//! The `cdb` binary: parse, dispatch.
fn main() {}
