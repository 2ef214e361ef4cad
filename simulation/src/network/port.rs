//! One boot's end of the network: what its actors hold.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, Lane, Network, RequestClass, RequestError, SendError},
};

use super::{Address, Fabric, Ticket, slots::Slot};
use crate::clock::HostClock;

/// The port of one boot of one host. Once the host fell it is mute.
#[derive(Clone, Debug)]
pub struct Port {
    fabric: Fabric,
    me: (Slot, u64),
    clock: Arc<HostClock>,
}

impl Port {
    /// The port of `host` at `boot`.
    pub fn new(fabric: Fabric, host: Address, boot: u64, clock: Arc<HostClock>) -> Self {
        let me = (fabric.slot(host), boot);
        Self { fabric, me, clock }
    }

    /// Sends the answer to a request.
    pub fn answer(&self, ticket: Ticket, bytes: Bytes) {
        self.fabric.answer(self.me, ticket, bytes, self.clock.world_now());
    }
}

impl Network for Port {
    fn send(&self, to: NodeId, lane: Lane, message: Bytes) -> Result<(), SendError> {
        self.fabric.send(self.me, to, lane, message, self.clock.world_now())
    }

    fn request(
        &self,
        to: NodeId,
        class: RequestClass,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<Result<Bytes, RequestError>> {
        let port = self.clone();
        Box::pin(async move {
            let sent_at = port.clock.world_now();
            let receiver = port.fabric.request(port.me, to, class, body, sent_at)?;
            match tokio::time::timeout(timeout, receiver).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => {
                    Err(RequestError::Lost { node: to, cause: "the host went down".to_owned() })
                }
                Err(_) => Err(RequestError::Timeout { node: to, after: timeout }),
            }
        })
    }

    fn learn(&self, node: NodeId, _addresses: Vec<SocketAddr>) {
        self.fabric.learn(self.me, node);
    }

    fn forget(&self, node: NodeId) {
        self.fabric.forget(self.me, node);
    }
}
