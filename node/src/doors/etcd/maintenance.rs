//! etcd's service Maintenance: how a member is, and what operators do to it.
//!
//! Some of it is there so that scripts go on, and says so: there is nothing to
//! defragment (space is given back as it goes), and no release to go back to.

use std::{pin::Pin, sync::Arc};

use cluster::{
    ids::ReplicaId,
    limits::{LIST_PAGE_BYTES_MAX, VALUE_BYTES_MAX},
    mvcc::version::Version,
    request::ReplicaStatus,
    shard::descriptor::ReplicaRole,
};
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};

use super::{
    faults::EtcdFault,
    gateway::{Gateway, member_id, revision},
    kv::holding,
    proto::etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
        DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
        HashResponse, MoveLeaderRequest, MoveLeaderResponse, ResponseHeader, SnapshotRequest,
        SnapshotResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
        downgrade_request::DowngradeAction, maintenance_server::Maintenance,
    },
    snapshot::{Hashed, PIECE_BYTES_MAX, hash, write_snapshot},
};

use crate::observe::audit::Subject;

/// The release of etcd whose API this is: clients ask for it to know whether
/// `RequestProgress` may be used (3.5.13 and later).
pub(super) const ETCD_VERSION: &str = "3.5.33";
/// The one whose storage and cluster features it claims.
pub(super) const STORAGE_VERSION: &str = "3.5.0";
/// Pieces of a snapshot that wait for their reader, about a megabyte each.
const PIECES_WAITING_MAX: usize = 1;
/// Bytes that one holds: a page of keys with one largest value over it, and the pieces
/// that wait with the one that is about to.
const SNAPSHOT_BYTES: usize =
    LIST_PAGE_BYTES_MAX + VALUE_BYTES_MAX + (PIECES_WAITING_MAX + 1) * PIECE_BYTES_MAX;

/// Why nobody raises an alarm.
const ALARMS_FOLLOW: &str = "etcdserver: alarms come and go with what they are of, want of room: to \
                             keep clients from writing, take their roles away (etcdctl role \
                             revoke-permission)";

/// The service.
#[derive(Clone, Debug)]
pub(super) struct MaintenanceService(pub(super) Arc<Gateway>);

impl MaintenanceService {
    async fn shown(&self, request: Request<StatusRequest>) -> Result<StatusResponse, EtcdFault> {
        self.0.admit(request).await?;
        let header = self.0.header_now();
        let space = *self.0.space.borrow();
        let bytes = i64::try_from(space.used_bytes).unwrap_or(i64::MAX);
        // Of a replica elsewhere, if there is none here.
        let known = self.0.known();
        let leader = known.as_ref().and_then(|known| known.leader);
        let mut errors = Vec::new();
        if leader.is_none() {
            errors.push(EtcdFault::NoLeader.text().into_owned());
        }
        errors.extend(self.alarms().iter().map(|alarm| {
            format!("memberID:{} alarm:{}", alarm.member_id, AlarmType::Nospace.as_str_name())
        }));
        let at = |of: fn(&ReplicaStatus) -> u64| known.as_ref().map_or(0, of);
        Ok(StatusResponse {
            header: Some(header),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: known.as_ref().map_or(bytes, in_use),
            db_size_quota: i64::try_from(space.capacity_bytes).unwrap_or(i64::MAX),
            leader: leader.map_or(0, member_id),
            raft_index: at(|known| known.committed.0),
            raft_applied_index: at(|known| known.applied.0),
            raft_term: header.raft_term,
            errors,
            is_learner: self.0.status().as_ref().is_some_and(is_learner),
            storage_version: STORAGE_VERSION.to_owned(),
            ..StatusResponse::default()
        })
    }

    /// Want of room is the one thing this member has to say.
    fn alarms(&self) -> Vec<AlarmMember> {
        let full = self.0.is_full();
        let alarm =
            AlarmMember { member_id: member_id(self.0.node), alarm: AlarmType::Nospace as i32 };
        full.then_some(alarm).into_iter().collect()
    }

    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<AlarmResponse, EtcdFault> {
        let action = AlarmAction::try_from(request.get_ref().action);
        if action == Ok(AlarmAction::Get) {
            self.0.admit(request).await?;
            let alarms = self.alarms();
            return Ok(AlarmResponse { header: Some(self.0.header_now()), alarms });
        }
        self.0.admit_root(request).await?;
        match action {
            Ok(AlarmAction::Activate) => {
                Err(EtcdFault::Other(Code::FailedPrecondition, ALARMS_FOLLOW.to_owned()))
            }
            // There is nothing to disarm: an alarm goes with what it is of.
            Ok(AlarmAction::Get | AlarmAction::Deactivate) | Err(_) => {
                Ok(AlarmResponse { header: Some(self.0.header_now()), alarms: Vec::new() })
            }
        }
    }

