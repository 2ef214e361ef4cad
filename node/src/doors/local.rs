//! The way of a door into the node it stands in: no network, no bytes.
//!
//! Requests go to the node's own switchboard as those of a client would; it
//! serves them here or forwards them once. So whom the client behind a door
//! would ask does not matter, and what a door may do is judged where all
//! requests are. Only what a node says of itself is asked of that node.

use std::{sync::Arc, time::Duration};

use actors::{
    client::{Door, DoorError},
    switchboard::Switchboard,
};
use cluster::{
    ids::{FIRST_TENANT, NodeId},
    ports::network::{BoxFuture, Network, Peer, RequestClass},
    request::{Answer, Request},
};

/// A door's way to the node it stands in.
#[derive(Clone, Debug)]
pub struct LocalDoor {
    switchboard: Switchboard,
    network: Arc<dyn Network>,
    node: NodeId,
    principal: String,
}

impl LocalDoor {
    /// The way into `node` for the gateway `principal`, which acts for the first
    /// tenant.
    pub fn new(
        switchboard: Switchboard,
        network: Arc<dyn Network>,
        node: NodeId,
        principal: &str,
    ) -> Self {
        Self { switchboard, network, node, principal: principal.to_owned() }
    }

    /// Asks another node itself.
    async fn ask(
        &self,
        node: NodeId,
        request: &Request,
        timeout: Duration,
    ) -> Result<Answer, DoorError> {
        let (class, body) = (request.class(), request.encode().into());
        let name = node.to_string();
        match self.network.request(node, class, body, timeout).await {
            Ok(bytes) => Answer::decode(&bytes)
                .map_err(|error| DoorError::BadAnswer { node: name, cause: error.to_string() }),
            Err(error) => Err(DoorError::Lost { node: name, cause: error.to_string() }),
        }
    }
}

impl Door for LocalDoor {
    fn call(
        &self,
        to: Option<NodeId>,
        class: RequestClass,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<Result<Answer, DoorError>> {
        let door = self.clone();
        let elsewhere = to.filter(|to| *to != door.node && request == Request::NodeStatus);
        Box::pin(async move {
            if let Some(node) = elsewhere {
                return door.ask(node, &request, timeout).await;
            }
            let peer = Peer::Client { principal: door.principal, tenant: FIRST_TENANT };
            let served = door.switchboard.serve(peer, class, request);
            tokio::time::timeout(timeout, served)
                .await
                .map_err(|_| DoorError::Timeout { node: "this node".to_owned(), after: timeout })
        })
    }

    fn learn(&self, _nodes: Vec<(NodeId, Vec<String>)>) {
        // The node knows where its peers are.
    }
}
