//! Strangers: one Join request, to the cluster the token names, and no more.

use bytes::Bytes;
use cluster::{
    limits::FRAME_BYTES_MAX,
    ports::network::{Peer, RequestClass},
};
use transport::{
    CertificateFault,
    client::{ClientError, join},
    identity::JoinToken,
};

use crate::harness::{PATIENCE, World, parts};

#[tokio::test]
async fn a_stranger_joins_by_the_fingerprint_of_its_token() {
    let world = World::new(40);
    let node = world.node(1);
    let token = JoinToken::generate(world.authority.certificate(), &*world.entropy);
    let token: JoinToken = token.to_string().parse().unwrap();
    let connection = join(&node.address.to_string(), &token, parts()).await.unwrap();
    let body = Bytes::from_static(b"let me in");
    assert_eq!(connection.request(body.clone(), PATIENCE).await, Ok(body));
    let requests = node.inbound.requests.lock().unwrap().clone();
    assert_eq!(requests, [(Peer::Anonymous, RequestClass::Join, 9)]);
}

#[tokio::test]
async fn a_token_of_another_cluster_sends_nothing() {
    let (ours, theirs) = (World::new(41), World::new(42));
    let node = theirs.node(1);
    let token = JoinToken::generate(ours.authority.certificate(), &*ours.entropy);
    let error = join(&node.address.to_string(), &token, parts()).await.unwrap_err();
    let ClientError::WrongCertificate { fault, .. } = error else { panic!("{error}") };
    assert_eq!(fault, CertificateFault::Fingerprint);
    assert!(node.inbound.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stranger_with_a_large_request_is_cut_off() {
    let world = World::new(43);
    let node = world.node(1);
    let token = JoinToken::generate(world.authority.certificate(), &*world.entropy);
    let connection = join(&node.address.to_string(), &token, parts()).await.unwrap();
    let body = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    let error = connection.request(body, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error}");
    assert!(node.inbound.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn strangers_beyond_the_cap_are_turned_away_and_clients_still_served() {
    let world = World::new(44);
    let node = world.node(1);
    let token = JoinToken::generate(world.authority.certificate(), &*world.entropy);
    let endpoint = node.address.to_string();
    let mut inside = Vec::new();
    let refused = loop {
        match join(&endpoint, &token, parts()).await {
            Ok(connection) => inside.push(connection),
            Err(error) => break error,
        }
        assert!(inside.len() <= 32, "more strangers than the documented 32");
    };
    assert!(matches!(refused, ClientError::Busy { .. }), "{refused}");
    let client = world.client(&[endpoint]);
    let answer = client.request(RequestClass::Data, Bytes::from_static(b"hi"), PATIENCE).await;
    assert!(answer.is_ok());
}