    async fn hash_at(&self, at: Option<Version>) -> Result<Hashed, EtcdFault> {
        hash(&self.0.client, self.0.volume(), at).await
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<MoveLeaderResponse, EtcdFault> {
        let (client, MoveLeaderRequest { target_id }) = self.0.admit(request).await?;
        let telling = self.0.telling(&client, "move leader", || vec![Subject::member(target_id)]);
        let moved = async {
            self.0.check_root(&client).await?;
            let own = self.0.status().filter(|own| own.leading).ok_or(EtcdFault::NotLeader)?;
            let to = voter_of(&own, target_id).ok_or(EtcdFault::BadLeaderTransferee)?;
            self.0.router.move_leader(own.descriptor.shard, to).await?;
            Ok::<_, EtcdFault>(self.0.header_now())
        };
        let at = |header: &ResponseHeader| Version(header.revision.cast_unsigned());
        let header = Some(telling.watch(moved, at).await?);
        Ok(MoveLeaderResponse { header })
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<DowngradeResponse, EtcdFault> {
        let request = self.0.admit_root(request).await?;
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Cancel) => Err(EtcdFault::NoInflightDowngrade),
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) | Err(_) => {
                Err(EtcdFault::InvalidDowngradeTarget)
            }
        }
    }
}

/// Bytes of the keys and values of the volume, as far as this member has applied.
pub(super) fn in_use(own: &ReplicaStatus) -> i64 {
    i64::try_from(own.tally.bytes).unwrap_or(i64::MAX)
}

pub(super) fn is_learner(own: &ReplicaStatus) -> bool {
    let role = own.descriptor.replicas.iter().find(|replica| replica.replica == own.replica);
    role.is_some_and(|replica| replica.role != ReplicaRole::Voter)
}

fn voter_of(own: &ReplicaStatus, member: u64) -> Option<ReplicaId> {
    let voter =
        own.descriptor.replicas.iter().find(|replica| {
            replica.role == ReplicaRole::Voter && member_id(replica.node) == member
        })?;
    Some(voter.replica)
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        Ok(Response::new(Self::alarm(self, request).await?))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.shown(request).await?))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.0.admit_root(request).await?;
        // Space is used again as it is freed: nothing to do, nothing stops.
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.0.admit_root(request).await?;
        let hashed = Box::pin(self.hash_at(None)).await?;
        let header = Some(self.0.header(hashed.at));
        Ok(Response::new(HashResponse { header, hash: hashed.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let request = self.0.admit_root(request).await?;
        let at = u64::try_from(request.revision).ok().filter(|at| *at > 0).map(Version);
        let hashed = Box::pin(self.hash_at(at)).await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.0.header(hashed.now)),
            hash: hashed.hash,
            // etcd's word for: never.
            compact_revision: hashed.compacted.map_or(-1, revision),
            hash_revision: revision(hashed.at),
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.0.admit_root(request).await?;
        let room = self.0.room();
        if !room.grow(SNAPSHOT_BYTES).await {
            return Err(EtcdFault::TooManyRequests.into());
        }
        let (sender, mut pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let gateway = self.0.clone();
        tokio::spawn(Box::pin(async move {
            let volume = gateway.volume();
            if let Err(fault) = write_snapshot(&gateway.client, volume, &sender).await {
                // Whoever asked may be gone.
                drop(sender.send(Err(fault.into())).await);
            }
        }));
        let pieces: Self::SnapshotStream =
            Box::pin(stream::poll_fn(move |context| pieces.poll_recv(context)));
        Ok(holding(pieces, room))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Ok(Response::new(Self::move_leader(self, request).await?))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        Ok(Response::new(Self::downgrade(self, request).await?))
    }
}
