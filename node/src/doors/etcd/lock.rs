//! etcd's service Lock: a queue under a name, in the order of arrival.
//!
//! **The key of a lock, or rather the revision that created it, is a fencing
//! token**: it rises from holder to holder. A holder that slept past its lease
//! does not know that another one holds by now; what the lock protects must be
//! shown the number and refuse a smaller one (`actors::client::Lock`).
//!
//! Source: etcd's v3lock and the queue of its concurrency package.

use std::sync::Arc;

use actors::client::Queued;
use tonic::{Request, Response, Status};

use super::{
    gateway::Gateway,
    proto::v3lockpb::{
        LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock,
    },
    queue::{queue_fault, standing},
};
use crate::observe::audit::Subject;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LockService(pub(super) Arc<Gateway>);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (client, LockRequest { name, lease }) = self.0.admit(request).await?;
        let telling = || self.0.telling(&client, "lock", || vec![Subject::name(&name)]);
        let (needs, keys) = (|| standing(&name, lease), || vec![Queued::places(&name)]);
        self.0.pass(&client, telling, needs, keys).await.map_err(queue_fault)?;
        let joined = self.0.join_queue(&client, "lock", &name, lease, b"");
        let (mut waiting, _) = Box::pin(joined).await?;
        // However long it waits, it does not hold what stood there.
        waiting.queued.found = None;
        let key = waiting.queued.key.clone();
        let version = Box::pin(waiting.take_turn(&name)).await?;
        Ok(Response::new(LockResponse { header: Some(self.0.header(version)), key }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (client, UnlockRequest { key }) = self.0.admit(request).await?;
        let telling = self.0.telling(&client, "unlock", || vec![Subject::key(&key)]);
        let deleted = client.delete_range(self.0.volume(), key, false);
        let deleted = telling.watch(deleted, |done| done.version).await;
        let version = deleted.map_err(queue_fault)?.version;
        Ok(Response::new(UnlockResponse { header: Some(self.0.header(version)) }))
    }
}
