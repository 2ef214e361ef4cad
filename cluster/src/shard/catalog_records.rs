//! The catalog's records as its apply sees them: overlay and view below, this
//! command's own changes above.

use std::ops::{Bound, ControlFlow};

use crate::{
    catalog::apply::CatalogRecords,
    ids::LeaseId,
    mvcc::{
        draft::{Draft, Stamp},
        layout::prefix_end,
        overlay::Overlay,
        record::{Record, RecordError},
    },
    ports::engine::{EngineError, Tree, View},
};

/// Records of the catalog while one command is applied.
pub(super) struct StagedRecords<'a> {
    overlay: &'a Overlay,
    view: &'a dyn View,
    draft: Draft<'a>,
    /// The first fault of a change; changes themselves report nothing.
    fault: Option<EngineError>,
}

impl<'a> StagedRecords<'a> {
    pub(super) fn new(overlay: &'a Overlay, view: &'a dyn View, stamp: Stamp) -> Self {
        let draft = Draft::new(overlay, view, stamp);
        Self { overlay, view, draft, fault: None }
    }

    /// All changes, or the first fault.
    pub(super) fn finish(self) -> Result<Draft<'a>, EngineError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.draft),
        }
    }

    fn damaged(&self, error: RecordError) -> EngineError {
        EngineError::Damaged { store: self.view.store(), cause: error.to_string() }
    }

    /// One record as name and content.
    fn read(&self, key: &[u8], bytes: &[u8]) -> Result<(String, Vec<u8>), EngineError> {
        let record = Record::read(key, bytes).map_err(|error| self.damaged(error))?;
        let name = String::from_utf8(key.to_vec()).map_err(|error| EngineError::Damaged {
            store: self.view.store(),
            cause: format!("catalog key is not text: {error}"),
        })?;
        Ok((name, record.value.to_vec()))
    }

    fn note<T>(&mut self, result: Result<T, EngineError>) {
        if let Err(fault) = result {
            self.fault.get_or_insert(fault);
        }
    }
}

impl CatalogRecords for StagedRecords<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.draft.get(key.as_bytes())?.map(|record| record.value.to_vec()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
        let end = prefix_end(prefix.as_bytes());
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let from = Bound::Included(prefix.as_bytes());
        let mut found = std::collections::BTreeMap::new();
        let mut fault = None;
        self.overlay.scan(self.view, Tree::Latest, from, to, &mut |key, bytes| match self
            .read(key, bytes)
        {
            Ok((name, value)) => {
                found.insert(name, value);
                ControlFlow::Continue(())
            }
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        for (key, bytes) in self.draft.staged(prefix.as_bytes()) {
            match bytes {
                Some(bytes) => {
                    let (name, value) = self.read(key, bytes)?;
                    found.insert(name, value);
                }
                None => {
                    found.remove(&*String::from_utf8_lossy(key));
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    fn put(&mut self, key: String, value: Vec<u8>) {
        let result = self.draft.put(key.as_bytes(), &value, LeaseId(0));
        self.note(result);
    }

    fn delete(&mut self, key: String) {
        let result = self.draft.delete(key.as_bytes());
        self.note(result);
    }
}
