//! What our core costs over bare raft-rs: three replicas in one thread, memory
//! for disks, 256-byte commands, proposals per second at several windows.
//!
//! Run with `cargo bench -p cluster --bench raft`. The goal is a ratio of at
//! least 0.4: the core converts entries to our own form for the log, for each
//! follower and for apply, which bare raft-rs leaves to its user.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::wildcard_enum_match_arm, reason = "most effects need no work here")]
#![expect(clippy::expect_used, reason = "a benchmark stops at the first surprise")]

use std::{collections::VecDeque, time::Instant};

use cluster::{
    ids::{ReplicaId, ShardId},
    raft::{
        Effect, Effects, Group, GroupConfig, GroupStart, Input, Ticket,
        types::{Configuration, Message},
    },
    request::WriteLevel,
};
use raft::{Config, RawNode, StateRole, eraftpb, storage::MemStorage};

const PROPOSALS: u32 = 100_000;
const COMMAND_BYTES: usize = 256;

/// Our groups, and what flies between them.
struct Ours {
    groups: Vec<Group>,
    flying: VecDeque<(ReplicaId, ReplicaId, Message)>,
    out: Effects,
    applied: u64,
}

impl Ours {
    fn new() -> Self {
        let configuration = Configuration::of_voters((1..=3).map(ReplicaId));
        let group = |number| {
            let config = GroupConfig::new(ShardId(1), ReplicaId(number), number);
            let start = GroupStart { configuration: configuration.clone(), ..Default::default() };
            Group::new(config, start).expect("a new group starts")
        };
        let groups = (1..=3).map(group).collect();
        let mut ours = Self { groups, flying: VecDeque::new(), out: Vec::new(), applied: 0 };
        while !ours.groups[0].status().leading {
            ours.step(0, Input::Tick);
            ours.pump();
        }
        ours
    }

    fn step(&mut self, at: usize, input: Input) {
        let now = cluster::units::Instant::ORIGIN;
        self.groups[at].step(now, input, &mut self.out);
    }

    /// Carries out what a group wants; true if there was anything.
    fn carry_out(&mut self, at: usize) -> bool {
        self.step(at, Input::Ready);
        let mut effects = std::mem::take(&mut self.out);
        let busy = !effects.is_empty();
        let from = ReplicaId(u64::try_from(at).unwrap_or(0) + 1);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.flying.push_back((from, to, message)),
                Effect::Persist { number, .. } => self.step(at, Input::Persisted { number }),
                Effect::Apply { entries } => {
                    if let Some(last) = entries.last() {
                        self.applied += u64::try_from(entries.len()).unwrap_or(0);
                        let index = last.index;
                        self.step(at, Input::Applied { index });
                    }
                }
                other => drop(other),
            }
        }
        busy
    }

    fn pump(&mut self) {
        loop {
            let mut busy = false;
            for at in 0..self.groups.len() {
                while self.carry_out(at) {
                    busy = true;
                }
            }
            while let Some((from, to, message)) = self.flying.pop_front() {
                let at = usize::try_from(to.0 - 1).unwrap_or(0);
                self.step(at, Input::Message { from, message });
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }
}

fn ours(window: u32) -> f64 {
    let mut ours = Ours::new();
    let begin = Instant::now();
    let mut done = 0;
    while done < PROPOSALS {
        for number in 0..window {
            let ticket = Ticket(u64::from(done + number));
            let command = vec![7; COMMAND_BYTES];
            ours.step(0, Input::Propose { ticket, command, level: WriteLevel::Strong });
        }
        ours.pump();
        done += window;
    }
    assert!(ours.groups[0].status().applied.0 > u64::from(PROPOSALS));
    f64::from(done) / begin.elapsed().as_secs_f64()
}

fn node(id: u64) -> RawNode<MemStorage> {
    let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
    let config = Config {
        id,
        election_tick: 10,
        heartbeat_tick: 2,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        pre_vote: true,
        check_quorum: true,
        ..Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, storage, &logger).expect("a new node starts")
}

/// One ready of bare raft-rs with a disk that is memory.
fn drain(node: &mut RawNode<MemStorage>, flying: &mut VecDeque<eraftpb::Message>) -> bool {
    if !node.has_ready() {
        return false;
    }
    let mut ready = node.ready();
    flying.extend(ready.take_messages());
    drop(ready.take_committed_entries());
    let storage = node.store().clone();
    storage.wl().append(ready.entries()).expect("entries follow");
    if let Some(state) = ready.hs() {
        storage.wl().set_hardstate(state.clone());
    }
    flying.extend(ready.take_persisted_messages());
    let mut light = node.advance(ready);
    flying.extend(light.take_messages());
    if let Some(commit) = light.commit_index() {
        storage.wl().mut_hard_state().set_commit(commit);
    }
    drop(light.take_committed_entries());
    node.advance_apply();
    true
}

fn pump(nodes: &mut [RawNode<MemStorage>], flying: &mut VecDeque<eraftpb::Message>) {
    loop {
        let mut busy = false;
        for node in &mut *nodes {
            while drain(node, flying) {
                busy = true;
            }
        }
        while let Some(message) = flying.pop_front() {
            let at = usize::try_from(message.to - 1).unwrap_or(0);
            // A node may refuse a stale message; nothing is lost.
            drop(nodes[at].step(message));
            busy = true;
        }
        if !busy {
            return;
        }
    }
}

fn bare(window: u32) -> f64 {
    let mut nodes: Vec<_> = (1..=3).map(node).collect();
    let mut flying = VecDeque::new();
    while nodes[0].raft.state != StateRole::Leader {
        nodes[0].tick();
        pump(&mut nodes, &mut flying);
    }
    let begin = Instant::now();
    let mut done = 0;
    while done < PROPOSALS {
        for _ in 0..window {
            nodes[0].propose(vec![], vec![7; COMMAND_BYTES]).expect("the leader takes it");
        }
        pump(&mut nodes, &mut flying);
        done += window;
        if done % 16_384 < window {
            for node in &nodes {
                let applied = node.raft.raft_log.applied;
                let keep = applied.saturating_sub(600).max(1);
                node.store().wl().compact(keep).expect("applied entries may go");
            }
        }
    }
    f64::from(done) / begin.elapsed().as_secs_f64()
}

fn main() {
    println!("three replicas, one thread, {COMMAND_BYTES} B commands, proposals per second");
    for window in [1, 8, 64, 512] {
        let (theirs, ours) = (bare(window), ours(window));
        let ratio = ours / theirs;
        println!("window {window:<4} raft-rs {theirs:>9.0}  ours {ours:>9.0}  ratio {ratio:.2}");
    }
}
