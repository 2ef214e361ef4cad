//! The network treats parcels as the product's would.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    limits::DATAGRAM_BYTES_MAX,
    ports::network::{Lane, Network, RequestClass, RequestError, SendError},
    units::Instant,
};

use super::{Address, Delivery, Fabric, Port, Weather};
use crate::{host::Host, rng::Rng, trace::Trace};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Two nodes that know each other, and a clock.
struct Bench {
    fabric: Fabric,
    host: Host,
    a: Port,
    b: Port,
    now: Instant,
    got: Vec<(Option<NodeId>, Delivery)>,
}

impl Bench {
    fn new(weather: Weather) -> Self {
        let fabric = Fabric::new(Rng::stream(1, "network", 0), Trace::new(true), weather);
        let host = Host::new(Arc::default(), Instant::ORIGIN);
        let port = |node| {
            let address = Address::Node(node);
            Port::new(fabric.clone(), address, fabric.rise(address), host.clock().clone())
        };
        let (a, b) = (port(A), port(B));
        a.learn(B, Vec::new());
        let mut bench = Self { fabric, host, a, b, now: Instant::ORIGIN, got: Vec::new() };
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.links(), [(A, true), (B, true)]);
        bench
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            for (to, arrivals) in self.fabric.advance(self.now, self.now) {
                for (_, delivery) in arrivals {
                    match delivery {
                        Delivery::Answer(reply) => reply.tell(),
                        kept @ (Delivery::Message { .. }
                        | Delivery::Request { .. }
                        | Delivery::Link { .. }) => self.got.push((to, kept)),
                    }
                }
            }
            self.host.step_to(self.now);
        }
    }

    /// Takes link notices: (whose, up).
    fn links(&mut self) -> Vec<(NodeId, bool)> {
        let mut links: Vec<_> = self
            .got
            .iter()
            .filter_map(|(to, delivery)| match delivery {
                Delivery::Link { up, .. } => to.map(|node| (node, *up)),
                Delivery::Message { .. } | Delivery::Request { .. } | Delivery::Answer(_) => None,
            })
            .collect();
        links.sort();
        self.got.retain(|(_, delivery)| !matches!(delivery, Delivery::Link { .. }));
        links
    }

    /// Takes the first bytes of the messages that arrived.
    fn messages(&mut self) -> Vec<u8> {
        let got = std::mem::take(&mut self.got);
        got.into_iter()
            .filter_map(|(_, delivery)| match delivery {
                Delivery::Message { bytes, .. } => bytes.first().copied(),
                Delivery::Link { .. } | Delivery::Request { .. } | Delivery::Answer(_) => None,
            })
            .collect()
    }

    fn ask(&self, port: &Port, to: NodeId) -> tokio::task::JoinHandle<Result<Bytes, RequestError>> {
        let asked = port.request(to, RequestClass::Data, Bytes::from_static(b"?"), SECOND * 5);
        self.host.inside(|| tokio::spawn(asked))
    }

    fn outcome(
        asked: tokio::task::JoinHandle<Result<Bytes, RequestError>>,
    ) -> Result<Bytes, RequestError> {
        assert!(asked.is_finished(), "still waiting");
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(asked).unwrap()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn byte(n: u8) -> Bytes {
    Bytes::from(vec![n])
}

#[test]
fn raft_messages_keep_their_order_on_one_connection() {
    let mut bench = Bench::new(Weather { spike_ppm: 300_000, ..Weather::CALM });
    for n in 0..100 {
        bench.a.send(B, Lane::Raft, byte(n)).unwrap();
    }
    bench.pass(SECOND);
    assert_eq!(bench.messages(), (0..100).collect::<Vec<_>>());
}

#[test]
fn raft_messages_wait_out_a_short_cut_in_order_and_gossip_does_not() {
    let mut bench = Bench::new(Weather::CALM);
    bench.fabric.cut(Address::Node(A), Address::Node(B));
    for n in 0..10 {
        bench.a.send(B, Lane::Raft, byte(n)).unwrap();
        bench.a.send(B, Lane::Gossip, byte(100 + n)).unwrap();
    }
    bench.pass(Duration::from_millis(300));
    assert_eq!(bench.messages(), [0_u8; 0]);
    bench.fabric.heal();
    bench.a.send(B, Lane::Raft, byte(10)).unwrap();
    bench.pass(Duration::from_millis(100));
    assert_eq!(bench.messages(), (0..=10).collect::<Vec<_>>());
}

#[test]
fn a_long_cut_ends_the_connection_on_both_sides_and_healing_brings_a_new_one() {
    let mut bench = Bench::new(Weather::CALM);
    bench.fabric.cut(Address::Node(A), Address::Node(B));
    bench.a.send(B, Lane::Raft, byte(7)).unwrap();
    let asked = bench.ask(&bench.b, A);
    bench.pass(SECOND * 4);
    assert_eq!(bench.links(), [(A, false), (B, false)]);
    assert!(matches!(Bench::outcome(asked), Err(RequestError::Lost { .. })));
    bench.got.clear();
    bench.fabric.heal();
    bench.pass(SECOND);
    assert_eq!(bench.links(), [(A, true), (B, true)]);
    assert_eq!(bench.messages(), [0_u8; 0], "a message of the old connection came through");
}

#[test]
fn a_dead_host_is_mute_and_only_its_peer_learns_that_the_link_is_gone() {
    let mut bench = Bench::new(Weather::CALM);
    bench.fabric.fall(Address::Node(B));
    assert_eq!(bench.b.send(A, Lane::Raft, byte(1)), Err(SendError::Closed));
    bench.a.send(B, Lane::Raft, byte(2)).unwrap();
    bench.pass(SECOND * 4);
    assert_eq!(bench.links(), [(A, false)]);
    let asked = bench.ask(&bench.a, B);
    bench.pass(SECOND);
    let outcome = Bench::outcome(asked);
    assert!(outcome.is_err_and(|error| error.not_sent()));
    bench.fabric.rise(Address::Node(B));
    bench.pass(SECOND);
    assert_eq!(bench.links(), [(A, true), (B, true)]);
    assert_eq!(bench.messages(), [0_u8; 0], "a parcel for the old boot reached the new one");
}

#[test]
fn a_request_is_answered_with_the_bytes_that_were_sent() {
    let mut bench = Bench::new(Weather::CALM);
    let asked = bench.ask(&bench.a, B);
    bench.pass(Duration::from_millis(10));
    let Some((_, Delivery::Request { ticket, .. })) = bench.got.pop() else { panic!("no request") };
    bench.b.answer(ticket, Bytes::from_static(b"!"));
    bench.pass(Duration::from_millis(10));
    assert_eq!(Bench::outcome(asked), Ok(Bytes::from_static(b"!")));
}

#[test]
fn a_request_without_an_answer_times_out() {
    let mut bench = Bench::new(Weather::CALM);
    let asked = bench.ask(&bench.a, B);
    bench.pass(SECOND * 6);
    assert!(matches!(Bench::outcome(asked), Err(RequestError::Timeout { .. })));
}

#[test]
fn what_the_lane_does_not_take_is_refused() {
    let bench = Bench::new(Weather::CALM);
    let large = Bytes::from(vec![0; DATAGRAM_BYTES_MAX + 1]);
    assert!(matches!(bench.a.send(B, Lane::Gossip, large), Err(SendError::TooLarge { .. })));
    let stranger = NodeId(9);
    assert_eq!(bench.a.send(stranger, Lane::Raft, byte(0)), Err(SendError::UnknownNode(stranger)));
}

#[test]
fn bad_weather_drops_doubles_and_reorders() {
    let weather = Weather {
        drop_ppm: 200_000,
        duplicate_ppm: 200_000,
        reorder_ppm: 200_000,
        ..Weather::CALM
    };
    let mut bench = Bench::new(weather);
    for n in 0..200 {
        bench.a.send(B, Lane::Raft, byte(n)).unwrap();
    }
    bench.pass(SECOND);
    let got = bench.messages();
    let mut sorted = got.clone();
    sorted.sort_unstable();
    assert_ne!(got, sorted, "nothing was reordered");
    let all = sorted.len();
    sorted.dedup();
    assert!(sorted.len() < 200, "nothing was dropped");
    assert!(sorted.len() < all, "nothing was doubled");
}

#[test]
fn a_forgotten_node_is_disconnected() {
    let mut bench = Bench::new(Weather::CALM);
    let shared = Arc::new(bench.a.clone());
    shared.forget(B);
    bench.pass(Duration::from_millis(10));
    assert_eq!(bench.links(), [(A, false), (B, false)]);
}
