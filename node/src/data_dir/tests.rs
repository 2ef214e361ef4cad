//! A directory through its life, and every way it refuses.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::devices::entropy::SystemEntropy;

const IDENTITY: NodeIdentity = NodeIdentity { cluster: ClusterId(7), node: NodeId(9) };

fn secrets() -> NodeSecrets {
    NodeSecrets {
        certificates_pem: "certificate".to_owned(),
        key_pem: "PRIVATE".to_owned(),
        cluster_key: [5; 32],
    }
}

fn born(root: &Path) -> DataDir {
    let mut dir = DataDir::open(root).unwrap();
    dir.create(IDENTITY, &secrets(), None).unwrap();
    dir
}

#[test]
fn a_node_is_born_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b");
    let mut dir = born(&root);
    assert!(matches!(dir.create(IDENTITY, &secrets(), None), Err(DataDirError::Occupied { .. })));
    drop(dir);
    let dir = DataDir::open(&root).unwrap();
    assert_eq!(dir.existing().unwrap(), IDENTITY);
    assert_eq!(dir.secrets().unwrap(), secrets());
    assert!(is_born(&root));
}

#[test]
fn secrets_belong_to_their_owner_alone_and_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = born(&folder.path().join("n1"));
    for name in ["node.key", "cluster.key", "identity"] {
        let mode = fs::metadata(dir.root().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(dir.root()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!format!("{:?}", secrets()).contains("PRIVATE"));
}

#[test]
fn an_empty_directory_names_both_ways_to_begin() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::open(folder.path()).unwrap();
    let error = dir.existing().unwrap_err().to_string();
    assert!(error.contains("cdb cluster init") && error.contains("--join HOST:PORT"), "{error}");
}

#[test]
fn the_second_process_learns_who_has_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let _dir = born(folder.path());
    let error = DataDir::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = born(folder.path());
    dir.expect_cluster(ClusterId(7)).unwrap();
    let error = dir.expect_cluster(ClusterId(8)).unwrap_err();
    assert!(matches!(error, DataDirError::OtherCluster { .. }), "{error}");
}

#[test]
fn a_directory_with_strange_things_or_orphaned_data_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let error = DataDir::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`letter.txt`"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    drop(born(folder.path()));
    fs::remove_file(folder.path().join("identity")).unwrap();
    fs::write(folder.path().join("log/000001"), "acknowledged").unwrap();
    let error = DataDir::open(folder.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
    assert!(folder.path().join("log/000001").exists());
}

#[test]
fn an_interrupted_birth_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    drop(born(folder.path()));
    fs::rename(folder.path().join("identity"), folder.path().join("identity.new")).unwrap();
    let dir = born(folder.path());
    assert_eq!(dir.existing().unwrap(), IDENTITY);
}

#[test]
fn another_format_and_each_damaged_byte_of_the_identity_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(born(folder.path()));
    let path = folder.path().join("identity");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0x40;
        fs::write(&path, &bent).unwrap();
        let error = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Damaged { .. }), "byte {at}: {error}");
    }
    for (format, told) in [(1, "the release that wrote it"), (3, "a newer release")] {
        fs::write(&path, encode_frame(FrameKind::NodeState, format, &whole[24..])).unwrap();
        let error = DataDir::open(folder.path()).unwrap_err().to_string();
        let named = format!("has format {format};");
        assert!(error.contains(&named) && error.contains(told), "{error}");
    }
}

#[test]
fn incarnations_rise_and_a_line_ends_when_the_catalog_has_heard_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = born(folder.path());
    let entropy = SystemEntropy::new();
    let first = dir.next_boot(EngineKind::Disk, None, None, &entropy).unwrap();
    drop(dir);
    let dir = DataDir::open(folder.path()).unwrap();
    let second = dir.next_boot(EngineKind::Disk, None, None, &entropy).unwrap();
    assert_eq!((first.incarnation, second.incarnation), (Incarnation(1), Incarnation(2)));
    assert_eq!(first.nonce, second.nonce, "nobody may have heard of either");
    let third = dir.next_boot(EngineKind::Disk, Some(second), None, &entropy).unwrap();
    assert_ne!(second.nonce, third.nonce);
    assert_eq!(third.nonce.begins(), Incarnation(3));
}

#[test]
fn a_node_that_lived_in_memory_does_not_rise_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = born(folder.path());
    let entropy = SystemEntropy::new();
    dir.next_boot(EngineKind::Memory, None, None, &entropy).unwrap();
    for engine in [EngineKind::Memory, EngineKind::Disk] {
        let error = dir.next_boot(engine, None, None, &entropy).unwrap_err();
        assert!(matches!(error, DataDirError::MemoryGone { .. }), "{error}");
    }
}

#[test]
fn state_files_come_back_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let dir = born(folder.path());
    assert_eq!(dir.load(StateFile::Catalog).unwrap(), None);
    dir.save(StateFile::Catalog, b"voters").unwrap();
    assert_eq!(dir.load(StateFile::Catalog).unwrap().unwrap(), b"voters");
    fs::write(dir.root().join("catalog"), b"vot").unwrap();
    assert!(matches!(dir.load(StateFile::Catalog), Err(DataDirError::Damaged { .. })));
    dir.forget(StateFile::Catalog).unwrap();
    dir.forget(StateFile::Catalog).unwrap();
    assert_eq!(dir.load(StateFile::Catalog).unwrap(), None);
}

#[test]
fn a_start_holds_spare_room_and_makes_up_for_what_was_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let dir = born(folder.path());
    let (entropy, spare) = (SystemEntropy::new(), folder.path().join("spare"));
    for _ in 0..2 {
        dir.next_boot(EngineKind::Disk, None, None, &entropy).unwrap();
        assert_eq!(fs::metadata(&spare).unwrap().len(), 64 << 10);
        fs::remove_file(&spare).unwrap();
    }
    fs::write(&spare, b"cut off").unwrap();
    dir.renew("certificate").unwrap();
    assert_eq!(fs::metadata(&spare).unwrap().len(), 64 << 10);
}
