//! The committed code of the protocol buffers is what its sources generate.
//!
//! And so are their descriptors, by which JSON is told (`doors::etcd::json`).
//!
//! Generated in pure Rust (protox), by hand and not by a build script, so that
//! building ClusterDB needs neither `protoc` nor the generators.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

use prost::Message;

/// Set to write what was generated instead of comparing.
const WRITE: &str = "CDB_WRITE_PROTOS";

const FILES: [&str; 5] = [
    "etcd/api/mvccpb/kv.proto",
    "etcd/api/authpb/auth.proto",
    "etcd/api/etcdserverpb/rpc.proto",
    "etcd/server/v3lock/v3lock.proto",
    "etcd/server/v3election/v3election.proto",
];

fn generate(into: &Path) {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let set = protox::compile(FILES, [&protos]).unwrap();
    let mut bare = set.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(into.join("descriptors.bin"), bare.encode_to_vec()).unwrap();
    let mut messages = tonic_prost_build::Config::new();
    // Comments of the sources are no documentation of ours, and trip rustdoc.
    messages.disable_comments(["."]);
    tonic_prost_build::configure()
        .build_transport(false)
        .disable_comments(["."])
        .emit_rerun_if_changed(false)
        .out_dir(into)
        .compile_fds_with_config(set, messages)
        .unwrap();
}

#[test]
fn the_committed_code_is_what_the_protos_generate() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/generated");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let made = fs::read(folder.path().join(&name)).unwrap();
        if std::env::var_os(WRITE).is_some() {
            fs::write(committed.join(&name), &made).unwrap();
        }
        let known = fs::read(committed.join(&name)).unwrap_or_default();
        assert!(known == made, "{} is stale: run this test with {WRITE}=1", name.display());
        names.push(name);
    }
    names.sort();
    let mut kept: Vec<_> =
        fs::read_dir(&committed).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    kept.sort();
    assert_eq!(names, kept, "files that nothing generates");
}
