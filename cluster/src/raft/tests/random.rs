//! Random runs: seeded loss, doubling and reordering of messages, disks that
//! lag and skip completions, crashes that forget what was not synced, trims,
//! snapshots, configuration changes and sleep. After each event the invariants
//! are checked; at the end everything heals and must agree.
//!
//! A failure names its seed; `RAFT_SEED=n` runs that one alone,
//! `RAFT_SEEDS=n` more of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    show,
    world::{World, config, id},
};
use crate::{
    ids::{LogIndex, ReplicaId, Term},
    raft::{
        Effect, GroupConfig, Input, Ticket,
        elections::SplitMix,
        types::{Configuration, Entry, Message, Payload},
    },
    request::WriteLevel,
};

/// How hostile a run is, drawn from its seed.
struct Weather {
    lose: usize,
    double: usize,
    crash: usize,
    change: usize,
    cut: usize,
}

struct Run {
    world: World,
    rng: SplitMix,
    weather: Weather,
    /// Everything that was ever applied.
    log: BTreeMap<LogIndex, (Term, Payload)>,
    leaders: BTreeMap<Term, ReplicaId>,
    /// Writes under way, and the highest one a client was told of.
    writes: BTreeMap<(ReplicaId, LogIndex), Term>,
    acknowledged: LogIndex,
    /// Reads under way, and what each must see.
    reads: BTreeMap<Ticket, LogIndex>,
    reads_done: u64,
    sleeps: u64,
    snapshots: u64,
    members: u64,
    /// Configurations as the log brought them. An entry is committed under
    /// the last before it, or the one before that: the leader had not applied
    /// the last yet.
    configurations: Vec<Configuration>,
    /// Pairs that do not hear each other.
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    trace: String,
}

impl Run {
    fn new(seed: u64, voters: u64, hibernate: Option<u32>) -> Self {
        let mut rng = SplitMix::new(seed);
        let tune = |it: &mut GroupConfig| {
            it.seed = seed.wrapping_mul(31).wrapping_add(it.replica.0);
            it.hibernate_after_ticks = hibernate;
            it.memory_bytes_max = 600;
        };
        let weather = Weather {
            lose: rng.below(25),
            double: rng.below(10),
            crash: rng.below(12),
            change: rng.below(2) * 6,
            cut: rng.below(2) * 3,
        };
        let configurations = vec![Configuration::of_voters((1..=voters).map(ReplicaId))];
        Self {
            world: World::with(voters, tune),
            rng,
            weather,
            log: BTreeMap::new(),
            leaders: BTreeMap::new(),
            writes: BTreeMap::new(),
            acknowledged: LogIndex(0),
            reads: BTreeMap::new(),
            reads_done: 0,
            sleeps: 0,
            snapshots: 0,
            members: voters,
            configurations,
            cut: BTreeSet::new(),
            trace: String::new(),
        }
    }

    fn chance(&mut self, of_thousand: usize) -> bool {
        self.rng.below(1_000) < of_thousand
    }

    fn somebody(&mut self) -> ReplicaId {
        let ids = self.world.ids();
        ids[self.rng.below(ids.len())]
    }

    fn event(&mut self) {
        let who = self.somebody();
        match self.rng.below(24) {
            0..=7 => self.fly(),
            8..=9 => self.world.step(who, Input::Tick),
            10..=11 => self.write(who),
            12..=14 => {
                let some = 1 + self.rng.below(3);
                self.world.persist(who, some);
            }
            15..=16 => self.apply(who),
            17 => self.read(who),
            18..=20 => self.world.ready(who),
            21 => {
                self.world.step(who, Input::TellCommitted);
                self.world.ready(who);
            }
            22 => {
                self.world.read_back(who);
                if self.chance(300) {
                    self.world.download(who);
                }
            }
            _ => self.misfortune(who),
        }
        if self.chance(600) {
            self.world.ready(who);
        }
        self.judge();
    }

