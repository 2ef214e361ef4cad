//! One fact about raft-rs, or about what we put around it, per test.

use super::world::{World, config, id};
use crate::{
    ids::{Epoch, LogIndex, NodeId, ReplicaId, Term},
    raft::{
        ChangeRefusal, Effect, Effects, Group, GroupConfig, GroupError, GroupStart, Input,
        PeerFault, Ticket,
        elections::SplitMix,
        types::{
            Configuration, ConfigurationChange, ConfigurationStep, Entry, HardState, Message,
            Payload, RaftMessage, RaftMessageKind, SnapshotOffer,
        },
        wire,
    },
    request::WriteLevel,
    units::Instant,
};

fn led() -> World {
    let mut world = World::with(3, |_| {});
    world.make_leader(id(1));
    world.tick(2);
    world.look();
    world
}

fn message(kind: RaftMessageKind, term: u64) -> RaftMessage {
    RaftMessage {
        kind,
        term: Term(term),
        log_term: Term(0),
        index: LogIndex(0),
        commit: LogIndex(0),
        commit_term: Term(0),
        reject: false,
        reject_hint: LogIndex(0),
        priority: 0,
        context: Vec::new(),
        entries: Vec::new(),
    }
}

fn command(index: u64, term: u64) -> Entry {
    Entry { index: LogIndex(index), term: Term(term), payload: Payload::Command(vec![7; 64]) }
}

fn start(voters: u64) -> GroupStart {
    GroupStart {
        configuration: Configuration::of_voters((1..=voters).map(ReplicaId)),
        ..GroupStart::default()
    }
}

// Elections.

/// Ticks at which a lone voter of three asks for votes, ten times over.
fn campaigns(seed: u64) -> Vec<u32> {
    let config = GroupConfig { seed, ..config(id(1)) };
    let mut group = Group::new(config, start(3)).expect("starts");
    let mut ticks = Vec::new();
    for tick in 0..2_000 {
        let mut out = Effects::new();
        group.step(Instant::ORIGIN, Input::Tick, &mut out);
        group.step(Instant::ORIGIN, Input::Ready, &mut out);
        if out.iter().any(|effect| matches!(effect, Effect::Send { .. })) {
            ticks.push(tick);
            // A word from a leader of a new term makes raft-rs draw again.
            let term = 2 + u64::from(tick);
            let message = Message::Raft(message(RaftMessageKind::Heartbeat, term));
            out.clear();
            group.step(Instant::ORIGIN, Input::Message { from: id(2), message }, &mut out);
            group.step(Instant::ORIGIN, Input::Ready, &mut out);
            for effect in std::mem::take(&mut out) {
                if let Effect::Persist { number, .. } = effect {
                    group.step(Instant::ORIGIN, Input::Persisted { number }, &mut out);
                }
            }
        }
    }
    ticks
}

#[test]
fn election_timeouts_come_from_the_seed_alone() {
    let first = campaigns(1);
    assert!(first.len() > 60, "{}", first.len());
    assert_eq!(first, campaigns(1), "raft-rs's own generator is at work");
    assert_ne!(first, campaigns(2));
    let gaps: std::collections::BTreeSet<_> =
        first.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, (10..20).collect(), "every timeout is drawn, and no other");
}

#[test]
fn a_vote_is_durable_before_it_is_told() {
    let mut world = World::with(3, |_| {});
    let request = message(RaftMessageKind::RequestVote, 3);
    world.feed(id(2), Input::Message { from: id(1), message: Message::Raft(request) });
    assert!(world.flying.is_empty());
    assert_eq!(world.records_waiting(id(2)), 1);
    world.persist(id(2), 1);
    world.ready(id(2));
    assert_eq!(world.flying.len(), 1);
    assert_eq!(world.at(id(2)).disk.hard_state.vote, id(1));
}

#[test]
fn a_voter_that_restarts_does_not_vote_twice() {
    let mut world = World::with(3, |_| {});
    let ask = |from| Input::Message {
        from,
        message: Message::Raft(message(RaftMessageKind::RequestVote, 3)),
    };
    world.feed(id(2), ask(id(1)));
    world.persist(id(2), 1);
    world.crash(id(2));
    world.start(id(2));
    world.flying.clear();
    world.feed(id(2), ask(id(3)));
    let refused = world.flying.iter().all(|it| match &it.message {
        Message::Raft(message) => message.reject,
        _ => false,
    });
    assert!(refused && !world.flying.is_empty());
}

// Durability.

