//! What a node notes of itself when the catalog has seen a later start of it:
//! its disk is a restored old image, or its log has forgotten who lived there.
//!
//! Old votes and acknowledgements are worth nothing then, but the node itself
//! is sound. So it notes what the catalog said, ends, and starts anew: the log
//! is condemned (all its replicas are lost, and none that may have lived here
//! is born again), the incarnation rises above the one seen, the note goes, and
//! the cluster gives it new replicas under new ids.
//!
//! Invariants: the note is durable before the node ends; it goes only after
//! verdict and incarnation are durable, and before any replica runs; each step
//! may be repeated after a crash.

use std::{io, sync::Arc};

pub use cluster::membership::image::OldImage;
use cluster::{membership::image::OLD_IMAGE_BYTES_MAX, ports::files::Files};

const NAME: &str = "old-image";
const FRESH: &str = "old-image.new";

/// Reads the note; none if there is none.
///
/// # Errors
/// If it cannot be read: without it the disk must not be believed.
pub fn load(files: &dyn Files) -> io::Result<Option<OldImage>> {
    let file = match files.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; OLD_IMAGE_BYTES_MAX];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    OldImage::decode(&bytes).map(Some).map_err(io::Error::other)
}

/// Writes the note, durably and whole.
///
/// # Errors
/// The device's.
pub(super) fn save(files: &Arc<dyn Files>, image: &OldImage) -> io::Result<()> {
    let frame = image.encode();
    remove(files.as_ref(), FRESH)?;
    let file = files.create(FRESH, frame.len() as u64)?;
    file.write_at(0, &frame)?;
    file.sync()?;
    files.rename(FRESH, NAME)?;
    files.sync_directory()
}

/// Removes the note: what it demands is done.
///
/// # Errors
/// The device's.
pub fn forget(files: &dyn Files) -> io::Result<()> {
    remove(files, NAME)?;
    files.sync_directory()
}

fn remove(files: &dyn Files, name: &str) -> io::Result<()> {
    match files.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{BootNonce, Incarnation, ReplicaId},
        membership::Boot,
        memory::MemoryFiles,
    };

    use super::*;

    #[test]
    fn the_note_is_read_back_until_it_is_forgotten() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        assert_eq!(load(files.as_ref()).unwrap(), None);
        let seen = Boot { incarnation: Incarnation(7), nonce: BootNonce(1) };
        let image = OldImage { seen, born_up_to: ReplicaId(9) };
        save(&files, &image).unwrap();
        save(&files, &image).unwrap();
        assert_eq!(load(files.as_ref()).unwrap(), Some(image));
        forget(files.as_ref()).unwrap();
        assert_eq!(load(files.as_ref()).unwrap(), None);
    }
}
