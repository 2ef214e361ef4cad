//! A directory read beside the process that holds it.

use std::path::Path;

use cluster::catalog::view::{CatalogView, VIEW_BYTES_MAX};

use super::{
    DataDirError, NodeIdentity, NodeSecrets, StateFile, files, load_from, read_identity, secrets_in,
};

/// What a directory says to whoever may read it. Nothing in it is changed.
#[derive(Debug)]
pub struct Peek {
    /// Whose it is.
    pub identity: NodeIdentity,
    /// What its node proves itself with.
    pub secrets: NodeSecrets,
    /// [`StateFile::Bootstrap`], until the cluster stands.
    pub bootstrap: Option<Vec<u8>>,
    /// The copy of the catalog; an empty one before the cluster stands.
    pub catalog: CatalogView,
}

impl Peek {
    /// Reads the directory without taking it.
    ///
    /// # Errors
    /// If no node was born there, or a file is missing or damaged.
    pub fn at(root: &Path) -> Result<Self, DataDirError> {
        let fresh = || DataDirError::Fresh { path: root.to_owned() };
        Ok(Self {
            identity: read_identity(root)?.ok_or_else(fresh)?,
            secrets: secrets_in(root)?,
            bootstrap: load_from(root, StateFile::Bootstrap)?,
            catalog: catalog_in(root)?,
        })
    }
}

fn catalog_in(root: &Path) -> Result<CatalogView, DataDirError> {
    let path = root.join(StateFile::Catalog.name());
    if !path.exists() {
        return Ok(CatalogView::default());
    }
    CatalogView::decode(&files::read(&path, VIEW_BYTES_MAX)?)
        .map_err(|error| DataDirError::Damaged { path, cause: error.to_string() })
}