#[test]
fn hard_state_and_entries_of_one_turn_are_one_record() {
    let mut world = led();
    let append = RaftMessage {
        log_term: Term(1),
        index: LogIndex(1),
        commit: LogIndex(2),
        entries: vec![command(2, 4)],
        ..message(RaftMessageKind::Append, 4)
    };
    world.feed(id(2), Input::Message { from: id(3), message: Message::Raft(append) });
    let records: Vec<_> = world
        .look()
        .into_iter()
        .filter_map(|(_, effect)| match effect {
            Effect::Persist { hard_state, entries, .. } => Some((hard_state, entries)),
            _ => None,
        })
        .collect();
    let state = HardState { term: Term(4), vote: id(0), commit: LogIndex(2) };
    assert_eq!(records, [(Some(state), vec![command(2, 4)])]);
}

#[test]
fn a_leader_alone_on_a_slow_disk_commits_nothing() {
    let mut world = led();
    world.propose(id(1), "x", WriteLevel::Strong);
    world.ready(id(1));
    for other in [id(2), id(3)] {
        while let Some(at) = world.flying.iter().position(|it| it.to == other) {
            let envelope = world.flying.remove(at).expect("in flight");
            world.deliver(envelope);
        }
        world.ready(other);
        world.persist(other, usize::MAX);
        world.ready(other);
    }
    while let Some(envelope) = world.flying.pop_front() {
        world.deliver(envelope);
    }
    world.ready(id(1));
    // raft-rs counts both followers: committed, but not for this state machine.
    assert!(!world.saw(|effect| matches!(effect, Effect::Apply { .. })));
    world.persist(id(1), 1);
    world.ready(id(1));
    assert!(world.saw(|effect| matches!(effect, Effect::Apply { .. })));
}

#[test]
fn a_leader_whose_disk_stalls_gives_leadership_away() {
    let mut world = led();
    world.propose(id(1), "x", WriteLevel::Strong);
    for _ in 0..40 {
        world.feed(id(1), Input::Tick);
        // Everybody's disk works but the leader's.
        for _ in 0..3 {
            while let Some(envelope) = world.flying.pop_front() {
                world.deliver(envelope);
            }
            for other in [id(2), id(3)] {
                world.ready(other);
                world.persist(other, usize::MAX);
                world.ready(other);
                world.apply(other, usize::MAX);
            }
            world.ready(id(1));
        }
    }
    assert!(!world.status(id(1)).leading);
    let new = world.leader().expect("another leader");
    assert_ne!(new, id(1));
    let text = |entry: &(Term, Payload)| entry.1 == Payload::Command(b"x".to_vec());
    assert!(world.at(new).store.entries.values().any(text), "the write is lost");
}

#[test]
fn a_leader_whose_disk_stalls_alone_steps_down() {
    let mut world = World::with(3, |it| it.election_ticks = 200);
    world.make_leader_within(id(1), 800);
    world.propose(id(1), "x", WriteLevel::Strong);
    world.ready(id(1));
    world.crash(id(2));
    world.crash(id(3));
    for _ in 0..19 + 2 * 200 {
        world.feed(id(1), Input::Tick);
        world.flying.clear();
    }
    world.look();
    for _ in 0..2 {
        world.feed(id(1), Input::Tick);
    }
    assert!(!world.status(id(1)).leading);
}

#[test]
fn completions_of_several_records_may_come_as_one() {
    let mut world = led();
    for word in ["a", "b", "c"] {
        world.propose(id(1), word, WriteLevel::Strong);
        world.ready(id(1));
    }
    assert_eq!(world.records_waiting(id(1)), 3);
    world.persist(id(1), 3);
    world.settle();
    assert_eq!(world.status(id(1)).applied, LogIndex(4));
}

#[test]
fn a_completion_nobody_asked_for_breaks_the_replica() {
    let mut group = Group::new(config(id(1)), start(1)).expect("starts");
    let mut out = Effects::new();
    group.step(Instant::ORIGIN, Input::Persisted { number: 99 }, &mut out);
    assert!(matches!(out.as_slice(), [Effect::Broken { .. }]));
}

// Start.

#[test]
fn a_base_above_the_stored_commit_is_committed() {
    let begin = GroupStart {
        hard_state: HardState { term: Term(3), vote: id(0), commit: LogIndex(2) },
        base_index: LogIndex(8),
        base_term: Term(3),
        entries: vec![command(9, 3), command(10, 3)],
        applied: LogIndex(9),
        ..start(3)
    };
    let status = Group::new(config(id(1)), begin).expect("starts").status();
    assert_eq!((status.committed, status.applied), (LogIndex(9), LogIndex(9)));
    assert_eq!((status.base, status.last), (LogIndex(8), LogIndex(10)));
}