    fn fly(&mut self) {
        let flying = self.world.flying.len();
        for _ in 0..=self.rng.below(4) {
            if self.world.flying.is_empty() {
                return;
            }
            // Mostly in order, sometimes not.
            let late = if self.chance(150) { self.rng.below(flying.min(8)) } else { 0 };
            let Some(envelope) = self.world.flying.remove(late.min(self.world.flying.len() - 1))
            else {
                return;
            };
            let pair = (envelope.from.min(envelope.to), envelope.from.max(envelope.to));
            let (lose, double) = (self.weather.lose * 10, self.weather.double * 10);
            if self.cut.contains(&pair) || self.chance(lose) {
                continue;
            }
            if self.chance(double) {
                self.world.flying.push_back(envelope.clone());
            }
            let to = envelope.to;
            self.world.deliver(envelope);
            if self.chance(700) {
                self.world.ready(to);
            }
            self.judge();
        }
    }

    fn write(&mut self, who: ReplicaId) {
        let who = if self.chance(800) { self.world.leader().unwrap_or(who) } else { who };
        let level = match self.rng.below(4) {
            0 => WriteLevel::Memory,
            1 => WriteLevel::Eventual,
            _ => WriteLevel::Strong,
        };
        let word = format!("w{}", self.rng.below(1_000_000));
        self.world.propose(who, &word, level);
    }

    fn read(&mut self, who: ReplicaId) {
        if !self.world.up(who) {
            return;
        }
        let ticket = self.world.read(who);
        self.reads.insert(ticket, self.acknowledged);
    }

    fn apply(&mut self, who: ReplicaId) {
        if !self.world.up(who) {
            return;
        }
        let some = 1 + self.rng.below(5);
        for entry in self.world.apply(who, some) {
            self.check_applied(who, &entry);
            let mine = self.writes.remove(&(who, entry.index));
            if mine == Some(entry.term) {
                self.acknowledged = self.acknowledged.max(entry.index);
            }
        }
    }

    fn misfortune(&mut self, who: ReplicaId) {
        if self.chance(self.weather.crash * 8) && self.world.up(who) {
            self.world.crash(who);
            self.writes.retain(|(of, _), _| *of != who);
            self.link_lost(who);
        } else if !self.world.up(who) {
            self.world.start(who);
        } else if self.chance(300) {
            self.world.flush(who);
            let applied = self.world.at(who).disk.store.applied;
            if self.chance(500) && applied.0 > 0 {
                let index = LogIndex(1 + u64::try_from(self.rng.below(9)).unwrap_or(0)).0;
                self.world.trim(who, LogIndex(applied.0.saturating_sub(index)));
            }
        } else if self.chance(self.weather.change * 20) {
            self.change();
        } else if self.chance(self.weather.cut * 20) {
            let other = self.somebody();
            let pair = (who.min(other), who.max(other));
            if !self.cut.remove(&pair) && self.cut.len() < 2 {
                self.cut.insert(pair);
                self.world.step(who, Input::Wake);
                self.world.step(other, Input::Wake);
            }
        } else if self.chance(30) {
            self.world.step(who, Input::TransferLeader { to: None });
        }
    }

    /// The transport reports a lost link to everybody, and drops what flew on it.
    fn link_lost(&mut self, dead: ReplicaId) {
        self.world.flying.retain(|it| it.from != dead && it.to != dead);
        for other in self.world.ids() {
            self.world.step(other, Input::Wake);
        }
    }

    /// Adds a learner, promotes one, demotes or removes a replica.
    fn change(&mut self) {
        let Some(leader) = self.world.leader() else { return };
        let known = self.world.status(leader).configuration;
        let learner = known.learners.first().copied();
        let voter = known.voters[self.rng.below(known.voters.len())];
        let steps = match (self.rng.below(4), learner) {
            (0, _) if self.members < 7 => {
                self.members += 1;
                let new = id(self.members);
                let seed = self.rng.next();
                self.world.add(GroupConfig { seed, ..config(new) }, Configuration::default());
                format!("l{}", new.0)
            }
            (1, Some(learner)) => format!("v{}", learner.0),
            (2, Some(learner)) => format!("v{} l{}", learner.0, voter.0),
            (3, _) if known.voters.len() > 3 => format!("r{}", voter.0),
            _ => return,
        };
        self.world.configure(leader, &steps);
    }

