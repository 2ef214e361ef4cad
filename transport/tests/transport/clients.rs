//! Clients: classes, limits, and the many ways not to connect.

use std::time::Duration;

use bytes::Bytes;
use cluster::{
    ids::TenantId,
    limits::FRAME_BYTES_MAX,
    ports::network::{Peer, RequestClass},
};
use transport::{
    CertificateFault, Limits,
    client::{ClientEndpoint, ClientError, Profile},
};

use crate::harness::{PATIENCE, StillClock, World, loopback, parts};

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn a_client_is_served_as_its_principal() {
    let world = World::new(20);
    let node = world.node(1);
    let client = world.client(&[node.address.to_string()]);
    for class in [RequestClass::Data, RequestClass::Admin] {
        assert_eq!(client.request(class, body("hi"), PATIENCE).await, Ok(body("hi")));
    }
    let peer = Peer::Client { principal: "ann".into(), tenant: TenantId(1) };
    let requests = node.inbound.requests.lock().unwrap().clone();
    assert_eq!(requests, [(peer.clone(), RequestClass::Data, 2), (peer, RequestClass::Admin, 2)]);
    client.close().await;
}

#[tokio::test]
async fn a_client_may_neither_read_snapshots_nor_join() {
    let world = World::new(21);
    let node = world.node(1);
    let endpoint = node.address.to_string();
    let client = world.client(std::slice::from_ref(&endpoint));
    for class in [RequestClass::Bulk, RequestClass::Join] {
        let refused = client.request(class, body("hi"), PATIENCE).await;
        assert_eq!(refused, Err(ClientError::NotAllowed { endpoint: endpoint.clone(), class }));
    }
    assert!(node.inbound.requests.lock().unwrap().is_empty());
    assert!(client.request(RequestClass::Data, body("hi"), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_the_good_one_remembered() {
    let world = World::new(22);
    let node = world.node(1);
    let dead = dead_address();
    let client = world.client(&[dead, node.address.to_string()]);
    for _ in 0..3 {
        assert!(client.request(RequestClass::Data, body("hi"), PATIENCE).await.is_ok());
    }
    node.transport.shutdown().await;
    drop(node);
    let error = client.request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    assert!(error.not_sent(), "{error}");
}

/// An address that was free a moment ago.
fn dead_address() -> String {
    std::net::UdpSocket::bind(loopback()).unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn nobody_listening_is_noticed_at_once() {
    let world = World::new(23);
    let endpoint = dead_address();
    let client = world.client(std::slice::from_ref(&endpoint));
    let begin = tokio::time::Instant::now();
    let error = client.request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.not_sent());
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_silent_address_is_no_answer() {
    let world = World::new(24);
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let client = world.client(&[silent.local_addr().unwrap().to_string()]);
    let patience = Duration::from_millis(300);
    let error = client.request(RequestClass::Data, body("hi"), patience).await.unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    assert!(error.not_sent());
}

#[tokio::test]
async fn an_unknown_name_is_a_look_up_error() {
    let world = World::new(25);
    let client = world.client(&["no-such-host.invalid:7000".into()]);
    let error = client.request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::Lookup { .. }), "{error}");
}

#[tokio::test]
async fn no_endpoint_says_where_to_add_one() {
    let world = World::new(26);
    let error = world.client(&[]).request(RequestClass::Data, body("hi"), PATIENCE).await;
    assert_eq!(error, Err(ClientError::NoEndpoint));
}

#[tokio::test]
async fn a_server_of_another_cluster_is_told_by_its_certificate() {
    let (ours, theirs) = (World::new(27), World::new(28));
    let node = theirs.node(1);
    let client = ours.client(&[node.address.to_string()]);
    let error = client.request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    let ClientError::WrongCertificate { fault, .. } = error else { panic!("{error}") };
    let (ours, theirs) = (ours.authority.cluster(), theirs.authority.cluster());
    assert_eq!(fault, CertificateFault::OtherCluster { ours, theirs });
}

#[tokio::test]
async fn a_cluster_made_anew_under_the_same_id_is_told_by_its_authority() {
    let (old, new) = (World::new(29), World::new(29));
    let _ = new.credentials(9);
    let made_anew = transport::identity::Authority::create(
        new.authority.cluster(),
        &*new.entropy,
        crate::harness::NOW,
    );
    let new = World { authority: made_anew.unwrap(), ..new };
    let node = new.node(1);
    let client = old.client(&[node.address.to_string()]);
    let error = client.request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    let ClientError::WrongCertificate { fault, .. } = error else { panic!("{error}") };
    assert!(matches!(fault, CertificateFault::Authority(_)), "{fault}");
}

#[tokio::test]
async fn an_expired_certificate_says_what_to_do() {
    let world = World::new(32);
    let node = world.node(1);
    let two_years = 2 * 365 * 24 * 60 * 60 * 1_000;
    let later = cluster::units::WallTime(crate::harness::NOW.0 + two_years);
    let mut late = parts();
    late.clock = std::sync::Arc::new(StillClock(later));
    let profile = Profile {
        endpoints: vec![node.address.to_string()],
        credentials: world.client_credentials(),
    };
    let client = ClientEndpoint::new(profile, late).unwrap();
    let error = client.request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("expired or not yet valid"), "{error}");
}

#[tokio::test]
async fn a_node_certificate_is_no_client_and_a_client_certificate_no_server() {
    let world = World::new(33);
    let node = world.node(1);
    let profile =
        Profile { endpoints: vec![node.address.to_string()], credentials: world.credentials(5) };
    let client = ClientEndpoint::new(profile, parts()).unwrap();
    let error = client.request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::CertificateRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_request_timeout_is_told_from_no_connection() {
    let world = World::new(34);
    let node = world.node(1);
    let client = world.client(&[node.address.to_string()]);
    assert!(client.request(RequestClass::Data, body("hi"), PATIENCE).await.is_ok());
    let patience = Duration::from_millis(100);
    let error = client.request(RequestClass::Data, body("wait:3000"), patience).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(!error.not_sent());
}

#[tokio::test]
async fn a_request_over_the_largest_frame_is_not_sent() {
    let world = World::new(35);
    let node = world.node(1);
    let client = world.client(&[node.address.to_string()]);
    let large = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let error = client.request(RequestClass::Data, large, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn clients_beyond_the_cap_are_told_that_it_is_busy() {
    let world = World::new(36);
    let node = world.node_with(1, Limits { clients_max: 2, ..Limits::default() });
    let endpoints = [node.address.to_string()];
    let clients: Vec<_> = (0..3).map(|_| world.client(&endpoints)).collect();
    for client in &clients[..2] {
        assert!(client.request(RequestClass::Data, body("hi"), PATIENCE).await.is_ok());
    }
    let error = clients[2].request(RequestClass::Data, body("hi"), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::Busy { .. }), "{error}");
    clients[0].close().await;
    crate::harness::eventually("a seat is free", || true).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(clients[2].request(RequestClass::Data, body("hi"), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn many_requests_at_once_share_one_connection() {
    let world = World::new(37);
    let node = world.node_with(1, Limits { clients_max: 1, ..Limits::default() });
    let client = std::sync::Arc::new(world.client(&[node.address.to_string()]));
    let running: Vec<_> = (0..100)
        .map(|number| {
            let client = std::sync::Arc::clone(&client);
            let text = number.to_string();
            tokio::spawn(async move {
                let answer = client.request(RequestClass::Data, body(&text), PATIENCE).await;
                assert_eq!(answer, Ok(body(&text)));
            })
        })
        .collect();
    for request in running {
        request.await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_endpoint_leaves_time_for_the_next() {
    let world = World::new(38);
    let node = world.node(1);
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let still = std::net::UdpSocket::bind(loopback()).unwrap();
    let held = still.local_addr().unwrap().to_string();
    let client = world.client(&[silent, held, node.address.to_string()]);
    let deadline = Duration::from_secs(3);
    assert!(client.request(RequestClass::Data, body("hi"), deadline).await.is_ok());
    let begin = tokio::time::Instant::now();
    assert!(client.request(RequestClass::Data, body("hi"), deadline).await.is_ok());
    assert!(begin.elapsed() < Duration::from_millis(300), "the good one is remembered");
}
