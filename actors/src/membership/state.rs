//! The core with its handles; no waiting here.

use std::{collections::BTreeSet, sync::Arc};

use cluster::{
    catalog::view::CatalogView,
    ids::{Incarnation, NodeId},
    membership::swim::{Birth, Effect, Input, LiveView, Roster, Swim, SwimTimer},
    ports::{clock::Clock, network::Network},
};
use tokio::sync::{oneshot, watch};

/// What the actor is born with.
#[derive(Debug)]
pub struct MembershipConfig {
    /// This node.
    pub node: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Seed of all chance, drawn from the entropy port.
    pub seed: u64,
    /// Members known at the start.
    pub roster: Roster,
    /// The node's clocks.
    pub clock: Arc<dyn Clock>,
    /// The network.
    pub network: Arc<dyn Network>,
    /// Where the live view is published. The root actor keeps the receiving
    /// end, so that the view outlives this actor.
    pub live: watch::Sender<LiveView>,
}

/// The actor's state.
#[derive(Debug)]
pub struct MembershipState {
    core: Swim,
    clock: Arc<dyn Clock>,
    pub(super) network: Arc<dyn Network>,
    live: watch::Sender<LiveView>,
    removed: BTreeSet<NodeId>,
    /// Who waits for the farewells to be sent.
    pub(super) leaving: Option<oneshot::Sender<()>>,
}

impl MembershipState {
    pub(super) fn new(config: MembershipConfig) -> Self {
        let MembershipConfig { node, incarnation, seed, roster, clock, network, live } = config;
        let removed = roster.removed.clone();
        let core = Swim::new(Birth { node, incarnation, seed, roster, now: clock.now() });
        Self { core, clock, network, live, removed, leaving: None }
    }

    fn step(&mut self, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.step(self.clock.now(), input, &mut effects);
        effects
    }

    pub(super) fn start(&mut self) -> Vec<Effect> {
        self.publish();
        self.step(Input::Start)
    }

    pub(super) fn datagram(&mut self, from: NodeId, bytes: &[u8]) -> Vec<Effect> {
        self.step(Input::Datagram { from, bytes })
    }

    pub(super) fn link(&mut self, peer: NodeId, up: bool) -> Vec<Effect> {
        self.step(if up { Input::LinkUp(peer) } else { Input::LinkDown(peer) })
    }

    pub(super) fn timer(&mut self, timer: SwimTimer) -> Vec<Effect> {
        self.step(Input::Timer(timer))
    }

    pub(super) fn leave(&mut self, reply: oneshot::Sender<()>) -> Vec<Effect> {
        self.leaving = Some(reply);
        self.step(Input::Leave)
    }

    /// Takes the members of a newer catalog; the network forgets the removed.
    pub(super) fn catalog(&mut self, view: &CatalogView) -> Vec<Effect> {
        let roster = Roster::of(view);
        for node in roster.removed.difference(&self.removed) {
            self.network.forget(*node);
        }
        self.removed.clone_from(&roster.removed);
        self.step(Input::Roster(roster))
    }

    /// Publishes the live view if it changed.
    pub(super) fn publish(&self) {
        self.live.send_if_modified(|published| {
            let changed = published != self.core.live();
            if changed {
                published.clone_from(self.core.live());
            }
            changed
        });
    }
}
