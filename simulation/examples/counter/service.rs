//! The host application's own service: an actor that counts, and its door.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::{
        files::File,
        network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
    },
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use simulation::node::{Parts, Resident};
use tokio::sync::oneshot;

/// What runs on each machine; a careless one does not sync.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) careless: bool,
}

#[derive(Debug)]
pub(crate) enum Ask {
    Add(oneshot::Sender<u64>),
    Total(oneshot::Sender<u64>),
    Heard(NodeId, u64),
    Tell,
}

pub(crate) struct Counter {
    parts: Parts,
    file: Box<dyn File>,
    known: BTreeMap<NodeId, u64>,
    careless: bool,
}

impl Counter {
    fn add(&mut self) -> std::io::Result<u64> {
        let mine = self.known.entry(self.parts.node).or_default();
        *mine += 1;
        self.file.write_at(0, &mine.to_le_bytes())?;
        if !self.careless {
            self.file.sync()?;
        }
        Ok(*mine)
    }
}

impl Actor for Counters {
    type Msg = Ask;
    type State = Counter;
    type Arguments = Parts;

    async fn pre_start(
        &self,
        me: ActorRef<Ask>,
        parts: Parts,
    ) -> Result<Counter, ActorProcessingErr> {
        parts.nodes.iter().for_each(|node| parts.network.learn(*node, Vec::new()));
        let file =
            parts.state_files.open("part").or_else(|_| parts.state_files.create("part", 8))?;
        parts.state_files.sync_directory()?;
        let mut part = [0; 8];
        file.read_at(0, &mut part)?;
        let known = BTreeMap::from([(parts.node, u64::from_le_bytes(part))]);
        me.send_interval(Duration::from_millis(200), || Ask::Tell);
        Ok(Counter { parts, file, known, careless: self.careless })
    }

    async fn handle(
        &self,
        _: ActorRef<Ask>,
        ask: Ask,
        counter: &mut Counter,
    ) -> Result<(), ActorProcessingErr> {
        match ask {
            Ask::Add(done) => drop(done.send(counter.add()?)),
            Ask::Total(reply) => drop(reply.send(counter.known.values().sum())),
            Ask::Heard(node, part) => {
                let known = counter.known.entry(node).or_default();
                *known = part.max(*known);
            }
            Ask::Tell => {
                let mine = counter.known.get(&counter.parts.node).copied().unwrap_or_default();
                for node in &counter.parts.nodes {
                    // A peer that is down hears it later.
                    let _ = counter.parts.network.send(
                        *node,
                        Lane::Raft,
                        Bytes::copy_from_slice(&mine.to_le_bytes()),
                    );
                }
            }
        }
        Ok(())
    }
}

impl Resident for Counters {
    fn start(&self, parts: Parts) -> BoxFuture<Result<Arc<dyn Inbound>, String>> {
        let counters = self.clone();
        Box::pin(async move {
            let (actor, _) =
                Actor::spawn(None, counters, parts).await.map_err(|error| error.to_string())?;
            Ok(Arc::new(Door(actor)) as Arc<dyn Inbound>)
        })
    }
}

#[derive(Debug)]
struct Door(ActorRef<Ask>);

impl Inbound for Door {
    fn message(&self, from: NodeId, _: Lane, bytes: Bytes) {
        if let Some(part) = bytes.first_chunk() {
            let _ = self.0.cast(Ask::Heard(from, u64::from_le_bytes(*part)));
        }
    }

    fn request(&self, _: Peer, _: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.cast(if body.is_empty() { Ask::Total(reply) } else { Ask::Add(reply) });
        Box::pin(async {
            Bytes::from(answer.await.map_or_else(|_| Vec::new(), |n| n.to_le_bytes().to_vec()))
        })
    }

    fn link(&self, _: NodeId, _: bool) {}
}
