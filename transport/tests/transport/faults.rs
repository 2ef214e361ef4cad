//! Peers that break the rules: each loses its connection, nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use cluster::{
    formats::{FrameKind, encode_frame},
    ids::NodeId,
    ports::{
        entropy::Entropy,
        network::{Lane, Network, RequestClass, SendError},
    },
};
use quinn::Connection;
use transport::Limits;

use crate::{
    harness::{Node, PATIENCE, World, eventually, loopback},
    raw,
};

/// The close code of a broken rule, as the README lists it.
const FAULT: u64 = 8;

/// Two healthy nodes and a place for the attacker.
async fn healthy(world: &World, limits: Limits) -> (Node, Node) {
    let (a, b) = (world.node_with(1, limits), world.node(2));
    a.knows(&b);
    a.ask(&b, "up").await;
    eventually("link", || b.links() == [(a.id, true)]).await;
    (a, b)
}

/// Nothing happened to the healthy ones.
async fn still_healthy(a: &Node, b: &Node) {
    assert_eq!(a.ask(b, "well?").await, "well?");
    assert_eq!(b.ask(a, "well!").await, "well!");
    assert_eq!(b.links(), [(a.id, true)]);
}

/// A node with a valid certificate that has said hello.
async fn bad_node(world: &World, endpoint: &quinn::Endpoint, to: &Node) -> Connection {
    let connection = raw::connect(endpoint, to.address).await.unwrap();
    let hello = raw::hello(0, world.authority.cluster(), NodeId(66));
    raw::greet(&connection, &hello).await.unwrap();
    connection
}

fn prelude(class: u8) -> Vec<u8> {
    vec![class, 0, 0, 0, 0x10, 0x27, 0, 0]
}

#[tokio::test]
async fn garbage_datagrams_are_ignored() {
    let world = World::new(60);
    let (a, b) = healthy(&world, Limits::default()).await;
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    for round in 0..5_000 {
        let mut bytes = vec![0; (world.entropy.next_u64() % 1_400) as usize];
        world.entropy.fill(&mut bytes);
        // Half of them look like the first packet of a QUIC handshake.
        if round % 2 == 0 && bytes.len() > 5 {
            bytes[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]);
        }
        let _ = socket.send_to(&bytes, a.address);
        if round % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    still_healthy(&a, &b).await;
}

#[tokio::test]
async fn each_broken_rule_closes_its_own_connection_with_a_reason() {
    let world = World::new(61);
    let (a, b) = healthy(&world, Limits::default()).await;
    let endpoint = raw::endpoint(Some(&world.credentials(66)));
    let request = |payload: &[u8]| encode_frame(FrameKind::Request, 1, payload);
    let mut bent = request(b"hello");
    *bent.last_mut().unwrap() ^= 1;
    let mut oversize = request(b"hello");
    oversize[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let header_crc = crc32c(&oversize[..20]);
    oversize[20..24].copy_from_slice(&header_crc.to_le_bytes());
    let cases: [(&str, Vec<u8>); 8] = [
        ("not a frame of this system", [prelude(0), vec![0xaa; 100]].concat()),
        ("unknown request class 9", [prelude(9), request(b"x")].concat()),
        ("frame payload is damaged", [prelude(0), bent].concat()),
        ("exceeds the limit", [prelude(0), oversize].concat()),
        (
            "expected a frame of kind Request",
            [prelude(0), encode_frame(FrameKind::Raft, 1, b"x")].concat(),
        ),
        ("has version 2", [prelude(0), encode_frame(FrameKind::Request, 2, b"x")].concat()),
        ("stream ended inside a frame", [prelude(0), request(b"hello")[..26].to_vec()].concat()),
        ("bytes follow the one frame", [prelude(0), request(b"x"), vec![1]].concat()),
    ];
    for (reason, bytes) in cases {
        let connection = bad_node(&world, &endpoint, &a).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let (code, said) = raw::closed(&connection).await;
        assert_eq!(code, FAULT, "{reason}: {said}");
        assert!(said.contains(reason), "expected {reason:?}, heard {said:?}");
    }
    still_healthy(&a, &b).await;
    let requests = a.inbound.requests.lock().unwrap();
    assert!(requests.iter().all(|(_, _, bytes)| *bytes == 5), "a bad request was served");
}

fn crc32c(bytes: &[u8]) -> u32 {
    // Bitwise, from the polynomial; slow and independent. Source: RFC 3720 B.4.
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    };
    !bytes.iter().fold(!0, step)
}

