//! etcd's API over a store: asked in this program, or served at a port of it.

use std::{future::Future, sync::Arc};

use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::{
    config::{EtcdConfig, HostPort},
    devices::runtime::OwnRuntime,
    doors::etcd::{
        self, Gateway,
        proto::etcdserverpb::{
            CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
            PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
            kv_server::Kv,
        },
    },
    storage::{
        error::{BackendError, StorageError, StorageResult},
        store::{MvccStore, VOLUME},
    },
};

/// The part of it that reads and writes keys, as etcd names it.
pub type KvService = ApiService;

/// An etcd over an embedded store.
///
/// Calls take etcd's messages and answer as etcd does, its codes and texts included. They
/// may be made in tasks of any runtime, and see what [`Self::serve`] shows to others.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use clusterdb::{etcd::RangeRequest, storage::{ApiService, MvccStore}};
/// # async fn serve(store: Arc<MvccStore>) -> Result<(), Box<dyn std::error::Error>> {
/// let etcd = ApiService::new(store);
/// let request = RangeRequest { key: b"greeting".to_vec(), ..Default::default() };
/// println!("{:?}", etcd.range(request).await?.kvs);
/// // etcdctl and client libraries find it there, until this future is dropped.
/// etcd.serve(tokio::net::TcpListener::bind("127.0.0.1:2379").await?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ApiService {
    store: Arc<MvccStore>,
    config: EtcdConfig,
    kv: etcd::KvService,
}

impl ApiService {
    /// With etcd's limits, and without TLS.
    pub fn new(store: Arc<MvccStore>) -> Self {
        Self::with_config(store, EtcdConfig::default())
    }

    /// The same with limits, quotas, rates and TLS of the program's choice. `volume`,
    /// `replicas` and `listen` mean nothing here; `advertise` is what the list of members
    /// shows, where the listener is unless it is said.
    pub fn with_config(store: Arc<MvccStore>, config: EtcdConfig) -> Self {
        let config = EtcdConfig { volume: VOLUME.to_owned(), replicas: 1, ..config };
        let kv = etcd::KvService::new(gateway(&store, config.clone()));
        Self { store, config, kv }
    }

    /// Reads keys.
    ///
    /// # Errors
    /// What etcd answers.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.ask(|kv| async move { kv.range(Request::new(request)).await }).await
    }

    /// Writes a key.
    ///
    /// # Errors
    /// What etcd answers.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        self.ask(|kv| async move { kv.put(Request::new(request)).await }).await
    }

    /// Deletes keys.
    ///
    /// # Errors
    /// What etcd answers.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        self.ask(|kv| async move { kv.delete_range(Request::new(request)).await }).await
    }

    /// Does one branch of a transaction, at one revision, or nothing.
    ///
    /// # Errors
    /// What etcd answers.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.ask(|kv| async move { kv.txn(Request::new(request)).await }).await
    }

    /// Lets go of the history below a revision.
    ///
    /// # Errors
    /// What etcd answers.
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        self.ask(|kv| async move { kv.compact(Request::new(request)).await }).await
    }

    /// Serves all of etcd's services at a port, by gRPC and by JSON, on threads of its own.
    /// Once the future is dropped nobody listens, and all connections are closed.
    ///
    /// # Errors
    /// If other machines could reach it in plain text, certificates are unusable, or the port
    /// no longer answers.
    pub async fn serve(&self, listener: TcpListener) -> StorageResult<()> {
        let failed = |error: String| BackendError::Serve(error);
        let listen = listener.local_addr().map_err(|error| failed(error.to_string()))?;
        if !listen.ip().is_loopback() && self.config.tls.is_none() {
            return Err(StorageError::InvalidArgument(format!(
                "{listen} is reachable from other machines, in plain text: bind 127.0.0.1, or give \
                 the service `tls` (ApiService::with_config)"
            )));
        }
        let is_said = self.config.advertise != HostPort::from(self.config.listen);
        let advertise =
            if is_said { self.config.advertise.clone() } else { HostPort::from(listen) };
        let config = EtcdConfig { listen, advertise, ..self.config.clone() };
        let gateway = gateway(&self.store, config);
        let listener = listener.into_std().map_err(|error| failed(error.to_string()))?;
        // Connections are tasks, which end with their runtime and not with who accepted them.
        let runtime = OwnRuntime::start().map_err(BackendError::from)?;
        let serve =
            async move { Box::pin(etcd::serve(gateway, TcpListener::from_std(listener)?)).await };
        let served = runtime.ask(serve).await.map_err(BackendError::from)?;
        Ok(served.map_err(|error| failed(format!("{error:#}")))?)
    }

    async fn ask<T, F>(&self, ask: impl FnOnce(etcd::KvService) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let kv = self.kv.clone();
        self.store.ask(|_| ask(kv)).await.map(Response::into_inner)
    }
}

fn gateway(store: &MvccStore, config: EtcdConfig) -> Arc<Gateway> {
    Arc::new(store.backend().etcd_gateway(config))
}
