//! The membership actor: drives the gossip core of `cluster::membership`.
//!
//! - **Owns** the core and the live view; nobody else writes either.
//! - **Talks to it**: the network (datagrams, links), the follower of the
//!   catalog (its view), the root actor (leave). It talks to the network port
//!   and to its own timers.
//! - **Supervised by** the root actor, which starts a new one when it fails.
//! - **May lose** everything: a new actor meets its peers again within seconds.
//!   Until then the last published view stands.
//! - **Invariants**: the live view is published after each change, never within
//!   one; it holds only nodes the catalog knows and this node itself.
//! - **Limits**: mailboxes are unbounded, so datagrams take a permit first
//!   ([`MembershipDoor`]); past [`DATAGRAMS_WAITING_MAX`] they are dropped, as
//!   the network may drop them.

mod effects;
mod messages;
mod state;
#[cfg(test)]
mod tests;

use ractor::{Actor, ActorProcessingErr, ActorRef};

pub use messages::{DATAGRAMS_WAITING_MAX, MembershipDoor, MembershipMessage};
pub use state::{MembershipConfig, MembershipState};

/// The actor; all it knows is in its state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Membership;

impl Actor for Membership {
    type Msg = MembershipMessage;
    type State = MembershipState;
    type Arguments = MembershipConfig;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        config: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(MembershipState::new(config))
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let effects = state.start();
        effects::run(&myself, state, effects);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let effects = match message {
            MembershipMessage::Datagram { from, bytes, .. } => state.datagram(from, &bytes),
            MembershipMessage::LinkChanged { peer, up } => state.link(peer, up),
            MembershipMessage::CatalogChanged(view) => state.catalog(&view),
            MembershipMessage::Timer(timer) => state.timer(timer),
            MembershipMessage::Leave { reply } => state.leave(reply),
        };
        effects::run(&myself, state, effects);
        Ok(())
    }
}