#[tokio::test]
async fn garbage_on_the_lanes_closes_the_connection() {
    let world = World::new(62);
    let (a, b) = healthy(&world, Limits::default()).await;
    let endpoint = raw::endpoint(Some(&world.credentials(66)));
    let connection = bad_node(&world, &endpoint, &a).await;
    let mut lane = connection.open_uni().await.unwrap();
    lane.write_all(&[0x55; 64]).await.unwrap();
    assert_eq!(raw::closed(&connection).await.0, FAULT);
    let connection = bad_node(&world, &endpoint, &a).await;
    eventually("a datagram arrives", || {
        let _ = connection.send_datagram(Bytes::from_static(b"no gossip at all"));
        connection.close_reason().is_some()
    })
    .await;
    assert_eq!(raw::closed(&connection).await.0, FAULT);
    still_healthy(&a, &b).await;
    assert!(a.inbound.messages.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_bad_hello_is_refused_with_its_reason() {
    let world = World::new(63);
    let a = world.node(1);
    let cluster = world.authority.cluster();
    let good = raw::hello(0, cluster, NodeId(66));
    let mut newer = good.clone();
    newer[..4].copy_from_slice(&[5, 0, 9, 0]);
    let mut role = good.clone();
    role[4] = 7;
    let cases = [
        (6, "upgrade the older one", newer),
        (8, "unknown role 7", role),
        (8, "is too short", good[..40].to_vec()),
        (7, "another identity than the certificate", raw::hello(0, cluster, NodeId(67))),
        (7, "another identity than the certificate", raw::hello(1, cluster, NodeId(66))),
        (7, "this is cluster", raw::hello(0, cluster::ids::ClusterId(1), NodeId(66))),
    ];
    let endpoint = raw::endpoint(Some(&world.credentials(66)));
    for (code, reason, hello) in cases {
        let connection = raw::connect(&endpoint, a.address).await.unwrap();
        assert!(raw::greet(&connection, &hello).await.is_err());
        let (found, said) = raw::closed(&connection).await;
        assert_eq!(found, code, "{said}");
        assert!(said.contains(reason), "expected {reason:?}, heard {said:?}");
    }
    assert!(a.links().is_empty());
}

#[tokio::test]
async fn a_foreign_certificate_hears_why_it_is_refused() {
    let (ours, theirs) = (World::new(64), World::new(65));
    let a = ours.node(1);
    let endpoint = raw::endpoint(Some(&theirs.credentials(66)));
    // TLS lets the dialer finish first; the refusal follows.
    if let Ok(connection) = raw::connect(&endpoint, a.address).await {
        let (code, said) = raw::closed(&connection).await;
        assert!((0x100..0x200).contains(&code), "{code:x}");
        assert!(said.contains("it belongs to cluster"), "{said}");
    }
}

#[tokio::test]
async fn a_stranger_may_ask_nothing_but_to_join() {
    let world = World::new(66);
    let a = world.node(1);
    let endpoint = raw::endpoint(None);
    for class in [0, 1, 2] {
        let connection = raw::connect(&endpoint, a.address).await.unwrap();
        let hello = raw::hello(2, cluster::ids::ClusterId(0), NodeId(0));
        raw::greet(&connection, &hello).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let frame = encode_frame(FrameKind::Request, 1, b"data");
        let _ = send.write_all(&[prelude(class), frame].concat()).await;
        let refused = recv.read_to_end(100).await;
        assert!(refused.is_err(), "class {class} was answered");
        connection.close(0_u32.into(), b"");
    }
    assert!(a.inbound.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stranger_gets_no_second_request_and_no_stream_before_hello() {
    let world = World::new(67);
    let a = world.node(1);
    let endpoint = raw::endpoint(None);
    let connection = raw::connect(&endpoint, a.address).await.unwrap();
    let _hello = connection.open_bi().await.unwrap();
    let brief = Duration::from_millis(200);
    assert!(tokio::time::timeout(brief, connection.open_bi()).await.is_err());
    assert!(tokio::time::timeout(brief, connection.open_uni()).await.is_err());
    let connection = raw::connect(&endpoint, a.address).await.unwrap();
    let hello = raw::hello(2, cluster::ids::ClusterId(0), NodeId(0));
    raw::greet(&connection, &hello).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let frame = encode_frame(FrameKind::Request, 1, b"join");
    send.write_all(&[prelude(3), frame].concat()).await.unwrap();
    send.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap().len(), 24 + 4);
    assert_eq!(raw::closed(&connection).await.0, 0);
}

#[tokio::test]
async fn peers_that_stall_in_the_handshake_are_cut_off_and_others_served() {
    let world = World::new(68);
    let limits = Limits { handshake_timeout: Duration::from_secs(15), ..Limits::default() };
    let (a, b) = healthy(&world, limits).await;
    let endpoint = raw::endpoint(Some(&world.credentials(66)));
    let mut stalled = Vec::new();
    for _ in 0..100 {
        stalled.push(raw::connect(&endpoint, a.address).await.unwrap());
    }
    // Half of them begin hello and never end it.
    for connection in stalled.iter().step_by(2) {
        if let Ok((mut send, _)) = connection.open_bi().await {
            let _ = send.write_all(b"CDBf").await;
            std::mem::forget(send);
        }
    }
    let begin = tokio::time::Instant::now();
    still_healthy(&a, &b).await;
    // Before any of them is cut off.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for connection in &stalled {
        assert_eq!(raw::closed(connection).await.0, 5);
    }
    still_healthy(&a, &b).await;
}

#[tokio::test]
async fn too_many_connections_of_one_address_are_refused_and_room_returns() {
    let world = World::new(69);
    // Long enough that none is cut off before all have come.
    let limits = Limits {
        connections_per_ip_max: 20,
        handshake_timeout: Duration::from_mins(1),
        ..Limits::default()
    };
    let a = world.node_with(1, limits);
    let endpoint = raw::endpoint(None);
    let mut inside = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        match raw::connect(&endpoint, a.address).await {
            Ok(connection) => inside.push(connection),
            Err(_) => refused += 1,
        }
    }
    assert_eq!((inside.len(), refused), (20, 10));
    for connection in inside {
        connection.close(0_u32.into(), b"");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(raw::connect(&endpoint, a.address).await.is_ok());
}

#[tokio::test]
async fn half_open_load_makes_addresses_prove_themselves() {
    let world = World::new(70);
    let a = world.node_with(1, Limits { half_open_retry: 4, ..Limits::default() });
    let endpoint = raw::endpoint(None);
    let mut stalled = Vec::new();
    for _ in 0..8 {
        // With Retry the handshake takes one more round; it still succeeds.
        stalled.push(raw::connect(&endpoint, a.address).await.unwrap());
    }
    let client = world.client(&[a.address.to_string()]);
    let answer = client.request(RequestClass::Data, Bytes::from_static(b"hi"), PATIENCE).await;
    assert!(answer.is_ok());
}

#[tokio::test]
async fn a_peer_that_does_not_read_fills_its_queue_and_no_more() {
    let world = World::new(71);
    let (a, b) = healthy(&world, Limits::default()).await;
    let endpoint = raw::endpoint(Some(&world.credentials(66)));
    let connection = bad_node(&world, &endpoint, &a).await;
    eventually("link", || a.links().contains(&(NodeId(66), true))).await;
    let message = Bytes::from(vec![1; 64 << 10]);
    let (mut taken, mut full) = (0_usize, 0);
    for _ in 0..4_000 {
        match a.transport.send(NodeId(66), Lane::Raft, message.clone()) {
            Ok(()) => taken += message.len(),
            Err(SendError::Full(NodeId(66))) => full += 1,
            Err(other) => panic!("{other}"),
        }
        tokio::task::yield_now().await;
    }
    assert!(full > 0);
    // The queue, quinn's send window and the peer's receive window.
    assert!(taken <= (16 << 20) + (16 << 20) + (2 << 20), "{taken} bytes were taken");
    still_healthy(&a, &b).await;
    drop(connection);
}

#[tokio::test]
async fn clients_that_stall_inside_requests_hold_nobody_up() {
    let world = World::new(72);
    let a = world.node(1);
    let endpoint = raw::endpoint(Some(&world.client_credentials()));
    let connection = raw::connect(&endpoint, a.address).await.unwrap();
    let hello = raw::hello(1, world.authority.cluster(), NodeId(0));
    raw::greet(&connection, &hello).await.unwrap();
    let mut streams = Vec::new();
    // Each announces 4 MiB and sends nothing of it.
    let mut header = encode_frame(FrameKind::Request, 1, &vec![0; 4 << 20]);
    header.truncate(24);
    for _ in 0..200 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&[prelude(0), header.clone()].concat()).await.unwrap();
        streams.push((send, recv));
    }
    let client = world.client(&[a.address.to_string()]);
    let large = Bytes::from(vec![0; 4 << 20]);
    let answer = client.request(RequestClass::Data, large.clone(), PATIENCE).await;
    assert_eq!(answer, Ok(large));
}

