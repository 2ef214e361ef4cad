//! The core in a small simulated world: a clock, links that lose, delay and
//! break, and nodes that stop and start.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// Bound stated in the decision record: links lose a fifth of all datagrams,
/// and still everybody sees everybody this long after the last fault.
const REJOIN_BOUND: Duration = Duration::from_secs(20);
/// Without loss a stopped node is missed by all within this time.
const DETECTION_BOUND: Duration = Duration::from_secs(10);

enum Event {
    Datagram { to: NodeId, from: NodeId, bytes: Bytes },
    Timer { at: NodeId, start: u64, timer: SwimTimer },
}

struct World {
    now: Instant,
    rng: StdRng,
    nodes: BTreeMap<NodeId, (u64, Swim)>,
    roster: Roster,
    queue: BTreeMap<(Instant, u64), Event>,
    queued: u64,
    lost_percent: u32,
    /// Nodes on the other side of a partition.
    apart: BTreeSet<NodeId>,
    sent: BTreeMap<NodeId, u64>,
    trace: Vec<String>,
}

fn n(number: u128) -> NodeId {
    NodeId(number << 96)
}

impl World {
    fn new(seed: u64, nodes: u128) -> Self {
        let active = (1..=nodes).map(|number| (n(number), Incarnation(1))).collect();
        let mut world = Self {
            now: Instant::ORIGIN,
            rng: StdRng::seed_from_u64(seed),
            nodes: BTreeMap::new(),
            roster: Roster { active, removed: BTreeSet::new() },
            queue: BTreeMap::new(),
            queued: 0,
            lost_percent: 0,
            apart: BTreeSet::new(),
            sent: BTreeMap::new(),
            trace: Vec::new(),
        };
        for number in 1..=nodes {
            world.start(n(number), 1);
        }
        world
    }

    fn start(&mut self, node: NodeId, incarnation: u64) {
        let seed = self.rng.random();
        let (roster, now) = (self.roster.clone(), self.now);
        let birth = Birth { node, incarnation: Incarnation(incarnation), seed, roster, now };
        self.nodes.insert(node, (incarnation, Swim::new(birth)));
        self.step(node, Input::Start);
    }

    fn stop(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    fn step(&mut self, node: NodeId, input: Input<'_>) {
        let Some((start, swim)) = self.nodes.get_mut(&node) else { return };
        let start = *start;
        let mut effects = Vec::new();
        swim.step(self.now, input, &mut effects);
        for effect in effects {
            self.run(node, start, effect);
        }
    }

    fn run(&mut self, node: NodeId, start: u64, effect: Effect) {
        let at = self.now.as_nanos() / 1_000_000;
        match effect {
            Effect::Send { to, bytes } => {
                assert!(bytes.len() <= crate::limits::DATAGRAM_BYTES_MAX);
                *self.sent.entry(node).or_default() += 1;
                let parted = self.apart.contains(&node) != self.apart.contains(&to);
                let lost = self.rng.random_range(0..100) < self.lost_percent;
                let delay = Duration::from_millis(self.rng.random_range(1..=20));
                if !parted && !lost {
                    self.push(delay, Event::Datagram { to, from: node, bytes });
                }
            }
            Effect::Arm { after, timer } => {
                self.push(after, Event::Timer { at: node, start, timer });
            }
            Effect::MemberUp { node: seen, incarnation } => {
                self.trace.push(format!("{at:>6} ms {node} sees {seen} {incarnation}"));
            }
            Effect::MemberDown { node: missed } => {
                self.trace.push(format!("{at:>6} ms {node} misses {missed}"));
            }
            Effect::Report(report) => {
                self.trace.push(format!("{at:>6} ms {node} reports {report:?}"));
            }
        }
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.queue.insert((self.now + after, self.queued), event);
        self.queued += 1;
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            match event {
                Event::Datagram { to, from, bytes } => {
                    self.step(to, Input::Datagram { from, bytes: &bytes });
                }
                // Timers die with the process that armed them.
                Event::Timer { at, start, timer } => {
                    if self.nodes.get(&at).is_some_and(|(running, _)| *running == start) {
                        self.step(at, Input::Timer(timer));
                    }
                }
            }
        }
        self.now = end;
    }

