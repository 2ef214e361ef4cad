//! Between nodes: both lanes, requests, both directions, who is who.

use std::time::Duration;

use bytes::Bytes;
use cluster::{
    ids::{BootNonce, Incarnation, NodeId},
    limits::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX},
    membership::Boot,
    ports::network::{Lane, Network, Peer, RequestClass, RequestError, SendError},
};
use transport::{BindError, Limits, Socket, bind};

use crate::harness::{PATIENCE, World, eventually, start};

#[tokio::test]
async fn requests_and_lanes_work_both_ways_over_one_connection() {
    let world = World::new(1);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    assert_eq!(a.ask(&b, "from a").await, "from a");
    // b was never taught where a is: it answers over a's connection.
    eventually("link", || b.links() == [(a.id, true)]).await;
    assert_eq!(b.ask(&a, "from b").await, "from b");
    for (from, to) in [(&a, &b), (&b, &a)] {
        let raft = Bytes::from_static(b"raft");
        from.transport.send(to.id, Lane::Raft, raft.clone()).unwrap();
        eventually("raft", || {
            to.inbound.messages.lock().unwrap().contains(&(from.id, Lane::Raft, raft.clone()))
        })
        .await;
        let gossip = Bytes::from(vec![7; DATAGRAM_BYTES_MAX]);
        eventually("gossip", || {
            from.transport.send(to.id, Lane::Gossip, gossip.clone()).unwrap();
            to.inbound.messages.lock().unwrap().contains(&(from.id, Lane::Gossip, gossip.clone()))
        })
        .await;
    }
    assert_eq!(a.links(), [(b.id, true)]);
    let requests = b.inbound.requests.lock().unwrap().clone();
    assert_eq!(requests, [(Peer::Node(a.id), RequestClass::Data, 6)]);
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_keep_one_link() {
    let world = World::new(2);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    b.knows(&a);
    for round in 0..50 {
        let body = round.to_string();
        assert_eq!(a.ask(&b, &body).await, body);
        assert_eq!(b.ask(&a, &body).await, body);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(a.links(), [(b.id, true)]);
    assert_eq!(b.links(), [(a.id, true)]);
}

#[tokio::test]
async fn raft_messages_arrive_in_order() {
    let world = World::new(3);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    a.ask(&b, "up").await;
    for number in 0..2_000_u32 {
        let message = Bytes::copy_from_slice(&number.to_le_bytes());
        a.transport.send(b.id, Lane::Raft, message).unwrap();
    }
    eventually("all messages", || b.messages() == 2_000).await;
    let messages = b.inbound.messages.lock().unwrap();
    for (number, (_, _, message)) in (0..2_000_u32).zip(messages.iter()) {
        assert_eq!(message.as_ref(), number.to_le_bytes());
    }
}

#[tokio::test]
async fn the_largest_request_passes_and_a_larger_one_is_not_sent() {
    let world = World::new(4);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    let largest = Bytes::from(vec![3; FRAME_BYTES_MAX]);
    let answer =
        a.transport.request(b.id, RequestClass::Bulk, largest.clone(), PATIENCE).await.unwrap();
    assert_eq!(answer, largest);
    let larger = Bytes::from(vec![3; FRAME_BYTES_MAX + 1]);
    let refused = a.transport.request(b.id, RequestClass::Bulk, larger.clone(), PATIENCE).await;
    assert!(refused.unwrap_err().not_sent());
    let refused = a.transport.send(b.id, Lane::Raft, larger);
    assert!(matches!(refused, Err(SendError::TooLarge { .. })));
    let gossip = Bytes::from(vec![0; DATAGRAM_BYTES_MAX + 1]);
    let refused = a.transport.send(b.id, Lane::Gossip, gossip);
    assert_eq!(
        refused,
        Err(SendError::TooLarge { bytes: DATAGRAM_BYTES_MAX + 1, bytes_max: DATAGRAM_BYTES_MAX })
    );
}

#[tokio::test]
async fn a_request_times_out_and_the_link_lives_on() {
    let world = World::new(5);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    a.ask(&b, "up").await;
    let after = Duration::from_millis(100);
    let body = Bytes::from_static(b"wait:5000");
    let outcome = a.transport.request(b.id, RequestClass::Data, body, after).await;
    assert_eq!(outcome, Err(RequestError::Timeout { node: b.id, after }));
    assert_eq!(a.ask(&b, "again").await, "again");
    assert_eq!(a.links(), [(b.id, true)]);
}

#[tokio::test]
async fn more_requests_than_the_class_allows_are_busy_not_queued() {
    let world = World::new(6);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    a.ask(&b, "up").await;
    let bulk = || {
        let body = Bytes::from_static(b"wait:400");
        tokio::spawn(a.transport.request(b.id, RequestClass::Bulk, body, PATIENCE))
    };
    let running: Vec<_> = (0..8).map(|_| bulk()).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bulk().await.unwrap(), Err(RequestError::Busy(b.id)));
    // Other classes do not notice.
    assert_eq!(a.ask(&b, "data").await, "data");
    for request in running {
        assert!(request.await.unwrap().is_ok());
    }
    assert!(bulk().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_panicking_handler_costs_its_request_only() {
    let world = World::new(7);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    let body = Bytes::from_static(b"panic");
    let outcome = a.transport.request(b.id, RequestClass::Data, body, PATIENCE).await;
    assert!(matches!(outcome, Err(RequestError::Lost { .. })), "{outcome:?}");
    assert_eq!(a.ask(&b, "still here").await, "still here");
    assert_eq!(a.links(), [(b.id, true)]);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_not_a_peer() {
    let (ours, theirs) = (World::new(8), World::new(9));
    let (a, b) = (ours.node(1), theirs.node(2));
    a.knows(&b);
    let body = Bytes::from_static(b"hello");
    let outcome = a.transport.request(b.id, RequestClass::Data, body, PATIENCE).await;
    let error = outcome.unwrap_err();
    assert!(error.not_sent());
    assert!(error.to_string().contains("it belongs to cluster c-00000000"), "{error}");
    assert!(a.links().is_empty() && b.links().is_empty());
}

#[tokio::test]
async fn another_node_behind_a_known_address_is_told_apart() {
    let world = World::new(10);
    let (a, b) = (world.node(1), world.node(2));
    a.transport.learn(NodeId(3), vec![b.address]);
    let body = Bytes::from_static(b"hello");
    let outcome = a.transport.request(NodeId(3), RequestClass::Data, body, PATIENCE).await;
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("the address was taken over"), "{error}");
    let unknown = a.transport.send(b.id, Lane::Raft, Bytes::new());
    assert_eq!(unknown, Err(SendError::UnknownNode(b.id)), "nothing is learnt from the mistake");
}

#[tokio::test]
async fn nodes_with_different_configurations_say_so() {
    let world = World::new(11);
    let a = world.node(1);
    let mut config = world.config(2, Limits::default());
    config.config_hash = 8;
    let b = start(config, 2);
    a.knows(&b);
    let body = Bytes::from_static(b"hello");
    let outcome = a.transport.request(b.id, RequestClass::Data, body, PATIENCE).await;
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("configurations differ"), "{error}");
}

#[tokio::test]
async fn a_forgotten_node_is_closed_and_let_in_again_only_when_taught() {
    let world = World::new(12);
    let (a, b) = (world.node(1), world.node(2));
    b.knows(&a);
    b.ask(&a, "up").await;
    eventually("link", || a.links() == [(b.id, true)]).await;
    a.transport.forget(b.id);
    eventually("link down", || a.links() == [(b.id, true), (b.id, false)]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(a.links().len(), 2, "b dials in vain");
    let unknown = a.transport.send(b.id, Lane::Raft, Bytes::new());
    assert_eq!(unknown, Err(SendError::UnknownNode(b.id)));
    a.knows(&b);
    eventually("link up", || a.links().len() == 3).await;
}

#[tokio::test]
async fn hello_shows_the_boot_of_the_peer() {
    let world = World::new(13);
    let a = world.node(1);
    let mut config = world.config(2, Limits::default());
    let boot = Boot { incarnation: Incarnation(9), nonce: BootNonce(77) };
    config.boot = boot;
    let b = start(config, 2);
    a.knows(&b);
    a.ask(&b, "up").await;
    assert_eq!(a.transport.boot_of(b.id), Some(boot));
    assert_eq!(a.transport.boot_of(NodeId(99)), None);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::new(14);
    let a = world.node(1);
    let error = bind(a.address).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }));
    assert!(error.to_string().contains(&format!("UDP port {}", a.address.port())), "{error}");
}

#[tokio::test]
async fn a_client_certificate_starts_no_node() {
    let world = World::new(15);
    let mut config = world.config(1, Limits::default());
    config.credentials = world.client_credentials();
    config.socket = Socket::Udp(bind("127.0.0.1:0".parse().unwrap()).unwrap());
    let inbound = std::sync::Arc::new(crate::harness::Recorder::default());
    let error = transport::Transport::start(config, inbound).unwrap_err();
    assert!(error.to_string().contains("a node needs a node's certificate"), "{error}");
}