#[tokio::test]
async fn seeded_garbage_after_the_handshake_never_disturbs_the_healthy() {
    let world = World::new(73);
    let (a, b) = healthy(&world, Limits::default()).await;
    let endpoint = raw::endpoint(Some(&world.credentials(66)));
    for round in 0..300_u64 {
        let connection = bad_node(&world, &endpoint, &a).await;
        let chance = world.entropy.next_u64();
        let mut bytes =
            [prelude((chance % 4) as u8), encode_frame(FrameKind::Request, 1, &[5; 64])].concat();
        // The first byte chooses the class, and every class is a good one.
        let at = 8 + (chance >> 8) as usize % (bytes.len() - 8);
        bytes[at] ^= 1 << (chance >> 32 & 7);
        if round % 3 == 0 {
            bytes.truncate(at);
        }
        if round % 2 == 0 {
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            let _ = send.write_all(&bytes).await;
            let _ = send.finish();
        } else {
            let mut lane = connection.open_uni().await.unwrap();
            let _ = lane.write_all(&bytes).await;
            let _ = lane.finish();
        }
        // Join is refused by stream before its frame is read; all else is fatal.
        let fatal = round % 2 == 1 || chance % 4 != 3;
        if fatal {
            let (code, said) = raw::closed(&connection).await;
            assert!(code == FAULT || code == 1, "round {round}: {code} {said}");
        }
        connection.close(0_u32.into(), b"");
    }
    still_healthy(&a, &b).await;
}