#[test]
fn a_disk_that_does_not_fit_is_refused_by_name() {
    let base = GroupStart {
        base_index: LogIndex(4),
        base_term: Term(1),
        applied: LogIndex(4),
        ..start(3)
    };
    let refusal = |begin: GroupStart| Group::new(config(id(1)), begin).expect_err("refused");
    let gap = GroupStart { entries: vec![command(6, 1)], ..base.clone() };
    assert!(matches!(refusal(gap), GroupError::Gap { .. }));
    let behind = GroupStart { applied: LogIndex(3), ..base.clone() };
    assert!(matches!(refusal(behind), GroupError::StoreBehind { .. }));
    let short = GroupStart { applied: LogIndex(5), ..base.clone() };
    assert!(matches!(refusal(short), GroupError::LogShort { .. }));
    let falls = GroupStart { entries: vec![command(5, 2), command(6, 1)], ..base.clone() };
    assert!(matches!(refusal(falls), GroupError::Entry { .. }));
    let mut twice = base;
    twice.configuration.learners = vec![id(1)];
    assert!(matches!(refusal(twice), GroupError::Configuration { .. }));
}

#[test]
fn a_joint_configuration_restarts_joint() {
    let mut configuration = Configuration::of_voters([id(1), id(2), id(4)]);
    configuration.outgoing = vec![id(1), id(2), id(3)];
    configuration.learners_next = vec![id(3)];
    let begin = GroupStart { configuration: configuration.clone(), ..GroupStart::default() };
    let group = Group::new(config(id(1)), begin).expect("starts");
    assert_eq!(group.status().configuration, configuration);
}

#[test]
fn a_lone_voter_with_entries_on_their_way_to_the_disk_does_not_campaign() {
    let mut world = World::with(1, |_| {});
    world.make_leader(id(1));
    assert_eq!(world.status(id(1)).applied, LogIndex(1));
    // As a follower with an entry that is not durable: raft-rs would assert.
    world.look();
    let append = RaftMessage {
        log_term: Term(1),
        index: LogIndex(1),
        entries: vec![command(2, 5)],
        ..message(RaftMessageKind::Append, 5)
    };
    world.feed(id(1), Input::Message { from: id(9), message: Message::Raft(append) });
    for _ in 0..40 {
        world.feed(id(1), Input::Tick);
    }
    assert!(!world.status(id(1)).leading);
    world.persist(id(1), usize::MAX);
    world.make_leader(id(1));
}

// Entries in memory and on disk.

#[test]
fn a_follower_far_behind_is_served_from_the_log_within_the_memory_budget() {
    let mut world = World::with(3, |it| it.memory_bytes_max = 2_000);
    world.make_leader(id(1));
    world.crash(id(3));
    for round in 0..200 {
        world.propose(id(1), &format!("command {round} {:0>100}", 0), WriteLevel::Strong);
        world.tick(1);
    }
    assert!(world.status(id(1)).memory_bytes <= 2_000);
    world.look();
    world.start(id(3));
    world.tick(10);
    assert!(world.saw(|effect| matches!(effect, Effect::Fetch { .. })));
    assert!(!world.saw(|effect| matches!(effect, Effect::PinSnapshot { .. })));
    assert_eq!(world.status(id(3)).last, world.status(id(1)).last);
}

#[test]
fn a_state_machine_that_lags_stops_the_intake() {
    let mut world = led();
    let big = "x".repeat(4 << 20);
    let mut dropped = false;
    for _ in 0..40 {
        world.propose(id(1), &big, WriteLevel::Strong);
        for replica in world.ids() {
            world.ready(replica);
            world.persist(replica, usize::MAX);
        }
        while let Some(envelope) = world.flying.pop_front() {
            world.deliver(envelope);
        }
        dropped |= world.saw(|effect| matches!(effect, Effect::Dropped { .. }));
        world.look();
    }
    assert!(dropped);
    assert!(world.status(id(1)).memory_bytes < 80 << 20);
    world.tick(8);
    world.propose(id(1), "small", WriteLevel::Strong);
    world.tick(4);
    let last = world.status(id(1)).last;
    assert!(world.ids().into_iter().all(|it| world.status(it).applied == last));
}

