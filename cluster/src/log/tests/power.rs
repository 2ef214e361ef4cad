//! Power cuts by the thousand: a random workload, a cut at a random moment, a
//! recovery that is itself cut, and the question what is left.

use super::{
    oracle::{Model, judge_cut, judge_damage, tell},
    world::{Chance, SEGMENT_BYTES, created, open, segments},
};
use crate::{
    ids::{LogIndex, ReplicaId, StoreId, Term},
    log::{Recovery, SegmentedLog},
    memory::MemoryFiles,
    ports::log::{LogError, LogRecord},
    raft::types::{Entry, HardState, Payload},
};

const REPLICAS_MAX: usize = 6;

/// A log under load, with every state it went through since the last sync.
struct Load {
    files: MemoryFiles,
    log: SegmentedLog,
    chance: Chance,
    /// `states[0]` is acknowledged, the last is what the log was told.
    states: Vec<Model>,
    next_replica: u64,
}

impl Load {
    fn begin(seed: u64) -> Self {
        let files = MemoryFiles::new();
        let (log, recovery) = open(&files).unwrap();
        assert!(recovery.fresh);
        let states = vec![Model::new()];
        Self { files, log, chance: Chance(seed), states, next_replica: 1 }
    }

    /// One step of load; an error is a planned fault.
    fn step(&mut self) -> Result<(), LogError> {
        match self.chance.below(12) {
            0..=6 => self.append(),
            7..=9 => self.sync(),
            10 => self.log.reclaim().map(|_| ()),
            11 if self.chance.below(2) == 0 => self.log.prepare().map(|_| ()),
            _ => self.log.rewrite_forward(1 + self.chance.place(500)).map(|_| ()),
        }
    }

    fn append(&mut self) -> Result<(), LogError> {
        let mut state = self.states.last().unwrap().clone();
        let mut batch = Vec::new();
        for _ in 0..=self.chance.below(3) {
            let (replica, record) = self.record(&state);
            tell(&mut state, replica, &record);
            batch.push((replica, record));
            self.states.push(state.clone());
        }
        self.log.append(&batch)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.log.sync()?;
        self.states.drain(..self.states.len() - 1);
        Ok(())
    }

    fn record(&mut self, state: &Model) -> (ReplicaId, LogRecord) {
        let pick = self.chance.place(REPLICAS_MAX);
        let Some((id, known)) = state.iter().nth(pick) else {
            let id = self.next_replica;
            self.next_replica += 1;
            return (ReplicaId(id), created(id));
        };
        let last = known.base_index.0 + known.entries.len() as u64;
        let record = match self.chance.below(20) {
            0..=12 => self.ready(known.base_index.0, last, &known.hard_state),
            13..=17 => {
                let index = known.base_index.0 + self.chance.below(last - known.base_index.0 + 1);
                let term = known.entries.iter().find(|entry| entry.index.0 == index);
                let term = term.map_or(known.base_term, |entry| entry.term);
                LogRecord::Trimmed { index: LogIndex(index), term }
            }
            18 => {
                let term = Term(known.hard_state.term.0 + 1);
                let index = LogIndex(last + 1 + self.chance.below(5));
                let hard_state = HardState { term, vote: ReplicaId(0), commit: index };
                let store = StoreId(100 + index.0);
                LogRecord::Installed { store, index, term, hard_state }
            }
            _ => LogRecord::Destroyed,
        };
        (*id, record)
    }

    fn ready(&mut self, base: u64, last: u64, old: &HardState) -> LogRecord {
        let first = base + 1 + self.chance.below(last - base + 1);
        let count = self.chance.below(4);
        let term = Term(old.term.0 + self.chance.below(2));
        let entry = |index: u64, chance: &mut Chance| {
            let bytes = vec![chance.draw().to_le_bytes()[0]; chance.place(400)];
            Entry { index: LogIndex(index), term, payload: Payload::Command(bytes) }
        };
        let entries = (first..first + count).map(|index| entry(index, &mut self.chance)).collect();
        let moved = self.chance.below(3) > 0 || term != old.term;
        let vote = if term == old.term { old.vote } else { ReplicaId(self.chance.below(3)) };
        let hard_state = HardState { term, vote, commit: old.commit.max(LogIndex(base)) };
        LogRecord::Ready { hard_state: moved.then_some(hard_state), entries }
    }