    /// Runs until `done`, at most for `bound`; how long it took.
    fn run_until(&mut self, bound: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let from = self.now;
        while self.now.since(from) < bound {
            if done(self) {
                return Some(self.now.since(from));
            }
            self.run_for(Duration::from_millis(100));
        }
        done(self).then_some(bound)
    }

    fn sees(&self, node: NodeId) -> BTreeSet<NodeId> {
        self.nodes[&node].1.live().nodes()
    }

    /// Everybody that runs sees everybody that runs, at its present start.
    fn whole(&self) -> bool {
        let running: BTreeMap<_, _> =
            self.nodes.iter().map(|(n, (start, _))| (*n, *start)).collect();
        self.nodes.values().all(|(_, swim)| {
            let seen = swim.live().up.iter().map(|(n, up)| (*n, up.incarnation.0));
            seen.collect::<BTreeMap<_, _>>() == running
        })
    }
}

fn whole_world(seed: u64, nodes: u128) -> World {
    let mut world = World::new(seed, nodes);
    world.run_until(REJOIN_BOUND, World::whole).expect("a quiet world becomes whole");
    world
}

#[test]
fn three_nodes_meet_miss_one_and_meet_it_again() {
    let mut world = whole_world(1, 3);
    world.stop(n(3));
    world.run_for(DETECTION_BOUND);
    assert_eq!(world.sees(n(1)), BTreeSet::from([n(1), n(2)]));
    assert_eq!(world.sees(n(2)), BTreeSet::from([n(1), n(2)]));
    world.start(n(3), 2);
    world.run_for(Duration::from_secs(3));
    assert!(world.whole());
    let transcript = world.trace.join("\n") + "\n";
    assert_eq!(transcript, include_str!("../testdata/meet_and_miss.txt"), "got:\n{transcript}");
}

#[test]
fn nodes_meet_although_links_lose_a_fifth() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5);
        world.lost_percent = 20;
        assert!(world.run_until(REJOIN_BOUND, World::whole).is_some(), "seed {seed}");
    }
}

#[test]
fn a_stopped_node_is_missed_by_all_in_bounded_time() {
    for (seed, nodes) in (0..10).zip([3, 3, 5, 5, 5, 7, 7, 9, 9, 9]) {
        let mut world = whole_world(seed, nodes);
        world.stop(n(2));
        let bound = DETECTION_BOUND + Duration::from_secs(u64::try_from(nodes).unwrap());
        let took = world.run_until(bound, World::whole);
        println!("{nodes} nodes missed one after {took:?}");
        assert!(took.is_some(), "seed {seed}: {:#?}", world.trace);
    }
}

#[test]
fn a_restart_is_seen_before_the_node_was_missed() {
    let mut world = whole_world(3, 5);
    world.stop(n(4));
    world.run_for(Duration::from_millis(300));
    world.start(n(4), 2);
    let took = world.run_until(Duration::from_secs(5), World::whole);
    assert!(took.is_some(), "{:#?}", world.trace);
    assert!(!world.trace.iter().any(|line| line.contains("misses")), "{:#?}", world.trace);
}

#[test]
fn everybody_sees_everybody_again_after_a_partition() {
    let mut worst = Duration::ZERO;
    for seed in 0..30 {
        let mut world = whole_world(seed, 5);
        world.lost_percent = 20;
        world.apart = BTreeSet::from([n(1), n(2)]);
        world.run_for(Duration::from_mins(1));
        assert!(world.sees(n(1)).is_subset(&world.apart), "seed {seed}");
        assert!(world.sees(n(5)).is_disjoint(&world.apart), "seed {seed}");
        world.apart.clear();
        let took = world.run_until(REJOIN_BOUND, World::whole);
        worst = worst.max(took.unwrap_or_else(|| panic!("seed {seed}: {:#?}", world.trace)));
    }
    assert!(worst > Duration::ZERO);
    println!("slowest of 30 heals: {worst:?}");
}