    fn judge(&mut self) {
        for (of, effect) in self.world.look() {
            writeln!(self.trace, "{}", show::effect(of, &effect)).expect("memory");
            match effect {
                Effect::RoleChanged { leading: true, term, .. } => {
                    let leader = *self.leaders.entry(term).or_insert(of);
                    assert_eq!(leader, of, "two leaders in {term}");
                }
                Effect::RoleChanged { leading: false, .. } => {
                    self.writes.retain(|(who, _), _| *who != of);
                }
                Effect::Proposed { term, index, .. } => {
                    self.writes.insert((of, index), term);
                }
                Effect::ReadReady { ticket, index } => {
                    let least = self.reads.remove(&ticket).expect("a read that was asked");
                    assert!(index >= least, "{of} reads {index} after {least} was acknowledged");
                    self.reads_done += 1;
                }
                Effect::ReadFailed { ticket, .. } => drop(self.reads.remove(&ticket)),
                Effect::Hibernated => self.sleeps += 1,
                Effect::InstallSnapshot { .. } => self.snapshots += 1,
                Effect::PeerFault { from, fault } => panic!("{of} accuses {from}: {fault}"),
                _ => {}
            }
        }
    }

    /// What is applied is the same everywhere and durable on a majority,
    /// here included.
    fn check_applied(&mut self, who: ReplicaId, entry: &Entry) {
        let seen = (entry.term, entry.payload.clone());
        if let Some(known) = self.log.get(&entry.index) {
            assert_eq!(*known, seen, "{who} applied another entry at {}", entry.index);
            return;
        }
        let durable = |id: ReplicaId| {
            let replica = self.world.replicas.get(&id);
            replica.is_some_and(|it| it.disk.has(entry.index, entry.term))
        };
        assert!(durable(who), "{who} applied {} before its own disk had it", entry.index);
        let majority = self.configurations.iter().rev().take(2).any(|it| it.has_majority(durable));
        assert!(majority, "{} was applied without a durable majority", entry.index);
        if let Payload::Configuration(change) = &entry.payload
            && let Some(Ok(next)) = self.configurations.last().map(|last| last.after(change))
        {
            self.configurations.push(next);
        }
        self.log.insert(entry.index, seen);
    }

    /// Heals everything; all must agree, and go on.
    fn finish(&mut self) {
        self.cut.clear();
        for who in self.world.ids() {
            if !self.world.up(who) {
                self.world.start(who);
            }
            self.world.step(who, Input::Wake);
        }
        for round in 0..200 {
            for who in self.world.ids() {
                self.world.step(who, Input::Tick);
            }
            while let Some(envelope) = self.world.flying.pop_front() {
                self.world.deliver(envelope);
            }
            for who in self.world.ids() {
                self.world.ready(who);
                self.world.persist(who, usize::MAX);
                self.world.ready(who);
                while self.world.read_back(who) || self.world.download(who) {}
                self.apply_all(who);
            }
            self.judge();
            if round > 60 && self.agreed() {
                return;
            }
        }
        panic!("no agreement after 200 healthy ticks");
    }

    fn apply_all(&mut self, who: ReplicaId) {
        for entry in self.world.apply(who, usize::MAX) {
            self.check_applied(who, &entry);
        }
    }

    fn agreed(&self) -> bool {
        let Some(leader) = self.world.leader() else { return false };
        let status = self.world.status(leader);
        let whole = status.last == status.applied && !status.configuration.is_joint();
        whole
            && status.configuration.members().into_iter().all(|it| {
                let other = self.world.status(it);
                other.applied == status.applied && other.configuration == status.configuration
            })
    }
}