    /// Cuts the power and recovers, with up to three more cuts in recovery.
    fn cut(&mut self) -> Recovery {
        let chance = &mut self.chance;
        self.files.crash(&mut || chance.draw());
        for _ in 0..self.chance.below(4) {
            match self.chance.below(2) {
                0 => self.files.fail_write(1 + self.chance.below(3)),
                _ => self.files.fail_sync(1 + self.chance.below(4)),
            }
            drop(open(&self.files));
            let chance = &mut self.chance;
            self.files.crash(&mut || chance.draw());
        }
        let (log, recovery) = open(&self.files).expect("recovery after a cut");
        self.log = log;
        recovery
    }

    /// What was found is what is promised from here on.
    fn accept(&mut self, state: usize) {
        let found = self.states.swap_remove(state);
        self.next_replica =
            self.next_replica.max(found.keys().map(|id| id.0 + 1).max().unwrap_or(1));
        self.states = vec![found];
    }
}

fn run(seed: u64, cuts: u64) {
    let mut load = Load::begin(seed);
    for cut in 0..cuts {
        if load.chance.below(4) == 0 {
            load.files.fail_sync(1 + load.chance.below(20));
        }
        for _ in 0..load.chance.below(60) {
            if let Err(error) = load.step() {
                assert!(matches!(error, LogError::Fenced(_)), "seed {seed} cut {cut}: {error}");
                break;
            }
        }
        let recovery = load.cut();
        let state = judge_cut(&load.states, &recovery)
            .unwrap_or_else(|broken| panic!("seed {seed} cut {cut}: {broken}"));
        load.accept(state);
        if load.chance.below(3) == 0 {
            let recovery = load.cut();
            judge_cut(&load.states, &recovery)
                .unwrap_or_else(|broken| panic!("seed {seed} cut {cut}, again: {broken}"));
        }
    }
}

#[test]
fn whatever_was_acknowledged_survives_thousands_of_power_cuts_and_nothing_is_invented() {
    for seed in 0..250 {
        run(seed, 10);
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    for seed in 0..100 {
        let mut load = Load::begin(seed);
        for _ in 0..200 {
            load.step().unwrap();
        }
        load.files.kill();
        let (_, recovery) = open(&load.files).unwrap();
        assert_eq!(judge_cut(&load.states, &recovery), Ok(load.states.len() - 1), "seed {seed}");
    }
}

#[test]
fn a_bent_bit_or_a_scribbled_sector_never_lets_a_replica_serve_with_less_than_it_promised() {
    let (mut marked, mut whole) = (0, 0);
    for seed in 0..600 {
        let mut load = Load::begin(seed);
        for _ in 0..150 {
            load.step().unwrap();
        }
        load.sync().unwrap();
        // What is told by no later batch may be a torn tail: write later ones.
        for _ in 0..12 {
            load.log.close().unwrap();
        }
        let names = segments(&load.files);
        let name = &names[load.chance.place(names.len())];
        if seed % 2 == 0 {
            assert!(load.files.flip_bit(name, load.chance.place(SEGMENT_BYTES * 8)));
        } else {
            let junk: Vec<u8> = (0..512).map(|_| load.chance.draw().to_le_bytes()[0]).collect();
            load.files.scribble(name, load.chance.place(SEGMENT_BYTES / 512) * 512, &junk);
        }
        load.files.kill();
        let acked = load.states.pop().unwrap();
        let (log, recovery) = open(&load.files).unwrap();
        judge_damage(&acked, &recovery).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        drop(log);
        marked += recovery.replicas.iter().filter(|found| found.damaged).count();
        whole += recovery.replicas.iter().filter(|found| !found.damaged).count();
        let chance = &mut load.chance;
        load.files.crash(&mut || chance.draw());
        let (_, again) = open(&load.files).unwrap();
        assert_eq!(again.replicas, recovery.replicas, "seed {seed}: the verdict was forgotten");
        assert!(again.forgotten_up_to >= recovery.forgotten_up_to, "seed {seed}");
    }
    assert!(marked > 50 && whole > 50, "{marked} marked, {whole} whole: not a test of both");
}