#[test]
fn a_node_alone_finds_the_others_when_its_link_comes_up() {
    let mut world = whole_world(8, 3);
    world.apart = BTreeSet::from([n(3)]);
    world.run_for(Duration::from_mins(1));
    assert_eq!(world.sees(n(3)), BTreeSet::from([n(3)]));
    world.apart.clear();
    for (a, b) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
        world.step(n(a), Input::LinkUp(n(b)));
    }
    assert!(world.run_until(Duration::from_secs(6), World::whole).is_some());
}

#[test]
fn a_lost_first_datagram_is_repeated() {
    let mut world = World::new(5, 2);
    world.queue.retain(|_, event| matches!(event, Event::Timer { .. }));
    assert!(world.run_until(Duration::from_secs(4), World::whole).is_some());
}

#[test]
fn a_node_that_leaves_is_missed_at_once() {
    let mut world = whole_world(6, 5);
    world.step(n(2), Input::Leave);
    world.stop(n(2));
    assert!(world.run_until(Duration::from_secs(2), World::whole).is_some());
}

#[test]
fn a_removed_node_never_returns_by_gossip() {
    let mut world = whole_world(7, 5);
    world.roster.active.remove(&n(5));
    world.roster.removed.insert(n(5));
    // The removed node itself and n4 have not heard of it: n4 keeps gossiping
    // about n5, and n5 keeps announcing itself.
    for node in [n(1), n(2), n(3)] {
        world.step(node, Input::Roster(world.roster.clone()));
    }
    for _ in 0..60 {
        world.run_for(Duration::from_secs(1));
        for node in [n(1), n(2), n(3)] {
            assert!(!world.sees(node).contains(&n(5)));
        }
    }
    assert!(world.sees(n(1)).contains(&n(4)), "{:#?}", world.trace);
    world.step(n(5), Input::Roster(world.roster.clone()));
    assert!(world.trace.last().is_some_and(|line| line.contains("reports Removed")));
    let sent = world.sent[&n(5)];
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.sent[&n(5)], sent, "a removed node keeps silent");
}

#[test]
fn a_node_joins_before_its_own_catalog_names_it() {
    let mut world = whole_world(13, 3);
    // n4 has the members its admission named; the others do not know n4 yet.
    let whole = world.roster.clone();
    world.start(n(4), 1);
    world.run_for(Duration::from_secs(5));
    assert!(!world.sees(n(1)).contains(&n(4)));
    world.roster.active.insert(n(4), Incarnation(1));
    assert!(!whole.active.contains_key(&n(4)));
    for node in [n(1), n(2), n(3)] {
        world.step(node, Input::Roster(world.roster.clone()));
    }
    let took = world.run_until(Duration::from_secs(1), World::whole);
    assert!(took.is_some(), "{:#?}", world.trace);
    // A false suspicion is refuted by a node its own roster does not name.
    world.apart = BTreeSet::from([n(4)]);
    world.run_for(Duration::from_millis(2_500));
    world.apart.clear();
    world.run_for(Duration::from_secs(10));
    assert!(world.whole(), "{:#?}", world.trace);
    assert!(!world.trace.iter().any(|line| line.contains("misses")), "{:#?}", world.trace);
}

/// A datagram of `from` to n1 with updates about `members`.
fn gossip(from: Identity, members: &[Identity]) -> Vec<u8> {
    use foca::Codec;
    let mut codec = PostcardCodec;
    let dst = Identity::new(n(1), Incarnation(1));
    let header =
        foca::Header { src: from, src_incarnation: 0, dst, message: foca::Message::Gossip };
    let mut body = Vec::new();
    codec.encode_header(&header, &mut body).unwrap();
    body.extend_from_slice(&u16::try_from(members.len()).unwrap().to_be_bytes());
    for member in members {
        codec.encode_member(&Member::alive(*member), &mut body).unwrap();
    }
    seal(&body)
}

