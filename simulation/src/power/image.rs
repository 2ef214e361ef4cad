//! The image of a disk after a power cut.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::ledger::{Disk, Fate, Kind, NodeId, ROOT, Unsynced, apply, place};
use crate::rng::Rng;

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

impl Disk {
    /// Builds at `target` what is left.
    pub(super) fn build(&self, target: &Path, rng: &mut Rng) -> io::Result<()> {
        let mut names = self.names.clone();
        for change in &self.changes {
            if rng.next() & 1 == 0 {
                change.iter().cloned().for_each(|part| apply(&mut names, part));
            }
        }
        let mut places = BTreeMap::new();
        self.places(&self.root, &mut places)?;
        self.build_directory(ROOT, target, &names, &places, rng)
    }

    /// Where the bytes of each file lie.
    fn places(&self, root: &Path, places: &mut BTreeMap<NodeId, PathBuf>) -> io::Result<()> {
        for (id, node) in &self.nodes {
            if let Kind::File(_) = node.kind
                && !node.live
            {
                places.insert(*id, self.attic.join(id.to_string()));
            }
        }
        for (path, node) in self.live_files(root)? {
            places.insert(node, path);
        }
        Ok(())
    }

    /// The files that have a name now.
    fn live_files(&self, root: &Path) -> io::Result<Vec<(PathBuf, NodeId)>> {
        let by_inode: BTreeMap<_, _> =
            self.nodes.iter().map(|(id, node)| (node.inode, *id)).collect();
        let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                let metadata = fs::symlink_metadata(&path)?;
                if metadata.is_dir() {
                    open.push(path);
                } else if let Some(id) = by_inode.get(&(metadata.dev(), metadata.ino())) {
                    found.push((path, *id));
                }
            }
        }
        Ok(found)
    }

    fn build_directory(
        &self,
        directory: NodeId,
        target: &Path,
        names: &BTreeMap<(NodeId, String), NodeId>,
        places: &BTreeMap<NodeId, PathBuf>,
        rng: &mut Rng,
    ) -> io::Result<()> {
        fs::create_dir_all(target)?;
        for ((parent, name), id) in names.range((directory, String::new())..) {
            if *parent != directory {
                break;
            }
            let Some(node) = self.nodes.get(id) else { continue };
            let path = target.join(name);
            match &node.kind {
                Kind::Directory => self.build_directory(*id, &path, names, places, rng)?,
                Kind::Passing => {}
                Kind::File(unsynced) => {
                    let from = places.get(id).ok_or_else(|| {
                        io::Error::other(format!("{} lost its bytes", path.display()))
                    })?;
                    fs::write(path, image(fs::read(from)?, unsynced, rng))?;
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a file after the cut.
fn image(mut bytes: Vec<u8>, unsynced: &[Unsynced], rng: &mut Rng) -> Vec<u8> {
    let seen = bytes.len();
    for write in unsynced.iter().rev() {
        put(&mut bytes, write.at, &write.before);
        bytes.truncate(place(write.size));
    }
    for write in unsynced {
        match write.fate {
            Fate::Durable => put(&mut bytes, write.at, &write.bytes),
            Fate::Lost => {}
            Fate::Open => match rng.next() % 4 {
                0 => put(&mut bytes, write.at, &write.bytes),
                1 => {}
                _ => tear(&mut bytes, write, rng),
            },
        }
    }
    // The new size may be durable before the bytes are.
    if bytes.len() < seen && rng.next() & 1 == 0 {
        bytes.resize(seen, 0);
    }
    bytes
}

/// Keeps or loses each sector of a write by itself.
fn tear(into: &mut Vec<u8>, write: &Unsynced, rng: &mut Rng) {
    let mut at = 0;
    while at < write.bytes.len() {
        let offset = place(write.at) + at;
        let end = (at + SECTOR_BYTES - offset % SECTOR_BYTES).min(write.bytes.len());
        if rng.next() & 1 == 0 {
            put(into, write.at + at as u64, &write.bytes[at..end]);
        }
        at = end;
    }
}

fn put(into: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = place(at);
    let end = at + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[at..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u8 = b'o';
    const NEW: u8 = b'n';

    /// A write of `len` new bytes at 0 over a file of old ones.
    fn write(len: usize, fate: Fate) -> Unsynced {
        Unsynced { at: 0, before: vec![OLD; len], size: len as u64, bytes: vec![NEW; len], fate }
    }

    fn images(unsynced: &[Unsynced], len: usize) -> Vec<Vec<u8>> {
        let image = |seed| image(vec![NEW; len], unsynced, &mut Rng::stream(seed, "cut", 0));
        (0..400).map(image).collect()
    }

    #[test]
    fn an_unsynced_write_is_kept_lost_or_torn_by_whole_sectors() {
        let len = 4 * SECTOR_BYTES;
        let mut met = std::collections::BTreeSet::new();
        for image in images(&[write(len, Fate::Open)], len) {
            let sectors = image.chunks(SECTOR_BYTES);
            met.insert(
                sectors
                    .map(|sector| {
                        assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
                        sector[0] == NEW
                    })
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(met.len(), 16, "every mixture of four sectors");
    }

    #[test]
    fn what_a_failed_sync_lost_is_lost_and_what_was_synced_over_it_stays() {
        let len = 2 * SECTOR_BYTES;
        let over =
            Unsynced { bytes: vec![b'd'; 10], before: vec![NEW; 10], ..write(len, Fate::Durable) };
        for image in images(&[write(len, Fate::Lost), over], len) {
            assert_eq!(image[..10], [b'd'; 10]);
            assert!(image[10..].iter().all(|byte| *byte == OLD));
        }
    }

    #[test]
    fn a_file_that_grew_is_short_or_filled_with_zeros_where_the_bytes_were_lost() {
        let grown = Unsynced { before: Vec::new(), size: 0, ..write(SECTOR_BYTES, Fate::Lost) };
        let met: std::collections::BTreeSet<_> =
            images(&[grown], SECTOR_BYTES).into_iter().collect();
        assert_eq!(met, [Vec::new(), vec![0; SECTOR_BYTES]].into());
    }
}