// Reads.

#[test]
fn sixty_four_readers_share_one_round() {
    let mut world = led();
    for _ in 0..64 {
        world.read(id(1));
    }
    let before = world.status(id(1)).read_rounds;
    world.ready(id(1));
    assert_eq!(world.flying.len(), 2);
    world.settle();
    let status = world.status(id(1));
    assert_eq!((status.read_rounds - before, status.reads_answered), (1, 64));
}

#[test]
fn a_read_waits_for_the_leaders_own_entry() {
    let mut world = World::with(3, |_| {});
    world.make_leader(id(1));
    world.propose(id(1), "x", WriteLevel::Strong);
    world.settle();
    // 2 takes over; its first entry does not get through.
    for _ in 0..20 {
        world.feed(id(3), Input::Tick);
    }
    world.flying.clear();
    world.crash(id(1));
    for _ in 0..25 {
        if world.status(id(2)).leading {
            break;
        }
        world.feed(id(2), Input::Tick);
        for _ in 0..2 {
            while let Some(envelope) = world.flying.pop_front() {
                world.deliver(envelope);
            }
            for other in [id(2), id(3)] {
                world.ready(other);
                world.persist(other, usize::MAX);
            }
        }
    }
    assert!(world.status(id(2)).leading);
    world.flying.clear();
    world.look();
    let ticket = world.read(id(2));
    world.ready(id(2));
    assert_eq!(world.status(id(2)).read_rounds, 0);
    world.tick(4);
    let answer = |effect: &Effect| matches!(effect, Effect::ReadReady { ticket: it, index } if *it == ticket && index.0 >= 3);
    assert!(world.saw(answer));
}

#[test]
fn reads_fail_when_the_term_moves() {
    let mut world = led();
    let ticket = world.read(id(1));
    world.ready(id(1));
    let newer = Message::Raft(message(RaftMessageKind::Heartbeat, 9));
    world.feed(id(1), Input::Message { from: id(3), message: newer });
    let leader = Some(id(3));
    assert!(world.saw(|effect| *effect == Effect::ReadFailed { ticket, leader }));
}

// Weaker levels.

#[test]
fn a_hold_of_another_term_does_not_count() {
    let mut world = led();
    let ticket = world.propose(id(1), "x", WriteLevel::Memory);
    world.ready(id(1));
    world.flying.clear();
    let held = |term| Input::Message {
        from: id(2),
        message: Message::Held { term: Term(term), index: LogIndex(2) },
    };
    world.feed(id(1), held(0));
    assert!(!world.saw(|effect| *effect == Effect::Held { ticket }));
    world.feed(id(1), held(1));
    assert!(world.saw(|effect| *effect == Effect::Held { ticket }));
}

#[test]
fn a_learners_memory_is_no_majority() {
    let mut world = led();
    world.add(config(id(4)), Configuration::default());
    world.configure(id(1), "l4");
    world.tick(6);
    let ticket = world.propose(id(1), "x", WriteLevel::Memory);
    world.ready(id(1));
    let index = world.status(id(1)).last;
    let held = |from| Input::Message { from, message: Message::Held { term: Term(1), index } };
    world.feed(id(1), held(id(4)));
    assert!(!world.saw(|effect| *effect == Effect::Held { ticket }));
    world.feed(id(1), held(id(3)));
    assert!(world.saw(|effect| *effect == Effect::Held { ticket }));
}

#[test]
fn strong_writes_cost_no_hold_messages() {
    let mut world = led();
    world.propose(id(1), "x", WriteLevel::Strong);
    world.settle();
    let hold =
        |effect: &Effect| matches!(effect, Effect::Send { message: Message::Held { .. }, .. });
    assert!(!world.saw(hold));
}

// Changes of configuration.

fn refusal(world: &mut World, steps: &str) -> ChangeRefusal {
    world.look();
    world.configure(id(1), steps);
    let refused = world.look().into_iter().find_map(|(_, effect)| match effect {
        Effect::Refused { why, .. } => Some(why),
        _ => None,
    });
    refused.expect("a refusal")
}

#[test]
fn a_leader_without_a_commit_of_its_term_changes_nothing() {
    let mut world = World::with(3, |_| {});
    for _ in 0..20 {
        world.feed(id(1), Input::Tick);
        for _ in 0..2 {
            while let Some(envelope) = world.flying.pop_front() {
                world.deliver(envelope);
            }
            for replica in world.ids() {
                if !world.status(id(1)).leading {
                    world.feed(replica, Input::Ready);
                    world.persist(replica, usize::MAX);
                    world.ready(replica);
                }
            }
        }
        if world.status(id(1)).leading {
            break;
        }
    }
    assert!(world.status(id(1)).leading);
    assert_eq!(refusal(&mut world, "l4"), ChangeRefusal::NotReady);
}

