//! What a log must give back, worked out without a log: a model of records,
//! two judges over it, and proof that the judges bark.

use std::collections::BTreeMap;

use super::world::{created, entries, ready, trimmed};
use crate::{
    ids::{LogIndex, ReplicaId, Term},
    log::Recovery,
    ports::log::{LogRecord, RecoveredReplica},
    raft::types::HardState,
};

/// Replicas as their records say.
pub(super) type Model = BTreeMap<ReplicaId, RecoveredReplica>;

/// Takes a record into the model.
pub(super) fn tell(model: &mut Model, replica: ReplicaId, record: &LogRecord) {
    if let LogRecord::Created { shard, volume, store, index, term } = record {
        let born = RecoveredReplica {
            replica,
            shard: *shard,
            volume: *volume,
            store: *store,
            hard_state: HardState::default(),
            base_index: *index,
            base_term: *term,
            entries: Vec::new(),
            damaged: false,
        };
        model.insert(replica, born);
        return;
    }
    let known = model.get_mut(&replica).expect("the workload writes to replicas it created");
    match record {
        LogRecord::Created { .. } => {}
        LogRecord::Ready { hard_state, entries } => {
            if let Some(new) = hard_state {
                known.hard_state = *new;
            }
            if let Some(first) = entries.first() {
                known.entries.retain(|entry| entry.index < first.index);
                known.entries.extend(entries.iter().cloned());
            }
        }
        LogRecord::Installed { store, index, term, hard_state } => {
            known.store = *store;
            known.entries.clear();
            (known.base_index, known.base_term, known.hard_state) = (*index, *term, *hard_state);
        }
        LogRecord::Trimmed { index, term } => {
            known.entries.retain(|entry| entry.index > *index);
            (known.base_index, known.base_term) = (*index, *term);
        }
        LogRecord::Destroyed => {
            model.remove(&replica);
        }
    }
}

/// After a power cut: what was found is exactly one of the states the log went
/// through since the last acknowledgement, and nothing is called damaged.
pub(super) fn judge_cut(states: &[Model], recovery: &Recovery) -> Result<usize, String> {
    if !recovery.damage.is_empty() || !recovery.unnamed.is_empty() {
        return Err(format!("a power cut was taken for damage: {:?}", recovery.damage));
    }
    let found: Model =
        recovery.replicas.iter().map(|found| (found.replica, found.clone())).collect();
    states.iter().rposition(|state| *state == found).ok_or_else(|| {
        format!(
            "found none of the {} states promised\nacked {:#?}\nfound {found:#?}",
            states.len(),
            states[0]
        )
    })
}

/// After damage: whoever may serve has all that was acknowledged; whoever does
/// not is marked, or may never come back under its id; nobody is invented.
pub(super) fn judge_damage(acked: &Model, recovery: &Recovery) -> Result<(), String> {
    for found in recovery.replicas.iter().filter(|found| !found.damaged) {
        if acked.get(&found.replica) != Some(found) {
            let promised = acked.get(&found.replica);
            return Err(format!("may serve, with {found:#?} in place of {promised:#?}"));
        }
    }
    for id in acked.keys() {
        let known = recovery.replicas.iter().any(|found| found.replica == *id);
        let barred = recovery.forgotten_up_to.is_some_and(|floor| *id <= floor);
        if !known && !barred {
            return Err(format!("{id} is forgotten and may be created again"));
        }
    }
    Ok(())
}

fn acked() -> Model {
    let mut model = Model::new();
    for (replica, record) in
        [(1, created(1)), (2, created(2)), (1, ready(2, 1..=4)), (1, trimmed(1, 2))]
    {
        tell(&mut model, ReplicaId(replica), &record);
    }
    model
}

fn honest(model: &Model) -> Recovery {
    Recovery { replicas: model.values().cloned().collect(), ..Recovery::default() }
}

#[test]
fn the_judge_of_cuts_barks_at_a_lost_entry_an_invented_one_and_a_lost_vote() {
    let model = acked();
    let states = [model.clone()];
    assert_eq!(judge_cut(&states, &honest(&model)), Ok(0));
    let mut lost = honest(&model);
    lost.replicas[0].entries.pop();
    let mut invented = honest(&model);
    invented.replicas[1].entries = entries(1, 1..=1);
    let mut forgetful = honest(&model);
    forgetful.replicas[0].hard_state.term = Term(1);
    let mut trimmed_less = honest(&model);
    trimmed_less.replicas[0].base_index = LogIndex(0);
    for forged in [lost, invented, forgetful, trimmed_less] {
        assert!(judge_cut(&states, &forged).is_err(), "{forged:?}");
    }
}

#[test]
fn the_judge_of_damage_barks_at_a_recovery_that_cuts_at_the_first_bad_record() {
    let model = acked();
    assert!(judge_damage(&model, &honest(&model)).is_ok());
    let mut cut = honest(&model);
    cut.replicas[0].entries.truncate(1);
    assert!(judge_damage(&model, &cut).is_err(), "a shorter log went as whole");
    let mut forgotten = honest(&model);
    forgotten.replicas.remove(0);
    assert!(judge_damage(&model, &forgotten).is_err(), "a replica went missing unnoticed");
    forgotten.forgotten_up_to = Some(ReplicaId(1));
    assert!(judge_damage(&model, &forgotten).is_ok());
}
