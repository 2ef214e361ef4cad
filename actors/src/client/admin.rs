//! Nodes, their state, join tokens.

use std::{sync::Arc, time::Duration};

use cluster::{
    catalog::{command::CatalogCommand, record::NodeRecord, view::CatalogView},
    ids::NodeId,
    ports::network::RequestClass,
    request::{Answer, Request},
};

use super::{Client, ask::strange, error::ClientError};

impl Client {
    /// The catalog as the cluster shows it now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn catalog(&self) -> Result<Arc<CatalogView>, ClientError> {
        let mut trial = self.trial("the catalog");
        self.refresh(&mut trial, None, 0).await?;
        Ok(self.map().view)
    }

    /// The members, in order of their numbers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, ClientError> {
        let view = self.catalog().await?;
        let mut nodes: Vec<NodeRecord> = view.active_nodes().cloned().collect();
        nodes.sort_by_key(|node| node.number);
        Ok(nodes)
    }

    /// What one node says about itself (JSON), asked once: a node that does
    /// not answer is itself the answer. None asks the node at hand.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn node_status(&self, node: Option<NodeId>) -> Result<String, ClientError> {
        let subject = node.map_or_else(|| "the node".into(), |node| format!("node {node}"));
        let request = Request::NodeStatus;
        match self.call(node, RequestClass::Admin, request, self.deadline).await? {
            Answer::NodeStatus(json) => Ok(json),
            Answer::Fault(fault) => Err(ClientError::Fault { subject, fault }),
            other @ (Answer::Shard(_)
            | Answer::CatalogChanges { .. }
            | Answer::SnapshotPiece(_)
            | Answer::Joined(_)
            | Answer::Token(_)) => Err(strange(&subject, &other)),
        }
    }

    /// Removes a node for good. Its replicas are replaced in the background.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if a shard would lose its majority.
    pub async fn remove_node(&self, node: NodeId) -> Result<(), ClientError> {
        let mut trial = self.trial(format!("node {node}"));
        self.refresh(&mut trial, None, 0).await?;
        self.change_catalog(&mut trial, &CatalogCommand::RemoveNode(node)).await?;
        // Until the map shows it, this client would still count the node.
        while self.map().view.is_active(node) {
            self.renew_map(&mut trial).await?;
        }
        Ok(())
    }

    /// A new join token, as an operator types it, good for so long (at most
    /// [`cluster::limits::TOKEN_LIFETIME_MS_MAX`]).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn new_token(&self, lifetime: Duration) -> Result<String, ClientError> {
        let mut trial = self.trial("a join token");
        let lifetime_ms = u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX);
        loop {
            let Some(time) = trial.try_for() else { return Err(trial.ended()) };
            let subject = "a join token";
            match self
                .call(None, RequestClass::Admin, Request::NewToken { lifetime_ms }, time)
                .await
            {
                Ok(Answer::Token(token)) => return Ok(token),
                Ok(Answer::Fault(fault)) => {
                    trial.note_fault(&fault, false);
                    let error = ClientError::Fault { subject: subject.into(), fault };
                    if !error.is_retryable() {
                        return Err(error);
                    }
                }
                Ok(
                    other @ (Answer::Shard(_)
                    | Answer::CatalogChanges { .. }
                    | Answer::NodeStatus(_)
                    | Answer::SnapshotPiece(_)
                    | Answer::Joined(_)),
                ) => return Err(strange(subject, &other)),
                Err(error) => trial.note_silence(&error),
            }
            trial.pause(self.shared.entropy.next_u64()).await?;
        }
    }
}