#[test]
fn changes_are_judged_before_they_are_proposed() {
    let mut world = led();
    assert_eq!(refusal(&mut world, "v4"), ChangeRefusal::NotLearner(id(4)));
    assert!(matches!(refusal(&mut world, "r1 r2 r3"), ChangeRefusal::Invalid(_)));
    assert!(matches!(refusal(&mut world, ""), ChangeRefusal::Invalid(_)));
    let change = ConfigurationChange {
        epoch: Epoch(0),
        steps: vec![ConfigurationStep::Learner(id(4), NodeId(4))],
    };
    world.step(id(1), Input::Configure { ticket: Ticket(77), change });
    let stale = |effect: &Effect| {
        matches!(effect, Effect::Refused { why: ChangeRefusal::StaleEpoch { .. }, .. })
    };
    assert!(world.saw(stale));
    world.configure(id(1), "l4");
    assert_eq!(refusal(&mut world, "l5"), ChangeRefusal::Pending);
    world.settle();
    // 4 never came up: it lags.
    assert!(matches!(refusal(&mut world, "v4"), ChangeRefusal::Lagging { .. }));
}

#[test]
fn every_change_ends_in_a_configuration_that_is_not_joint() {
    let mut world = led();
    world.add(config(id(4)), Configuration::default());
    for steps in ["l4", "v4", "l2", "r2"] {
        world.configure(id(1), steps);
        world.tick(8);
    }
    let status = world.status(id(1));
    assert_eq!(status.configuration, Configuration::of_voters([id(1), id(3), id(4)]));
    assert_eq!(status.epoch, Epoch(8), "entering and leaving are an epoch each");
}

#[test]
fn a_leader_that_loses_its_vote_hands_over_first() {
    let mut world = led();
    world.configure(id(1), "r1");
    for _ in 0..6 {
        world.tick(4);
    }
    let leader = world.leader().expect("a leader");
    assert_ne!(leader, id(1));
    let wanted = Configuration::of_voters([id(2), id(3)]);
    assert_eq!(world.status(leader).configuration, wanted);
    assert_eq!(world.status(leader).term, Term(2), "handed over in one election");
}

#[test]
fn our_rules_of_change_are_those_of_raft_rs() {
    // The core compares both at each change and breaks on a difference.
    for seed in 0..40 {
        let mut rng = SplitMix::new(seed);
        let mut world = World::with(3, |_| {});
        for new in 4..=6 {
            world.add(config(id(new)), Configuration::default());
        }
        world.make_leader(id(1));
        for _ in 0..12 {
            let Some(leader) = world.leader() else { break };
            let count = 1 + rng.below(3);
            let one = |rng: &mut SplitMix| {
                format!("{}{}", ["l", "v", "r"][rng.below(3)], 1 + rng.below(6))
            };
            let steps: Vec<_> = (0..count).map(|_| one(&mut rng)).collect();
            world.configure(leader, &steps.join(" "));
            world.tick(6);
        }
    }
}

#[test]
fn a_replica_without_a_configuration_takes_no_entries_before_a_snapshot() {
    let mut world = led();
    world.add(config(id(4)), Configuration::default());
    world.configure(id(1), "l4");
    world.tick(6);
    let effects = world.look();
    let first = |want: fn(&Effect) -> bool| {
        effects.iter().position(|(of, effect)| *of == id(4) && want(effect))
    };
    let installed = first(|it| matches!(it, Effect::InstallSnapshot { .. }));
    let written = first(|it| matches!(it, Effect::Persist { entries, .. } if !entries.is_empty()));
    assert!(installed.is_some() && installed < written, "{installed:?} {written:?}");
    assert_eq!(world.status(id(4)).applied, world.status(id(1)).applied);
}

// Snapshots.

/// Replica 3 missed entries that are trimmed; the leader offered a snapshot.
fn offered() -> World {
    let mut world = led();
    world.crash(id(3));
    for word in ["a", "b", "c"] {
        world.propose(id(1), word, WriteLevel::Strong);
        world.settle();
    }
    world.flush(id(1));
    world.trim(id(1), LogIndex(3));
    world.start(id(3));
    world.look();
    for _ in 0..8 {
        world.feed(id(1), Input::Tick);
        while let Some(envelope) = world.flying.pop_front() {
            world.deliver(envelope);
            for replica in world.ids() {
                world.ready(replica);
                world.persist(replica, usize::MAX);
                world.ready(replica);
            }
        }
    }
    assert!(world.status(id(1)).peers[1].snapshot);
    world
}

