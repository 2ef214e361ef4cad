//! Seeded garbage for everything that reads bytes of a peer: no panic, no
//! allocation beyond the caps, and nothing bent is taken for whole.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cluster::{
    formats::{FrameKind, encode_frame},
    ids::{ClusterId, NodeId},
    ports::{entropy::Entropy, network::RequestClass},
    units::WallTime,
};
use futures_util::FutureExt as _;

use crate::{
    credit::ByteBudget,
    framing::{Prelude, read_datagram, read_end, read_frame},
    handshake::{Hello, Role},
    identity::{Authority, CertificateNames, ClusterKey, JoinToken, PrivateKey},
    limits::STRANGER_FRAME_BYTES_MAX,
};

#[derive(Debug)]
struct Chance(AtomicU64);

impl Chance {
    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next_u64() >> 33).expect("31 bits fit") % bound.max(1)
    }
}

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_be_bytes()[0];
        }
    }
}

/// Bends `whole`: flips, cuts, grows, or replaces it by noise.
fn bend(whole: &[u8], chance: &Chance) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    match chance.below(4) {
        0 => bytes.truncate(chance.below(whole.len())),
        1 => {
            bytes = vec![0; chance.below(2 * whole.len())];
            chance.fill(&mut bytes);
        }
        2 => bytes.insert(chance.below(whole.len()), chance.next_u64().to_be_bytes()[0]),
        _ => {
            for _ in 0..=chance.below(4) {
                let at = chance.below(whole.len());
                bytes[at] ^= 1 << chance.below(8);
            }
        }
    }
    bytes
}

#[test]
fn a_hundred_thousand_bad_frames_are_refused() {
    let chance = Chance(AtomicU64::new(1));
    let prelude = Prelude { class: RequestClass::Data, timeout: std::time::Duration::from_secs(1) };
    let frame = encode_frame(FrameKind::Request, 1, b"a request of some length");
    let budget = ByteBudget::new(STRANGER_FRAME_BYTES_MAX);
    let mut accepted = 0;
    for _ in 0..100_000 {
        let bytes = bend(&frame, &chance);
        let mut stream = bytes.as_slice();
        let reading = async {
            let max = STRANGER_FRAME_BYTES_MAX;
            let read = read_frame(&mut stream, FrameKind::Request, max, Some(&budget)).await;
            (read, read_end(&mut stream).await)
        };
        let (read, end) = reading.now_or_never().expect("a slice never waits");
        if let (Ok(Some(payload)), Ok(())) = (read, end) {
            assert_eq!(payload.bytes.as_ref(), b"a request of some length");
            assert_eq!(bytes, frame, "flips that cancel each other out");
            accepted += 1;
        }
        let mut head = bend(&prelude.encode(), &chance);
        head.resize(8, 0);
        let _ = Prelude::decode(head.try_into().expect("eight bytes"));
    }
    assert!(accepted < 1_000, "{accepted}");
}

#[test]
fn a_hundred_thousand_bad_datagrams_are_refused() {
    let chance = Chance(AtomicU64::new(2));
    let datagram = encode_frame(FrameKind::Gossip, 1, &[9; 200]);
    for _ in 0..100_000 {
        let bytes = Bytes::from(bend(&datagram, &chance));
        if let Ok(payload) = read_datagram(&bytes) {
            assert_eq!(payload.as_ref(), [9; 200]);
        }
    }
}

#[test]
fn a_hundred_thousand_bad_hellos_never_change_identity_unnoticed() {
    let chance = Chance(AtomicU64::new(3));
    let ours = Hello { cluster: ClusterId(1), node: NodeId(1), ..Hello::new(Role::Node) };
    let good = Hello { node: NodeId(2), ..ours };
    let peer = cluster::ports::network::Peer::Node(NodeId(2));
    for _ in 0..100_000 {
        let Ok(hello) = Hello::decode(&bend(&good.encode(), &chance)) else { continue };
        if ours.check(&hello, &peer).is_ok() {
            assert_eq!((hello.node, hello.cluster), (NodeId(2), ClusterId(1)));
        }
    }
}

#[test]
fn bent_certificates_keys_seals_and_tokens_never_panic() {
    let chance = Chance(AtomicU64::new(4));
    let authority = Authority::create(ClusterId(1), &chance, WallTime(1)).unwrap();
    let key = ClusterKey::generate(&chance);
    let sealed = authority.seal(&key, &chance);
    let own = PrivateKey::generate(&chance);
    let request = own.signing_request(NodeId(1)).unwrap();
    let token = JoinToken::generate(authority.certificate(), &chance).to_string();
    for _ in 0..20_000 {
        let _ = CertificateNames::read(&bend(authority.certificate(), &chance));
        let _ = PrivateKey::from_pkcs8(&bend(own.to_pkcs8(), &chance));
        let bent = bend(&sealed, &chance);
        let opened = Authority::open(authority.certificate(), &bent, &key);
        assert!(opened.is_err() || bent == sealed);
        let text = String::from_utf8_lossy(&bend(token.as_bytes(), &chance)).into_owned();
        assert!(text.parse::<JoinToken>().is_err() || text.trim() == token);
    }
    for _ in 0..500 {
        let bent = bend(&request, &chance);
        let _ = authority.sign_node_request(&bent, NodeId(1), &chance, WallTime(1));
    }
}
