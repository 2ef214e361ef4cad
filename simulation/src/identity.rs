//! Who a machine is, as its disk says: what a node's data directory holds.
//!
//! The files `identity` and `incarnation` are replaced whole and synced before
//! anything is shown to others, as the product does it, so that a disk carries
//! its node with it: an old image brings an old incarnation back, an empty disk
//! makes a stranger.

use std::io;

use actors::catalog;
use cluster::{
    ids::{Incarnation, NodeId},
    membership::Boot,
    ports::files::Files,
};

/// The id on this disk; none on an empty one.
///
/// # Errors
/// If a file is there and cannot be read.
pub(crate) fn identity(files: &dyn Files) -> io::Result<Option<NodeId>> {
    Ok(read::<16>(files, "identity")?.map(|bytes| NodeId(u128::from_le_bytes(bytes))))
}

/// Makes this disk a node's.
///
/// # Errors
/// The device's.
pub(crate) fn found(files: &dyn Files, node: NodeId) -> io::Result<()> {
    replace(files, "incarnation", &Boot::default().to_bytes())?;
    replace(files, "identity", &node.0.to_le_bytes())
}

/// Whether the node of this disk was started before.
///
/// # Errors
/// The device's.
pub(crate) fn has_started(files: &dyn Files) -> io::Result<bool> {
    let last = read::<{ Boot::BYTES }>(files, "incarnation")?.map(Boot::from_bytes);
    Ok(last.is_some_and(|last| last.incarnation > Incarnation(0)))
}

/// Begins a new start of the node, on disk before it is shown: later than the
/// last one and than any that was `seen`. Its copy of the catalog says which
/// start the catalog has heard of.
///
/// # Errors
/// The device's, or if there is no incarnation.
pub(crate) fn next_boot(
    files: &dyn Files,
    node: NodeId,
    seen: Incarnation,
    chance: u64,
) -> io::Result<Boot> {
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "there is no incarnation");
    let last = read::<{ Boot::BYTES }>(files, "incarnation")?.ok_or_else(missing)?;
    let told = catalog::load(files)?.node(node).map(|record| record.boot);
    let boot = Boot::after(Boot::from_bytes(last), told, seen, chance);
    replace(files, "incarnation", &boot.to_bytes())?;
    Ok(boot)
}

/// Whether the node of this disk was admitted to its cluster: such a one never
/// asks again, whatever else it has lost.
///
/// # Errors
/// The device's.
pub(crate) fn is_member(files: &dyn Files) -> io::Result<bool> {
    Ok(read::<1>(files, "member")?.is_some())
}

/// Notes that it was admitted.
///
/// # Errors
/// The device's.
pub(crate) fn note_member(files: &dyn Files) -> io::Result<()> {
    replace(files, "member", &[1])
}

fn read<const N: usize>(files: &dyn Files, name: &str) -> io::Result<Option<[u8; N]>> {
    let file = match files.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; N];
    let read = file.read_at(0, &mut bytes)?;
    if read == N { Ok(Some(bytes)) } else { Err(io::Error::other(format!("{name} is short"))) }
}

fn replace(files: &dyn Files, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = format!("{name}.new");
    match files.remove(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = files.create(&fresh, bytes.len() as u64)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    files.rename(&fresh, name)?;
    files.sync_directory()
}

#[cfg(test)]
mod tests {
    use cluster::memory::MemoryFiles;

    use super::*;

    const UNSEEN: Incarnation = Incarnation(0);

    fn next_incarnation(files: &MemoryFiles, seen: Incarnation) -> io::Result<Incarnation> {
        next_boot(files, NodeId(7), seen, 1).map(|boot| boot.incarnation)
    }

    #[test]
    fn incarnations_rise_and_an_old_image_shows_an_old_one() {
        let files = MemoryFiles::new();
        assert_eq!(identity(&files).unwrap(), None);
        found(&files, NodeId(7)).unwrap();
        assert_eq!(identity(&files).unwrap(), Some(NodeId(7)));
        assert_eq!(next_incarnation(&files, UNSEEN).unwrap(), Incarnation(1));
        let image = files.fork();
        assert_eq!(next_incarnation(&files, UNSEEN).unwrap(), Incarnation(2));
        files.crash(&mut || 1);
        assert_eq!(next_incarnation(&files, UNSEEN).unwrap(), Incarnation(3));
        assert_eq!(next_incarnation(&image, UNSEEN).unwrap(), Incarnation(2));
        assert_eq!(next_incarnation(&image, Incarnation(3)).unwrap(), Incarnation(4));
    }

    #[test]
    fn a_machine_without_room_says_so_and_is_whole() {
        let files = MemoryFiles::new();
        found(&files, NodeId(7)).unwrap();
        files.limit(Some(0));
        assert_eq!(
            next_incarnation(&files, UNSEEN).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        files.limit(None);
        assert_eq!(next_incarnation(&files, UNSEEN).unwrap(), Incarnation(1));
    }
}
