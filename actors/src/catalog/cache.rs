//! The copy of the catalog on disk: what a node knows before it hears anything.

use std::io;

use cluster::{
    catalog::view::{CatalogView, VIEW_BYTES_MAX},
    formats::FRAME_HEADER_BYTES,
    ports::files::Files,
};

use crate::{failpoint::FailPoint, world::World};

const NAME: &str = "catalog";
const FRESH: &str = "catalog.new";

/// Reads the copy; an empty view if there is none. A damaged copy is put
/// aside, for it can be had again from any catalog replica.
///
/// # Errors
/// If the directory cannot be read.
pub fn load(files: &dyn Files) -> io::Result<CatalogView> {
    let file = match files.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(CatalogView::default()),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(VIEW_BYTES_MAX + FRAME_HEADER_BYTES)];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    CatalogView::decode(&bytes).or_else(|cause| {
        tracing::warn!(%cause, "the copy of the catalog is damaged; it is put aside and fetched anew");
        files.rename(NAME, "catalog.damaged")?;
        files.sync_directory()?;
        Ok(CatalogView::default())
    })
}

/// Replaces the copy, durably and whole.
///
/// # Errors
/// The device's.
pub(super) fn save(world: &World, view: &CatalogView) -> io::Result<()> {
    let (files, frame) = (&world.state_files, view.encode());
    match files.remove(FRESH) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = files.create(FRESH, frame.len() as u64)?;
    file.write_at(0, &frame)?;
    file.sync()?;
    world.reach(FailPoint::CatalogWritten);
    files.rename(FRESH, NAME)?;
    world.reach(FailPoint::CatalogRenamed);
    files.sync_directory()?;
    world.reach(FailPoint::CatalogDurable);
    Ok(())
}
