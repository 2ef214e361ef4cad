//! Where a client's requests leave it: the port behind which a node is reached.
//!
//! The command line implements it with a QUIC endpoint, a node by handing the
//! request to its own parts, simulation with the fake network.

use std::{fmt, time::Duration};

use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, RequestClass},
    request::{Answer, Request},
    routing::{Reaction, reaction},
};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Nothing was sent: no connection could be made.
    #[error("cannot reach {node}: {cause}")]
    Unreachable {
        /// Whom, as a person would name it (address or node).
        node: String,
        /// What the network said.
        cause: String,
    },
    /// The other side, or this one, refused the certificate. Nothing was sent.
    #[error("the certificate was refused by {node}: {cause}")]
    BadCertificate {
        /// Whom.
        node: String,
        /// What TLS said.
        cause: String,
    },
    /// Too much is under way to that node; nothing was sent.
    #[error("too many requests under way to {node}")]
    Busy {
        /// Whom.
        node: String,
    },
    /// No answer in time; the request may have been executed.
    #[error("no answer from {node} within {after:?}")]
    Timeout {
        /// Whom.
        node: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended first; the request may have been executed.
    #[error("the connection to {node} was lost: {cause}")]
    Lost {
        /// Whom.
        node: String,
        /// What the network said.
        cause: String,
    },
    /// The answer is of another release or damaged.
    #[error("{node} gave an answer this release does not understand: {cause}")]
    BadAnswer {
        /// Who.
        node: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl DoorError {
    /// Whether the request certainly was not executed.
    pub fn not_sent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BadCertificate { .. } | Self::Busy { .. } => true,
            Self::Timeout { .. } | Self::Lost { .. } | Self::BadAnswer { .. } => false,
        }
    }
}

/// Whether a door had better turn to another node for what any may answer: this
/// one did not, or cannot serve it.
pub fn turns_away(answer: &Result<Answer, DoorError>) -> bool {
    match answer {
        Ok(Answer::Fault(fault)) => matches!(reaction(fault), Reaction::Elsewhere { .. }),
        Ok(_) => false,
        Err(_) => true,
    }
}

/// A way to the nodes of one cluster.
pub trait Door: Send + Sync + fmt::Debug {
    /// Asks `to`, or whichever node is at hand when that is none. With none,
    /// the door itself turns to another node after one failed or could not serve, so
    /// that the next call does better (see [`turns_away`]).
    fn call(
        &self,
        to: Option<NodeId>,
        class: RequestClass,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<Result<Answer, DoorError>>;

    /// Teaches where the nodes are reached (`host:port`), as the catalog says.
    fn learn(&self, nodes: Vec<(NodeId, Vec<String>)>);
}

#[cfg(test)]
mod tests {
    use cluster::request::Fault;

    use super::*;

    #[test]
    fn a_door_turns_away_from_who_cannot_serve_and_not_from_who_knows_better() {
        let told = |fault| turns_away(&Ok(Answer::Fault(fault)));
        assert!(told(Fault::NotLeader { leader: None }));
        assert!(!told(Fault::NotLeader { leader: Some(NodeId(1)) }));
        assert!(!told(Fault::Busy { retry_after_ms: 1 }));
        let unreachable = DoorError::Unreachable { node: String::new(), cause: String::new() };
        assert!(turns_away(&Err(unreachable)));
    }
}