#[test]
fn an_offer_to_a_silent_follower_is_given_up_and_its_pin_freed() {
    let mut world = offered();
    world.crash(id(3));
    world.look();
    let mut offers = 0;
    for tick in 0..700 {
        world.feed(id(1), Input::Tick);
        world.feed(id(2), Input::Tick);
        let of = |effect: &Effect| {
            matches!(effect, Effect::Send { message: Message::SnapshotOffer(_), .. })
        };
        offers += usize::from(world.saw(of));
        if world.saw(|effect| matches!(effect, Effect::UnpinSnapshot { .. })) {
            assert!(offers >= 50, "offers are repeated");
            assert!(tick >= 550, "whoever is back within a minute goes on: {tick}");
            assert!(!world.status(id(1)).peers[1].snapshot, "raft-rs was told");
            return;
        }
        world.look();
        world.settle();
    }
    panic!("the pin is still held");
}

#[test]
fn a_failed_fetch_is_reported_and_tried_again() {
    let mut world = offered();
    let (from, offer) = world.at(id(3)).downloads.pop_front().expect("a fetch");
    world.feed(id(3), Input::SnapshotFailed { from, id: offer.id });
    world.tick(8);
    assert_eq!(world.status(id(3)).applied, world.status(id(1)).applied);
}

#[test]
fn a_fetched_snapshot_survives_a_change_of_leader() {
    let mut world = offered();
    let from = id(1);
    let offer = world.at(id(3)).downloads[0].1.clone();
    // A new leader speaks before the fetch ends.
    let newer = Message::Raft(message(RaftMessageKind::Heartbeat, 9));
    world.feed(id(3), Input::Message { from: id(2), message: newer });
    world.download(id(3));
    world.look();
    world.ready(id(3));
    assert!(world.saw(|effect| matches!(effect, Effect::InstallSnapshot { .. })));
    // No election while the record is under way, however long that takes.
    for _ in 0..50 {
        world.feed(id(3), Input::Tick);
    }
    world.persist(id(3), usize::MAX);
    assert_eq!(world.status(id(3)).applied, offer.index);
    let told = |effect: &Effect| matches!(effect, Effect::Send { to, message: Message::SnapshotResult { installed: true, .. } } if *to == from);
    assert!(world.saw(told));
}

#[test]
fn an_offer_of_a_position_already_passed_is_answered_and_dropped() {
    let mut world = led();
    world.propose(id(1), "x", WriteLevel::Strong);
    world.tick(3);
    world.look();
    let offer = SnapshotOffer {
        id: 5,
        term: Term(1),
        index: LogIndex(1),
        index_term: Term(1),
        configuration: Configuration::of_voters((1..=3).map(ReplicaId)),
    };
    world.feed(id(2), Input::Message { from: id(1), message: Message::SnapshotOffer(offer) });
    let message = Message::SnapshotResult { id: 5, installed: true };
    assert!(world.saw(|effect| *effect == Effect::Send { to: id(1), message: message.clone() }));
    assert!(!world.saw(|effect| matches!(effect, Effect::FetchSnapshot { .. })));
}

// Faults of peers.

fn fault(world: &mut World, to: u64, from: u64, message: RaftMessage) -> Option<PeerFault> {
    world.look();
    world.feed(id(to), Input::Message { from: id(from), message: Message::Raft(message) });
    world.look().into_iter().find_map(|(_, effect)| match effect {
        Effect::PeerFault { fault, .. } => Some(fault),
        _ => None,
    })
}

