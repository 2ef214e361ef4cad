//! etcd's service Lease: keys that go when nobody keeps them.

use std::{
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
};

use actors::client::{Client, ClientError, Room};
use cluster::{
    ids::LeaseId,
    limits::{KEY_BYTES_MAX, LEASE_KEYS_MAX},
    shard::leases::{LeaseError, LeaseView},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{
    faults::EtcdFault,
    gateway::{Gateway, needs_leader},
    kv::{counted, holding},
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, lease_server::Lease,
    },
};

use crate::observe::audit::{Came, Subject};

/// Answers of one stream that wait for their reader, 40 bytes each.
const ANSWERS_WAITING_MAX: usize = 16;
/// Keep-alives of one stream that are under way: entries of the log, a hundred bytes each.
const KEPT_AT_ONCE_MAX: usize = 64;
/// Bytes of all keys that may hang on one lease.
const KEYS_BYTES_MAX: usize = LEASE_KEYS_MAX as usize * KEY_BYTES_MAX;

/// Bytes that one lease takes of an answer that lists them.
const STATUS_BYTES_MAX: usize = 12;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LeaseService(pub(super) Arc<Gateway>);

fn id_of(id: i64) -> LeaseId {
    LeaseId(id.cast_unsigned())
}

fn status(lease: &LeaseView) -> LeaseStatus {
    LeaseStatus { id: lease.lease.0.cast_signed() }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}

impl LeaseService {
    async fn grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<LeaseGrantResponse, EtcdFault> {
        let (client, request) = self.0.admit(request).await?;
        let lease = (request.id != 0).then(|| id_of(request.id));
        // Less than the least is raised by the store.
        let ttl_ms = u64::try_from(request.ttl).unwrap_or(0).saturating_mul(1_000);
        let named = || lease.into_iter().map(Subject::lease).collect();
        let telling = self.0.telling(&client, "lease grant", named);
        let granted = client.grant_lease(self.0.volume(), lease, ttl_ms);
        let granted = telling.watch(granted, |granted| Came {
            revision: Some(granted.version),
            of: lease.is_none().then(|| Subject::lease(granted.lease)),
        });
        let granted = granted.await?;
        Ok(LeaseGrantResponse {
            header: Some(self.0.header(granted.version)),
            id: granted.lease.0.cast_signed(),
            ttl: seconds(granted.ttl_ms),
            error: String::new(),
        })
    }

    async fn revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<LeaseRevokeResponse, EtcdFault> {
        let (client, request) = self.0.admit(request).await?;
        let lease = id_of(request.id);
        let telling = self.0.telling(&client, "lease revoke", || vec![Subject::lease(lease)]);
        let ended = client.revoke_lease(self.0.volume(), lease);
        let (version, _) = telling.watch(ended, |(version, _)| *version).await?;
        Ok(LeaseRevokeResponse { header: Some(self.0.header(version)) })
    }

    async fn show(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
        room: &Room,
    ) -> Result<LeaseTimeToLiveResponse, EtcdFault> {
        let (client, LeaseTimeToLiveRequest { id, keys }) = self.0.admit(request).await?;
        // How many there are is known once they have come.
        if keys && !room.grow(KEYS_BYTES_MAX.min(room.most())).await {
            return Err(EtcdFault::TooManyRequests);
        }
        let (shown, now) = client.show_lease(self.0.volume(), id_of(id), keys).await?;
        let header = Some(self.0.header(now));
        let (ttl, granted_ttl, keys) = shown.map_or((-1, 0, Vec::new()), |view| {
            (seconds(view.remaining_ms), seconds(view.ttl_ms), view.keys)
        });
        let answer = LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys };
        if room.set(counted(&answer)) { Ok(answer) } else { Err(EtcdFault::TooManyRequests) }
    }

    async fn list(
        &self,
        request: Request<LeaseLeasesRequest>,
        room: &Room,
    ) -> Result<LeaseLeasesResponse, EtcdFault> {
        let (client, _) = self.0.admit(request).await?;
        let mut page = client.leases_after(self.0.volume(), LeaseId(0)).await?;
        let header = Some(self.0.header(page.version));
        let mut leases = Vec::new();
        loop {
            let more = page.next();
            if more.is_some() && !room.grow(page.leases.len() * STATUS_BYTES_MAX).await {
                return Err(EtcdFault::TooManyRequests);
            }
            leases.extend(page.leases.iter().map(status));
            let Some(after) = more else { break };
            page = client.leases_after(self.0.volume(), after).await?;
        }
        let answer = LeaseLeasesResponse { header, leases };
        if room.set(counted(&answer)) { Ok(answer) } else { Err(EtcdFault::TooManyRequests) }
    }

    /// Begins one lease's time anew. One that is over is told by a time of zero.
    async fn keep(&self, client: &Client, id: i64) -> Result<LeaseKeepAliveResponse, EtcdFault> {
        match client.keep_lease_alive(self.0.volume(), id_of(id)).await {
            Ok(kept) => {
                self.0.counts.renewed.fetch_add(1, Ordering::Relaxed);
                let (header, ttl) = (Some(self.0.header(kept.version)), seconds(kept.ttl_ms));
                Ok(LeaseKeepAliveResponse { header, id, ttl })
            }
            Err(ClientError::BadLease(LeaseError::Unknown(_))) => {
                Ok(LeaseKeepAliveResponse { header: Some(self.0.header_now()), id, ttl: 0 })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Answers a stream of keep-alives in their order. Several are under way at a time, or a
    /// client of thousands of leases would wait for a round of the log for each.
    async fn keep_all(
        self,
        client: Client,
        needs_leader: bool,
        asked: Streaming<LeaseKeepAliveRequest>,
        answers: mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
    ) {
        let keep = async |request: Result<LeaseKeepAliveRequest, Status>| {
            Ok(self.keep(&client, request?.id).await?)
        };
        let mut kept = pin!(asked.map(keep).buffered(KEPT_AT_ONCE_MAX));
        let mut leaderless = pin!(self.0.leaderless(needs_leader));
        loop {
            let answer = tokio::select! {
                () = answers.closed() => return,
                answer = kept.next() => match answer {
                    Some(answer) => answer,
                    None => return,
                },
                fault = &mut leaderless => Err(fault.into()),
            };
            let failed = answer.is_err();
            if answers.send(answer).await.is_err() || failed {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        Ok(Response::new(Box::pin(self.grant(request)).await?))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        Ok(Response::new(Box::pin(self.revoke(request)).await?))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (metadata, extensions, asked) = request.into_parts();
        let client = self.0.admit_stream(&metadata, &extensions).await?;
        let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let needs_leader = needs_leader(&metadata);
        tokio::spawn(Box::pin(self.clone().keep_all(client, needs_leader, asked, sender)));
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| answers.poll_recv(context)))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let room = self.0.room();
        Ok(holding(Box::pin(self.show(request, &room)).await?, room))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let room = self.0.room();
        Ok(holding(Box::pin(self.list(request, &room)).await?, room))
    }
}
