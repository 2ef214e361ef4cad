//! etcd's service Cluster: the members, as they are.
//!
//! Nodes come and go by our own commands, which know tokens, zones and what a
//! removal would cost; etcd's are refused with a word where to turn.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cluster::{catalog::record::NodeRecord, ids::NodeId};
use futures_util::future::join_all;
use tonic::{Code, Request, Response, Status};

use super::{
    faults::EtcdFault,
    gateway::{Gateway, member_id},
    proto::etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, cluster_server::Cluster,
    },
};
use crate::status::NodeStatus;

/// How long a node has to say where its doors are.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// How members are added, removed, changed and promoted here.
const ADD: &str = "a node joins by itself: cdb cluster token, then cdb start -c FILE --join \
                   HOST:PORT --token TOKEN on it";
const REMOVE: &str = "remove a node with: cdb node rm NODE";
const UPDATE: &str = "a node says itself where it is reached: set `advertise` in its \
                      configuration and start it again (cdb start -c FILE)";
const PROMOTE: &str = "the cluster promotes its replicas itself once they have caught up; see \
                       cdb node show NODE";

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ClusterService {
    pub(super) gateway: Arc<Gateway>,
    /// Where members were last reached, for those that do not answer now. A
    /// lock, because services are no actors; held for one look.
    known: Arc<Mutex<BTreeMap<NodeId, String>>>,
}

impl ClusterService {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway, known: Arc::default() }
    }

    async fn list(&self) -> Result<MemberListResponse, EtcdFault> {
        let nodes = self.gateway.client.nodes().await?;
        let members = join_all(nodes.iter().map(|node| self.member(node))).await;
        Ok(MemberListResponse { header: Some(self.gateway.header_now()), members })
    }

    async fn member(&self, node: &NodeRecord) -> Member {
        let told = self.door_of(node.node).await;
        let address = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(told) = told {
                known.insert(node.node, told);
            }
            known.get(&node.node).cloned()
        };
        let scheme = if self.gateway.config.tls.is_some() { "https" } else { "http" };
        Member {
            id: member_id(node.node),
            name: format!("n{}", node.number),
            peer_ur_ls: node.addresses.iter().map(|peer| format!("https://{peer}")).collect(),
            client_ur_ls: address.iter().map(|at| format!("{scheme}://{at}")).collect(),
            is_learner: false,
        }
    }

    /// Where clients reach a member, if it says so.
    async fn door_of(&self, node: NodeId) -> Option<String> {
        if node == self.gateway.node {
            return Some(self.gateway.config.advertise.to_string());
        }
        let client = self.gateway.client.with_deadline(ANSWER_MAX);
        let json = client.node_status(Some(node)).await.ok()?;
        serde_json::from_str::<NodeStatus>(&json).ok()?.doors.remove("etcd")
    }

    /// Refuses a change with the command that makes it here.
    async fn refuse<T, A>(&self, request: Request<T>, how: &str) -> Result<Response<A>, Status> {
        self.gateway.admit_root(request).await?;
        Err(EtcdFault::Other(Code::FailedPrecondition, format!("etcdserver: {how}")).into())
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.refuse(request, ADD).await
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.refuse(request, REMOVE).await
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.refuse(request, UPDATE).await
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        self.gateway.admit_named(request).await?;
        Ok(Response::new(Box::pin(self.list()).await?))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.refuse(request, PROMOTE).await
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_commands_that_refusals_name_exist() {
        for (refusal, command) in [
            (ADD, "cdb cluster token"),
            (ADD, "cdb start -c FILE --join HOST:PORT --token TOKEN"),
            (REMOVE, "cdb node rm NODE"),
            (UPDATE, "cdb start -c FILE"),
            (PROMOTE, "cdb node show NODE"),
        ] {
            assert!(refusal.contains(command), "{refusal}");
            let written = command.replace("HOST:PORT", "host:7400");
            let parsed = Cli::try_parse_from(written.split(' '));
            assert!(parsed.is_ok(), "{command}: {:?}", parsed.err());
        }
    }
}
