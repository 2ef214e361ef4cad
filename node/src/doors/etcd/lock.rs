//! etcd's service Lock: a queue under a name, in the order of arrival.
//!
//! **The key of a lock, or rather the revision that created it, is a fencing
//! token**: it rises from holder to holder. A holder that slept past its lease
//! does not know that another one holds by now; what the lock protects must be
//! shown the number and refuse a smaller one (`actors::client::Lock`).
//!
//! Source: etcd's v3lock and the queue of its concurrency package.

use std::sync::Arc;

use actors::client::{Client, ClientError, Queued};
use cluster::{ids::LeaseId, mvcc::version::Version, request::ReadLevel, shard::range::Range};
use tonic::{Code, Request, Response, Status};

use super::{
    faults::EtcdFault,
    gateway::Gateway,
    proto::v3lockpb::{
        LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock,
    },
};

/// What a lock or a campaign without a lease gets, as in etcd: nobody keeps it.
const LEASE_MS: u64 = 60_000;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LockService(pub(super) Arc<Gateway>);

/// A place in a queue that is given up unless it is kept: who asked may go away.
pub(super) struct Waiting {
    client: Client,
    volume: String,
    key: Option<Vec<u8>>,
}

impl Waiting {
    pub(super) fn new(client: &Client, volume: &str, queued: &Queued) -> Self {
        let key = Some(queued.key.clone());
        Self { client: client.clone(), volume: volume.to_owned(), key }
    }

    /// It was this one's turn.
    pub(super) fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let (client, volume) = (self.client.clone(), std::mem::take(&mut self.volume));
        tokio::spawn(async move {
            if let Err(error) = client.delete_range(&volume, key, false).await {
                tracing::debug!(%error, "a place in a queue stays until its lease ends");
            }
        });
    }
}

/// The lease a request names, or a new one that nobody keeps.
pub(super) async fn lease_of(
    client: &Client,
    volume: &str,
    lease: i64,
) -> Result<LeaseId, ClientError> {
    match lease {
        0 => Ok(client.grant_lease(volume, None, LEASE_MS).await?.lease),
        lease => Ok(LeaseId(lease.cast_unsigned())),
    }
}

/// Waits for the turn of a place that is there still; the newest version then.
pub(super) async fn take_turn(
    client: &Client,
    volume: &str,
    name: &[u8],
    queued: &Queued,
) -> Result<Version, Status> {
    let fault = |error: ClientError| Status::from(EtcdFault::from(error));
    client.await_turn(volume, name, queued.token).await.map_err(fault)?;
    let own = Range::of(queued.key.clone()).heads();
    let own = client.range(volume, own, ReadLevel::Strong).await.map_err(fault)?;
    let held = own.result.items.first().is_some_and(|item| item.created == queued.token);
    if held { Ok(own.now) } else { Err(Status::new(Code::Unknown, "mutex: session is expired")) }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (client, LockRequest { name, lease }) = self.0.admit(request).await?;
        let volume = self.0.volume();
        let lease = lease_of(&client, volume, lease).await.map_err(EtcdFault::from)?;
        let queued = client.queue_up(volume, &name, lease, b"").await.map_err(EtcdFault::from)?;
        let waiting = Waiting::new(&client, volume, &queued);
        let version = Box::pin(take_turn(&client, volume, &name, &queued)).await?;
        waiting.keep();
        Ok(Response::new(LockResponse { header: Some(self.0.header(version)), key: queued.key }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (client, UnlockRequest { key }) = self.0.admit(request).await?;
        let deleted = client.delete_range(self.0.volume(), key, false).await;
        let version = deleted.map_err(EtcdFault::from)?.version;
        Ok(Response::new(UnlockResponse { header: Some(self.0.header(version)) }))
    }
}
