//! Runs what the core asked for.

use cluster::{
    membership::swim::{Effect, Report},
    ports::network::Lane,
};
use ractor::ActorRef;

use super::{MembershipMessage, MembershipState};

/// Runs effects in order, then publishes what changed.
pub(super) fn run(
    myself: &ActorRef<MembershipMessage>,
    state: &mut MembershipState,
    effects: Vec<Effect>,
) {
    for effect in effects {
        match effect {
            Effect::Send { to, bytes } => {
                if let Err(error) = state.network.send(to, Lane::Gossip, bytes) {
                    // Gossip repeats itself; nothing is lost but time.
                    tracing::trace!(%to, %error, "gossip was not sent");
                }
            }
            Effect::Arm { after, timer } => {
                myself.send_after(after, move || MembershipMessage::Timer(timer));
            }
            Effect::MemberUp { node, incarnation } => {
                tracing::info!(%node, %incarnation, "node is seen");
            }
            Effect::MemberDown { node } => tracing::warn!(%node, "node is seen no more"),
            Effect::Report(report) => log(&report),
        }
    }
    state.publish();
    if let Some(reply) = state.leaving.take() {
        // Whoever asked may have stopped waiting.
        let _ = reply.send(());
    }
}

fn log(report: &Report) {
    match report {
        // Debug, for a broken peer would fill the log.
        Report::PeerFault { from, fault } => tracing::debug!(%from, %fault, "gossip was dropped"),
        Report::Rejoined { renewals } => {
            tracing::warn!(renewals, "this node was declared down while it ran; it is back");
        }
        Report::Removed => tracing::error!("this node was removed from the cluster"),
        Report::Unexpected(cause) => tracing::warn!(cause, "gossip met an unexpected state"),
    }
}
