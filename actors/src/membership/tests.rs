//! Three real actors on one paused runtime, over a network that can be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    catalog::{
        encoding::{encode_record, node_key},
        record::{NodeRecord, NodeState},
        view::CatalogView,
    },
    ids::{BootNonce, Incarnation, NodeId},
    membership::{
        Boot,
        swim::{LiveView, Roster},
    },
    mvcc::version::Version,
    ports::{
        clock::Clock,
        network::{BoxFuture, Lane, Network, RequestClass, RequestError, SendError},
    },
    units::{Instant, WallTime},
};
use ractor::{Actor, ActorRef};
use tokio::sync::{oneshot, watch};

use super::*;

/// The runtime's paused clock.
#[derive(Debug)]
struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN + self.0.elapsed()
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

/// Shared by all nodes: who listens, and who is cut off. (A lock, for this is
/// the network, not an actor.)
#[derive(Debug, Default)]
struct Air {
    doors: BTreeMap<NodeId, MembershipDoor>,
    cut: BTreeSet<NodeId>,
    forgotten: Vec<(NodeId, NodeId)>,
}

#[derive(Debug)]
struct FakeNetwork {
    node: NodeId,
    air: Arc<Mutex<Air>>,
}

impl Network for FakeNetwork {
    fn send(&self, to: NodeId, lane: Lane, message: Bytes) -> Result<(), SendError> {
        assert_eq!(lane, Lane::Gossip);
        let air = self.air.lock().unwrap();
        let Some(door) = air.doors.get(&to).cloned() else {
            return Err(SendError::UnknownNode(to));
        };
        if !air.cut.contains(&to) && !air.cut.contains(&self.node) {
            let from = self.node;
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                door.datagram(from, message);
            });
        }
        Ok(())
    }

    fn request(
        &self,
        to: NodeId,
        _class: RequestClass,
        _body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<Result<Bytes, RequestError>> {
        Box::pin(async move { Err(RequestError::Busy(to)) })
    }

    fn learn(&self, _node: NodeId, _addresses: Vec<SocketAddr>) {}

    fn forget(&self, node: NodeId) {
        self.air.lock().unwrap().forgotten.push((self.node, node));
    }
}

struct Node {
    actor: ActorRef<MembershipMessage>,
    live: watch::Receiver<LiveView>,
}

fn n(number: u128) -> NodeId {
    NodeId(number << 96)
}

async fn start(air: &Arc<Mutex<Air>>, number: u128, incarnation: u64) -> Node {
    let active = (1..=3).map(|number| (n(number), Incarnation(1))).collect();
    let (sender, live) = watch::channel(LiveView::default());
    let config = MembershipConfig {
        node: n(number),
        incarnation: Incarnation(incarnation),
        seed: u64::try_from(number).unwrap() + incarnation,
        roster: Roster { active, removed: BTreeSet::new() },
        clock: Arc::new(PausedClock(tokio::time::Instant::now())),
        network: Arc::new(FakeNetwork { node: n(number), air: Arc::clone(air) }),
        live: sender,
    };
    let (actor, _) = Actor::spawn(None, Membership, config).await.unwrap();
    air.lock().unwrap().doors.insert(n(number), MembershipDoor::new(actor.clone()));
    Node { actor, live }
}

async fn three() -> (Arc<Mutex<Air>>, Vec<Node>) {
    let air = Arc::new(Mutex::new(Air::default()));
    let mut nodes = Vec::new();
    for number in 1..=3 {
        nodes.push(start(&air, number, 1).await);
    }
    for node in &mut nodes {
        sees(node, &[1, 2, 3], 5).await;
    }
    (air, nodes)
}

/// Waits until a node publishes exactly this view.
async fn sees(node: &mut Node, numbers: &[u128], seconds: u64) {
    let wanted: BTreeSet<NodeId> = numbers.iter().map(|number| n(*number)).collect();
    let waiting = node.live.wait_for(|live| live.nodes() == wanted);
    let seen = tokio::time::timeout(Duration::from_secs(seconds), waiting).await.is_ok();
    assert!(seen, "wanted {wanted:?}, published {:?}", node.live.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_cut_node_is_missed_and_seen_again_when_the_link_heals() {
    let (air, mut nodes) = three().await;
    air.lock().unwrap().cut.insert(n(3));
    sees(&mut nodes[0], &[1, 2], 12).await;
    sees(&mut nodes[1], &[1, 2], 12).await;
    sees(&mut nodes[2], &[3], 12).await;
    air.lock().unwrap().cut.clear();
    for node in &mut nodes {
        sees(node, &[1, 2, 3], 12).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_is_seen_at_its_new_start() {
    let (air, mut nodes) = three().await;
    nodes[1].actor.stop(None);
    nodes[1] = start(&air, 2, 2).await;
    let seen = nodes[0]
        .live
        .wait_for(|live| live.up.get(&n(2)).is_some_and(|up| up.incarnation == Incarnation(2)));
    assert!(tokio::time::timeout(Duration::from_secs(5), seen).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_missed_within_seconds() {
    let (_air, mut nodes) = three().await;
    let (reply, left) = oneshot::channel();
    nodes[2].actor.send_message(MembershipMessage::Leave { reply }).unwrap();
    left.await.unwrap();
    nodes[2].actor.stop(None);
    sees(&mut nodes[0], &[1, 2], 2).await;
    sees(&mut nodes[1], &[1, 2], 2).await;
}

fn view_without_node_3() -> Arc<CatalogView> {
    let record = |number: u64| NodeRecord {
        node: n(number.into()),
        number,
        addresses: vec![format!("127.0.0.1:{number}")],
        http_address: String::new(),
        zone: String::new(),
        capacity_bytes: 1,
        state: if number == 3 { NodeState::Removed } else { NodeState::Active },
        boot: Boot { incarnation: Incarnation(1), nonce: BootNonce(1) },
    };
    let records = (1..=3).map(record).map(|node| (node_key(node.node), encode_record(&node)));
    let records: Vec<_> = records.collect();
    let changes = records.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice())));
    Arc::new(CatalogView::default().updated(Version(7), changes).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_goes_and_the_network_forgets_it() {
    let (air, mut nodes) = three().await;
    for node in &nodes {
        let view = view_without_node_3();
        node.actor.send_message(MembershipMessage::CatalogChanged(view)).unwrap();
    }
    sees(&mut nodes[0], &[1, 2], 1).await;
    sees(&mut nodes[1], &[1, 2], 1).await;
    assert!(air.lock().unwrap().forgotten.contains(&(n(1), n(3))));
    tokio::time::sleep(Duration::from_mins(1)).await;
    sees(&mut nodes[0], &[1, 2], 1).await;
}

#[tokio::test(start_paused = true)]
async fn datagrams_past_the_limit_are_dropped() {
    let (air, nodes) = three().await;
    let door = air.lock().unwrap().doors[&n(1)].clone();
    // No await between: the actor cannot take one.
    let taken = (0..2 * DATAGRAMS_WAITING_MAX)
        .filter(|_| door.datagram(n(2), Bytes::from_static(b"noise")))
        .count();
    assert_eq!(taken, DATAGRAMS_WAITING_MAX);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(door.datagram(n(2), Bytes::from_static(b"noise")));
    assert_eq!(nodes[0].live.borrow().nodes().len(), 3);
}
