//! Transcripts: a command, a line of dashes, and what every replica did.
//!
//! `REWRITE_TRANSCRIPTS=1` writes what happens now into the files; read the
//! difference before believing it. In the manner of etcd/raft's `testdata`.

use std::{fmt::Write as _, fs, path::Path};

use super::{
    show,
    world::{World, config, id},
};
use crate::{
    ids::{LogIndex, ReplicaId},
    raft::{Input, types::Configuration},
    request::WriteLevel,
};

struct Transcript {
    world: World,
    hibernate: Option<u32>,
}

fn number(words: &[&str], at: usize) -> u64 {
    words.get(at).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{words:?}: number"))
}

impl Transcript {
    fn run(&mut self, command: &str) -> String {
        let words: Vec<_> = command.split_whitespace().collect();
        let who = || ReplicaId(number(&words, 1));
        let world = &mut self.world;
        let mut said = String::new();
        match words[0] {
            "quiet" => drop(world.look()),
            "status" => said += &status(world, who()),
            "hibernate" => self.hibernate = Some(u32::try_from(number(&words, 1)).expect("small")),
            "voters" => {
                let hibernate = self.hibernate;
                *world = World::with(number(&words, 1), |it| it.hibernate_after_ticks = hibernate);
            }
            "join" => world.add(config(who()), Configuration::default()),
            "tick" => {
                for _ in 0..words.get(2).map_or(1, |word| word.parse().expect("times")) {
                    world.feed(who(), Input::Tick);
                }
            }
            "elect" => world.make_leader(who()),
            "propose" => {
                let level = match words.get(3) {
                    Some(&"memory") => WriteLevel::Memory,
                    Some(&"eventual") => WriteLevel::Eventual,
                    _ => WriteLevel::Strong,
                };
                world.propose(who(), words[2], level);
                world.ready(who());
            }
            "read" => {
                for _ in 0..words.get(2).map_or(1, |word| word.parse().expect("times")) {
                    world.read(who());
                }
                world.ready(who());
            }
            "configure" => {
                world.configure(who(), &words[2..].join(" "));
                world.ready(who());
            }
            "deliver" => deliver(world, words.get(1).map(|_| who())),
            "drop" => {
                let to = id(number(&words, 2));
                world.flying.retain(|it| (it.from, it.to) != (who(), to));
            }
            "persist" => {
                world.persist(who(), usize::MAX);
                world.ready(who());
            }
            "apply" => {
                world.apply(who(), usize::MAX);
                world.ready(who());
            }
            "settle" => world.settle(),
            "crash" => world.crash(who()),
            "start" => world.start(who()),
            "flush" => world.flush(who()),
            "trim" => world.trim(who(), LogIndex(number(&words, 2))),
            "wake" => world.feed(who(), Input::Wake),
            other => panic!("no command {other}"),
        }
        for (of, effect) in world.look() {
            writeln!(said, "{}", show::effect(of, &effect)).expect("memory");
        }
        if said.is_empty() { "ok\n".to_owned() } else { said }
    }
}

fn status(world: &World, who: ReplicaId) -> String {
    let it = world.status(who);
    let role = if it.leading { "leads" } else { "follows" };
    let (last, committed, applied) = (it.last.0, it.committed.0, it.applied.0);
    let (rounds, term) = (it.read_rounds, it.term);
    let members = show::configuration(&it.configuration);
    format!(
        "{role}, last {last}, committed {committed}, applied {applied}, \
         read rounds {rounds}, {term}\n{members}\n"
    )
}

/// Delivers what flies now (to one replica), then lets receivers think.
fn deliver(world: &mut World, only: Option<ReplicaId>) {
    let flying = std::mem::take(&mut world.flying);
    for envelope in flying {
        if only.is_none_or(|only| only == envelope.to) {
            world.deliver(envelope);
        } else {
            world.flying.push_back(envelope);
        }
    }
    for replica in world.ids() {
        if only.is_none_or(|only| only == replica) && world.up(replica) {
            world.ready(replica);
        }
    }
}

fn play(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/testdata").join(name);
    let text = fs::read_to_string(&path).expect("a transcript");
    let mut transcript = Transcript { world: World::default(), hibernate: None };
    let mut happened = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        happened += line;
        happened.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if lines.next_if_eq(&"----").is_none() {
            assert!(std::env::var_os("REWRITE_TRANSCRIPTS").is_some(), "{line}: no answer below");
        }
        while lines.next_if(|line| !line.is_empty()).is_some() {}
        happened += "----\n";
        happened += &transcript.run(line);
    }
    if std::env::var_os("REWRITE_TRANSCRIPTS").is_some() {
        fs::write(&path, happened).expect("a transcript that can be written");
        return;
    }
    for (at, (is, was)) in happened.lines().zip(text.lines()).enumerate() {
        assert_eq!(is, was, "{name} differs at line {}", at + 1);
    }
    assert_eq!(happened.lines().count(), text.lines().count(), "{name} has another length");
}

#[test]
fn a_campaign_reads_as_written() {
    play("campaign.txt");
}

#[test]
fn replication_reads_as_written() {
    play("replication.txt");
}

#[test]
fn a_snapshot_reads_as_written() {
    play("snapshot.txt");
}

#[test]
fn a_joint_change_with_restart_reads_as_written() {
    play("joint.txt");
}

#[test]
fn hibernation_reads_as_written() {
    play("hibernate.txt");
}

#[test]
fn reads_read_as_written() {
    play("reads.txt");
}
