//! Effects as one line each, for transcripts.

use crate::{
    ids::ReplicaId,
    raft::{
        Effect,
        types::{Configuration, ConfigurationStep, Entry, Message, Payload, RaftMessage},
    },
};

pub(super) fn entries(list: &[Entry]) -> String {
    let one = |entry: &Entry| {
        let payload = match &entry.payload {
            Payload::Empty => "-".to_owned(),
            Payload::Command(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Payload::Configuration(change) if change.steps.is_empty() => "leave".to_owned(),
            Payload::Configuration(change) => {
                let steps: Vec<_> = change.steps.iter().map(step).collect();
                steps.join("+")
            }
        };
        format!("{}/{} {payload}", entry.term.0, entry.index.0)
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn step(step: &ConfigurationStep) -> String {
    match step {
        ConfigurationStep::Voter(id, _) => format!("v{}", id.0),
        ConfigurationStep::Learner(id, _) => format!("l{}", id.0),
        ConfigurationStep::Remove(id) => format!("r{}", id.0),
    }
}

fn ids(list: &[ReplicaId]) -> String {
    list.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ")
}

pub(super) fn configuration(it: &Configuration) -> String {
    let mut text = format!("voters ({})", ids(&it.voters));
    for (name, list) in [
        ("outgoing", &it.outgoing),
        ("learners", &it.learners),
        ("learners next", &it.learners_next),
    ] {
        if !list.is_empty() {
            text += &format!(" {name} ({})", ids(list));
        }
    }
    text
}

fn raft(message: &RaftMessage) -> String {
    let mut text = format!("{:?} term {}", message.kind, message.term.0);
    if message.log_term.0 != 0 || message.index.0 != 0 {
        text += &format!(" at {}/{}", message.log_term.0, message.index.0);
    }
    if message.commit.0 != 0 {
        text += &format!(" commit {}", message.commit.0);
    }
    if message.reject {
        text += &format!(" reject hint {}", message.reject_hint.0);
    }
    if !message.context.is_empty() {
        text += " with context";
    }
    if !message.entries.is_empty() {
        text += &format!(" [{}]", entries(&message.entries));
    }
    text
}

fn message(message: &Message) -> String {
    match message {
        Message::Raft(message) => raft(message),
        Message::SnapshotOffer(offer) => format!(
            "SnapshotOffer of {}/{} {}",
            offer.index_term.0,
            offer.index.0,
            configuration(&offer.configuration)
        ),
        Message::SnapshotResult { installed, .. } => {
            format!("SnapshotResult installed {installed}")
        }
        other => format!("{other:?}"),
    }
}

/// One effect in one line; none for what only the driver's plumbing needs.
pub(super) fn effect(of: ReplicaId, effect: &Effect) -> String {
    let what = match effect {
        Effect::Send { to, message: it } => format!("-> {} {}", to.0, message(it)),
        Effect::Persist { hard_state, entries: list, .. } => {
            let state = hard_state.map_or_else(String::new, |it| {
                format!(" term {} vote {} commit {}", it.term.0, it.vote.0, it.commit.0)
            });
            let list =
                if list.is_empty() { String::new() } else { format!(" [{}]", entries(list)) };
            format!("persist{state}{list}")
        }
        Effect::Apply { entries: list } => format!("apply [{}]", entries(list)),
        Effect::Configured { configuration: it, epoch, .. } => {
            format!("configured {epoch} {}", configuration(it))
        }
        Effect::RoleChanged { leading, term, leader } => {
            let leader = leader.map_or("nobody".to_owned(), |leader| leader.0.to_string());
            let role = if *leading { "leads".to_owned() } else { format!("follows {leader}") };
            format!("{role} in {term}")
        }
        Effect::Refused { why, .. } => format!("refused: {why}"),
        Effect::PeerFault { from, fault } => format!("fault of {}: {fault}", from.0),
        Effect::InstallSnapshot { index, term, configuration: it, .. } => {
            format!("install snapshot {}/{} {}", term.0, index.0, configuration(it))
        }
        Effect::FetchSnapshot { from, offer } => {
            format!("fetch snapshot {} from {}", offer.index.0, from.0)
        }
        Effect::PinSnapshot { to, .. } => format!("pin snapshot for {}", to.0),
        Effect::UnpinSnapshot { .. } => "unpin snapshot".to_owned(),
        Effect::DiscardSnapshot { .. } => "discard snapshot".to_owned(),
        Effect::Fetch { from, to, .. } => format!("fetch {}..{}", from.0, to.0),
        Effect::Proposed { ticket, term, index } => {
            format!("proposed #{} as {}/{}", ticket.0, term.0, index.0)
        }
        Effect::Dropped { ticket, .. } => format!("dropped #{}", ticket.0),
        Effect::Held { ticket } => format!("held #{}", ticket.0),
        Effect::ReadReady { ticket, index } => format!("read #{} at {}", ticket.0, index.0),
        Effect::ReadFailed { ticket, .. } => format!("read #{} failed", ticket.0),
        Effect::Hibernated => "hibernates".to_owned(),
        Effect::Woke => "wakes".to_owned(),
        Effect::Broken { what } => format!("broken: {what}"),
    };
    format!("{}: {what}", of.0)
}