#[test]
fn what_no_honest_peer_says_is_named_and_harms_nobody() {
    use RaftMessageKind::{Append, AppendResponse, Heartbeat, RequestVote, TransferLeader};
    let mut world = led();
    let at = |index, log_term| RaftMessage {
        index: LogIndex(index),
        log_term: Term(log_term),
        ..message(Append, 1)
    };
    let with = |entries: Vec<Entry>| RaftMessage { entries, ..at(1, 1) };
    let commit = RaftMessage { commit: LogIndex(50), ..message(Heartbeat, 1) };
    assert!(matches!(fault(&mut world, 2, 1, commit), Some(PeerFault::CommitBeyondLog { .. })));
    assert!(matches!(fault(&mut world, 2, 1, at(1, 9)), Some(PeerFault::Contradiction(_))));
    let gap = with(vec![command(3, 1)]);
    assert!(matches!(fault(&mut world, 2, 1, gap), Some(PeerFault::Gap(_))));
    let future = with(vec![command(2, 8)]);
    assert!(matches!(fault(&mut world, 2, 1, future), Some(PeerFault::TermOrder { .. })));
    let empty = with(vec![Entry { payload: Payload::Command(Vec::new()), ..command(2, 1) }]);
    assert!(matches!(fault(&mut world, 2, 1, empty), Some(PeerFault::EmptyCommand { .. })));
    assert!(matches!(fault(&mut world, 2, 3, at(1, 1)), Some(PeerFault::TwoLeaders { .. })));
    assert!(matches!(fault(&mut world, 1, 3, at(1, 1)), Some(PeerFault::TwoLeaders { .. })));
    let ack = RaftMessage { index: LogIndex(90), ..message(AppendResponse, 1) };
    assert!(matches!(fault(&mut world, 1, 2, ack), Some(PeerFault::AckBeyondLog { .. })));
    let local = message(RequestVote, 0);
    assert_eq!(fault(&mut world, 2, 1, local), Some(PeerFault::NoTerm));
    let huge = message(RequestVote, u64::MAX);
    assert_eq!(fault(&mut world, 2, 1, huge), Some(PeerFault::Overflow));
    let transfer = message(TransferLeader, 1);
    assert_eq!(fault(&mut world, 2, 1, transfer), Some(PeerFault::Kind(TransferLeader)));
    let carrying = RaftMessage { entries: vec![command(1, 1)], ..message(Heartbeat, 1) };
    assert_eq!(fault(&mut world, 2, 1, carrying), Some(PeerFault::Content(Heartbeat)));
    let own = message(Heartbeat, 1);
    assert_eq!(fault(&mut world, 2, 2, own), Some(PeerFault::WrongSender(id(2))));
    world.propose(id(1), "still well", WriteLevel::Strong);
    world.tick(4);
    assert!(world.ids().into_iter().all(|it| world.status(it).applied == LogIndex(2)));
}

#[test]
fn noise_from_a_peer_never_panics() {
    use RaftMessageKind as Kind;
    let kinds = [
        Kind::Append,
        Kind::AppendResponse,
        Kind::RequestVoteResponse,
        Kind::Heartbeat,
        Kind::HeartbeatResponse,
        Kind::TransferLeader,
        Kind::TimeoutNow,
        Kind::RequestPreVote,
        Kind::RequestPreVoteResponse,
    ];
    for seed in 0..300 {
        let mut rng = SplitMix::new(seed);
        let mut world = led();
        for word in ["a", "b", "c"] {
            world.propose(id(1), word, WriteLevel::Strong);
            world.settle();
        }
        for _ in 0..60 {
            let mut small = || u64::try_from(rng.below(7)).unwrap_or(0);
            let entries = (0..small() / 3).map(|at| command(at + 5, 1 + at / 2)).collect();
            let noise = RaftMessage {
                log_term: Term(small()),
                index: LogIndex(small()),
                commit: LogIndex(small()),
                commit_term: Term(small()),
                reject: small() < 3,
                reject_hint: LogIndex(small()),
                entries,
                ..message(kinds[usize::try_from(small()).unwrap_or(0)], small())
            };
            let (to, from) = (1 + small() % 3, 1 + small() % 4);
            world.step(id(to), Input::Message { from: id(from), message: Message::Raft(noise) });
            if rng.below(3) == 0 {
                world.ready(id(to));
                world.persist(id(to), usize::MAX);
                world.step(id(to), Input::Tick);
            }
        }
    }
}

// Sleep.

fn asleep() -> World {
    let mut world = World::with(3, |it| it.hibernate_after_ticks = Some(5));
    world.make_leader(id(1));
    world.tick(20);
    assert!(world.ids().into_iter().all(|it| world.status(it).hibernating));
    world.look();
    world
}

#[test]
fn a_sleeping_shard_neither_speaks_nor_ticks() {
    let mut world = asleep();
    for replica in world.ids() {
        for _ in 0..100 {
            world.feed(replica, Input::Tick);
        }
    }
    assert!(world.look().is_empty());
}