#[test]
fn gossip_about_strangers_and_forged_starts_is_passed_over() {
    let mut world = World::new(9, 3);
    world.nodes.retain(|node, _| *node == n(1));
    world.queue.clear();
    let from = Identity::new(n(2), Incarnation(1));
    let stranger = Identity::new(n(99), Incarnation(1));
    let forged = Identity::new(n(3), Incarnation(u64::MAX));
    let worn = Identity { renewal: u32::MAX, ..Identity::new(n(3), Incarnation(1)) };
    let bytes = gossip(from, &[stranger, forged, worn]);
    world.step(n(1), Input::Datagram { from: n(2), bytes: &bytes });
    assert_eq!(world.sees(n(1)), BTreeSet::from([n(1), n(2)]));
    let honest = Identity::new(n(3), Incarnation(4));
    let bytes = gossip(from, &[stranger, honest]);
    world.step(n(1), Input::Datagram { from: n(2), bytes: &bytes });
    assert_eq!(world.sees(n(1)), BTreeSet::from([n(1), n(2), n(3)]));
}

#[test]
fn broken_datagrams_are_reported_and_change_nothing() {
    let mut world = World::new(10, 3);
    world.nodes.retain(|node, _| *node == n(1));
    let good = gossip(Identity::new(n(2), Incarnation(1)), &[]);
    let mut newer = good.clone();
    newer[0] = 9;
    let mut long = good.clone();
    long.resize(1_101, 0);
    let mut tail = good.clone();
    tail.push(0);
    let stranger = gossip(Identity::new(n(99), Incarnation(1)), &[]);
    let cases: [(NodeId, &[u8], &str); 7] = [
        (n(3), &good, "Sender"),
        (n(99), &stranger, "Stranger"),
        (n(2), &newer, "Version(9)"),
        (n(2), &long, "TooLarge"),
        (n(2), &tail, "Malformed"),
        (n(2), &good[..good.len() - 1], "Malformed"),
        (n(2), &[], "Malformed"),
    ];
    for (from, bytes, fault) in cases {
        world.step(n(1), Input::Datagram { from, bytes });
        let last = world.trace.last().unwrap();
        assert!(last.contains("PeerFault") && last.contains(fault), "{last} is not {fault}");
    }
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
        world.step(n(1), Input::Datagram { from: n(2), bytes: &bytes });
    }
    assert_eq!(world.sees(n(1)), BTreeSet::from([n(1)]));
}

#[test]
fn a_restart_storm_costs_each_node_a_bounded_number_of_datagrams() {
    let mut world = whole_world(11, 20);
    for round in 2..=6 {
        for number in 1..=20 {
            world.stop(n(number));
        }
        for number in 1..=20 {
            world.start(n(number), round);
        }
        world.sent.clear();
        world.run_for(Duration::from_secs(5));
        let most = world.sent.values().max().copied().unwrap_or(0);
        println!("{most} datagrams in the first five seconds");
        // Probes and acks, gossip of three per 200 ms, announcements.
        assert!(most <= 5 * 40, "{most} datagrams in five seconds");
    }
    assert!(world.run_until(REJOIN_BOUND, World::whole).is_some());
}

#[test]
fn a_quiet_cluster_costs_few_datagrams() {
    let mut world = whole_world(12, 3);
    world.run_for(Duration::from_secs(30));
    world.sent.clear();
    world.run_for(Duration::from_mins(1));
    let most = world.sent.values().max().copied().unwrap_or(0);
    println!("{most} datagrams in a quiet minute");
    assert!(most <= 60 * 4, "{most} datagrams in a minute");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(seed, 5);
        world.lost_percent = 30;
        world.run_for(Duration::from_mins(1));
        (world.trace, world.sent)
    };
    assert_eq!(trace(4), trace(4));
    assert_ne!(trace(4), trace(5));
}