fn run(seed: u64, voters: u64, hibernate: Option<u32>, events: u32) -> Run {
    let mut run = Run::new(seed, voters, hibernate);
    for _ in 0..events {
        run.event();
    }
    run.finish();
    let acknowledged = run.acknowledged;
    assert!(run.log.range(..=acknowledged).count() as u64 >= acknowledged.0, "lost a write");
    run
}

fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("RAFT_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("RAFT_SEEDS").unwrap_or(count)).collect(),
    }
}

/// Runs many seeds and sums what they saw, so that an idle run is noticed.
fn swarm(count: u64, voters: u64, hibernate: Option<u32>, events: u32) -> (u64, u64, u64, u64) {
    let mut sums = (0, 0, 0, 0);
    for seed in seeds(count) {
        let done = std::panic::catch_unwind(|| run(seed, voters, hibernate, events));
        let Ok(done) = done else { panic!("seed {seed} failed: RAFT_SEED={seed} repeats it") };
        sums.0 += done.acknowledged.0;
        sums.1 += done.reads_done;
        sums.2 += done.sleeps;
        sums.3 += done.snapshots;
    }
    sums
}

#[test]
fn three_replicas_keep_every_invariant_in_bad_weather() {
    let (writes, reads, _, snapshots) = swarm(60, 3, None, 6_000);
    let alone = std::env::var("RAFT_SEED").is_ok();
    assert!(
        alone || (writes > 1_000 && reads > 500 && snapshots > 10),
        "{writes} {reads} {snapshots}"
    );
}

#[test]
fn five_replicas_keep_every_invariant_in_bad_weather() {
    let (writes, reads, _, snapshots) = swarm(40, 5, None, 8_000);
    let alone = std::env::var("RAFT_SEED").is_ok();
    assert!(
        alone || (writes > 500 && reads > 200 && snapshots > 10),
        "{writes} {reads} {snapshots}"
    );
}

#[test]
fn replicas_that_sleep_keep_every_invariant_in_bad_weather() {
    let (writes, _, sleeps, _) = swarm(40, 3, Some(2), 6_000);
    let alone = std::env::var("RAFT_SEED").is_ok();
    assert!(alone || (writes > 500 && sleeps > 10), "{writes} {sleeps}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let traces: Vec<_> = [5, 5, 6].map(|seed| run(seed, 3, Some(5), 2_000).trace).into();
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
    assert!(traces[0].lines().count() > 500);
}

#[test]
fn the_majority_checker_barks() {
    let mut run = Run::new(1, 3, None);
    let leader = run.world.elect();
    run.world.propose(leader, "x", WriteLevel::Strong);
    run.world.settle();
    let index = LogIndex(2);
    let (term, payload) = run.world.at(leader).store.entries[&index].clone();
    for other in run.world.ids() {
        if other != leader {
            run.world.at(other).disk.entries.remove(&index);
        }
    }
    let entry = Entry { index, term, payload };
    let barked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run.check_applied(leader, &entry);
    }));
    assert!(barked.is_err());
}

#[test]
fn the_agreement_checker_barks() {
    let mut run = Run::new(1, 3, None);
    run.log.insert(LogIndex(1), (Term(1), Payload::Empty));
    let other = Entry { index: LogIndex(1), term: Term(2), payload: Payload::Empty };
    let barked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run.check_applied(id(1), &other);
    }));
    assert!(barked.is_err());
}

#[test]
fn an_old_message_never_wakes_a_dead_term() {
    // A hibernation word of an older term is not heard.
    let mut world = World::with(3, |it| it.hibernate_after_ticks = Some(3));
    world.make_leader(id(1));
    let index = world.status(id(2)).last;
    world.look();
    let message = Message::Hibernate { term: Term(0), index };
    world.feed(id(2), Input::Message { from: id(1), message });
    assert!(!world.saw(|effect| *effect == Effect::Hibernated));
}