#[test]
fn a_read_wakes_a_sleeping_leader() {
    let mut world = asleep();
    let ticket = world.read(id(1));
    world.settle();
    assert!(
        world.saw(|effect| matches!(effect, Effect::ReadReady { ticket: it, .. } if *it == ticket))
    );
}

#[test]
fn a_follower_that_wakes_wakes_its_leader_without_an_election() {
    let mut world = asleep();
    world.feed(id(3), Input::Wake);
    world.tick(3);
    assert!(!world.status(id(1)).hibernating);
    assert_eq!((world.leader(), world.status(id(1)).term), (Some(id(1)), Term(1)));
    world.tick(20);
    assert!(world.status(id(1)).hibernating, "and it sleeps again");
}

#[test]
fn a_quiet_leader_tells_its_followers_of_a_commit_once() {
    let mut world = World::with(3, |_| {});
    world.make_leader(id(1));
    let committed = |world: &mut World, who| world.status(id(who)).committed;
    let owes =
        |world: &mut World, who| world.at(id(who)).group.as_ref().is_some_and(Group::owes_commit);
    world.propose(id(1), "a", WriteLevel::Strong);
    world.feed(id(1), Input::TellCommitted);
    world.settle();
    let last = world.status(id(1)).last;
    assert_eq!(committed(&mut world, 1), last);
    assert!(committed(&mut world, 2) < last, "while it was on its way nobody was told");
    assert!(owes(&mut world, 1));
    world.feed(id(1), Input::TellCommitted);
    assert!(!owes(&mut world, 1), "it was told, though nobody answered yet");
    world.settle();
    assert_eq!([2, 3].map(|who| committed(&mut world, who)), [last; 2]);
    assert!(!owes(&mut world, 2), "a follower owes nobody");
    world.look();
    world.feed(id(1), Input::TellCommitted);
    assert!(!world.saw(|effect| matches!(effect, Effect::Send { .. })), "nothing is new");
}

#[test]
fn a_dead_leader_of_a_sleeping_shard_is_replaced() {
    let mut world = asleep();
    world.crash(id(1));
    for other in [id(2), id(3)] {
        world.feed(other, Input::Wake);
    }
    world.tick(40);
    let leader = world.leader().expect("another leader");
    assert_ne!(leader, id(1));
}

#[test]
fn one_member_that_does_not_agree_keeps_the_shard_awake() {
    let mut world = World::with(3, |it| {
        it.hibernate_after_ticks = (it.replica != id(3)).then_some(5);
    });
    world.make_leader(id(1));
    for _ in 0..60 {
        world.tick(1);
        assert_eq!(world.leader(), Some(id(1)));
        assert_eq!(world.status(id(1)).term, Term(1));
    }
    assert!(!world.status(id(1)).hibernating);
}

#[test]
fn a_dead_member_keeps_the_shard_awake() {
    let mut world = World::with(3, |it| it.hibernate_after_ticks = Some(5));
    world.make_leader(id(1));
    world.crash(id(3));
    world.tick(60);
    assert!(!world.status(id(1)).hibernating);
}

// Forms.

#[test]
fn entries_and_messages_come_back_as_they_went() {
    let change = ConfigurationChange {
        epoch: Epoch(4),
        steps: vec![ConfigurationStep::Voter(id(4), NodeId(44)), ConfigurationStep::Remove(id(2))],
    };
    let leave = ConfigurationChange { epoch: Epoch(5), steps: Vec::new() };
    let entries = vec![
        Entry { payload: Payload::Empty, ..command(5, 2) },
        command(6, 2),
        Entry { payload: Payload::Configuration(change), ..command(7, 3) },
        Entry { payload: Payload::Configuration(leave), ..command(8, 3) },
    ];
    let sent = RaftMessage {
        log_term: Term(2),
        index: LogIndex(4),
        commit: LogIndex(3),
        entries,
        ..message(RaftMessageKind::Append, 3)
    };
    let raw = wire::message_to_raft(id(1), id(2), sent.clone()).expect("sound");
    assert_eq!(wire::message_from_raft(&raw).expect("sound"), Some(sent));
}

#[test]
fn a_transferred_leadership_keeps_its_mark_on_the_wire() {
    let sent = RaftMessage {
        context: b"CampaignTransfer".to_vec(),
        ..message(RaftMessageKind::RequestVote, 3)
    };
    let raw = wire::message_to_raft(id(1), id(2), sent.clone()).expect("sound");
    assert_eq!(wire::message_from_raft(&raw).expect("sound"), Some(sent));
}
