//! Ports to a disk that are dead once their boot is.
//!
//! Handles opened before die with the disk's crash; what is asked of the disk
//! anew is refused here.

use std::{fmt, io, sync::Arc};

use cluster::{
    ids::StoreId,
    ports::{
        engine::{Engine, EngineError, Store},
        files::{File, Files},
    },
};

use crate::life::Life;

/// What a port of a boot leads to, while the boot lives.
#[derive(Clone)]
pub(crate) struct Guarded<T> {
    inner: T,
    life: Life,
}

impl<T: fmt::Debug> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T> Guarded<T> {
    pub(crate) fn new(inner: T, life: Life) -> Self {
        Self { inner, life }
    }
}

impl Guarded<Arc<dyn Files>> {
    fn alive(&self) -> io::Result<&dyn Files> {
        if self.life.is_over() {
            return Err(io::Error::other("the machine is dead"));
        }
        Ok(self.inner.as_ref())
    }
}

impl Files for Guarded<Arc<dyn Files>> {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn File>> {
        self.alive()?.create(name, bytes)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.alive()?.open(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.alive()?.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.alive()?.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.alive()?.sync_directory()
    }
}

impl Guarded<Arc<dyn Engine>> {
    fn alive(&self, store: StoreId) -> Result<&dyn Engine, EngineError> {
        if self.life.is_over() {
            return Err(EngineError::Device { store, cause: "the machine is dead".to_owned() });
        }
        Ok(self.inner.as_ref())
    }
}

impl Engine for Guarded<Arc<dyn Engine>> {
    fn create(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        self.alive(store)?.create(store)
    }

    fn open(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        self.alive(store)?.open(store)
    }

    fn list(&self) -> Result<Vec<StoreId>, EngineError> {
        self.alive(StoreId(0))?.list()
    }

    fn quarantine(&self, store: StoreId) -> Result<(), EngineError> {
        self.alive(store)?.quarantine(store)
    }

    fn destroy(&self, store: StoreId) -> Result<(), EngineError> {
        self.alive(store)?.destroy(store)
    }
}
