//! etcd's service Lock: a queue under a name, in the order of arrival.
//!
//! **The key of a lock, or rather the revision that created it, is a fencing
//! token**: it rises from holder to holder. A holder that slept past its lease
//! does not know that another one holds by now; what the lock protects must be
//! shown the number and refuse a smaller one (`actors::client::Lock`).
//!
//! Source: etcd's v3lock and the queue of its concurrency package.

use std::{sync::Arc, time::Duration};

use actors::client::{Client, ClientError, Queued};
use cluster::{ids::LeaseId, mvcc::version::Version, shard::transaction::Keys};
use tonic::{Code, Request, Response, Status};

use super::{
    faults::EtcdFault,
    gateway::Gateway,
    proto::v3lockpb::{
        LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock,
    },
};

use crate::observe::audit::text;

/// What a lock or a campaign without a lease gets, as in etcd: nobody keeps it.
const LEASE_MS: u64 = 60_000;
/// Pause after a question that nobody answered.
const PAUSE: Duration = Duration::from_millis(200);

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LockService(pub(super) Arc<Gateway>);

/// A place in a queue that is given up unless it is kept: who asked may go away.
/// What a later request of the same lease has taken over by then is left to that.
pub(super) struct Waiting {
    client: Client,
    volume: String,
    queued: Option<Queued>,
}

impl Waiting {
    pub(super) fn new(client: &Client, volume: &str, queued: &Queued) -> Self {
        let queued = Some(queued.clone());
        Self { client: client.clone(), volume: volume.to_owned(), queued }
    }

    /// The place was written again, at a version.
    pub(super) fn said(&mut self, version: Version) {
        if let Some(queued) = &mut self.queued {
            queued.version = version;
        }
    }

    /// Waits for the turn of this place, over changes of leader; the newest
    /// version then. Fails if the place is gone with its lease, or a later request
    /// of the same lease has taken it over.
    pub(super) async fn take_turn(mut self, name: &[u8]) -> Result<Version, Status> {
        let expired = || Status::new(Code::Unknown, "mutex: session is expired");
        loop {
            let queued = self.queued.as_ref().ok_or_else(expired)?;
            match self.client.have_turn(&self.volume, name, queued).await {
                Ok(Some(version)) => {
                    self.queued = None;
                    return Ok(version);
                }
                Ok(None) => return Err(expired()),
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(EtcdFault::from(error).into()),
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(queued) = self.queued.take() else { return };
        let (client, volume) = (self.client.clone(), std::mem::take(&mut self.volume));
        tokio::spawn(async move {
            if let Err(error) = client.transact(&volume, queued.leave()).await {
                tracing::debug!(%error, "a place in a queue stays until its lease ends");
            }
        });
    }
}

/// The keys of a queue under a name.
pub(super) fn places(name: &[u8]) -> Keys {
    Keys::prefix([name, b"/"].concat())
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

/// etcd's queues ask its store through a client of their own, and on that way a
/// refusal loses its code. Where codes tell a client to try again, they stay.
pub(super) fn queue_fault(error: ClientError) -> Status {
    let fault = EtcdFault::from(error);
    if fault == EtcdFault::LeaseNotFound {
        return Status::new(Code::Unknown, fault.text());
    }
    fault.into()
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (client, LockRequest { name, lease }) = self.0.admit(request).await?;
        self.0.rates.take(|| vec![places(&name)])?;
        let volume = self.0.volume();
        let lease = lease_of(&client, volume, lease).await.map_err(queue_fault)?;
        let queued = client.queue_up(volume, &name, lease, b"");
        let told = || vec![text(&name)];
        let queued = self.0.audited(&client, "lock", told, queued, |queued| queued.version);
        let queued = queued.await.map_err(queue_fault)?;
        let waiting = Waiting::new(&client, volume, &queued);
        let version = Box::pin(waiting.take_turn(&name)).await?;
        Ok(Response::new(LockResponse { header: Some(self.0.header(version)), key: queued.key }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (client, UnlockRequest { key }) = self.0.admit(request).await?;
        let told = vec![text(&key)];
        let deleted = client.delete_range(self.0.volume(), key, false);
        let deleted = self.0.audited(&client, "unlock", || told, deleted, |done| done.version);
        let version = deleted.await.map_err(EtcdFault::from)?.version;
        Ok(Response::new(UnlockResponse { header: Some(self.0.header(version)) }))
    }
}
