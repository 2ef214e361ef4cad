//! A directory read beside the process that holds it.

use std::path::Path;

use cluster::catalog::view::{CatalogView, VIEW_BYTES_MAX};

use super::{
    DataDirError, NodeSecrets, STATE_BYTES_MAX, StateFile, files, load_from, read_identity,
};

/// What a directory says to whoever may read it. Nothing in it is changed.
#[derive(Debug)]
pub struct Peek {
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
        if read_identity(root)?.is_none() {
            return Err(DataDirError::Fresh { path: root.to_owned() });
        }
        Ok(Self {
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

pub(super) fn secrets_in(root: &Path) -> Result<NodeSecrets, DataDirError> {
    let damaged =
        |name: &str, cause: String| DataDirError::Damaged { path: root.join(name), cause };
    let text = |name: &str| -> Result<String, DataDirError> {
        let bytes = files::read(&root.join(name), STATE_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| damaged(name, "it is not text".to_owned()))
    };
    let cluster_key = files::read(&root.join("cluster.key"), STATE_BYTES_MAX)?;
    let cluster_key = cluster_key.try_into().map_err(|bytes: Vec<u8>| {
        damaged("cluster.key", format!("{} bytes instead of 32", bytes.len()))
    })?;
    Ok(NodeSecrets { certificates_pem: text("node.pem")?, key_pem: text("node.key")?, cluster_key })
}
