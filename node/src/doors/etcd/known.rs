//! What is known of the volume's one shard: by the replica of this node or, where there
//! is none, by what one elsewhere says.
//!
//! A cluster may have more nodes than a volume has copies, and each node's door serves.
//! Headers, `Status` and whoever requires a leader need a leader, a term and a revision;
//! so a node without a copy asks for them, and hears of a leader if any replica it can
//! reach knows one. What it heard is some seconds old at most ([`LOOK_EVERY`] and
//! [`LOOK_MAX`]), as a member of etcd may be behind.

use std::{convert::Infallible, future::pending, time::Duration};

use cluster::request::ReplicaStatus;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{faults::EtcdFault, gateway::Gateway};

/// How often a node without a copy asks: one small question.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same as long as nothing is known.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest it waits for somebody who knows a leader: a node that does not answer costs
/// half a second of it.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Longest a request waits for a first word.
const FIRST_WORD_MAX: Duration = Duration::from_secs(1);

/// How long after the door was opened requests that want a leader wait for one, and how
/// often they look.
const FIRST_LEADER_MAX: Duration = Duration::from_secs(10);
const FIRST_LEADER_LOOK: Duration = Duration::from_millis(50);

/// How often a stream that wants a leader looks for one.
const LEADER_LOOK: Duration = Duration::from_secs(1);
/// Looks without a leader after which the stream ends: etcd waits for three
/// election timeouts.
const LEADER_LOOKS_MAX: u32 = 3;

/// What was heard of the shard.
#[derive(Debug)]
pub(super) struct Heard {
    /// The last; nothing if nobody answered.
    last: watch::Sender<Option<ReplicaStatus>>,
    /// When the door was opened.
    opened: Instant,
}

impl Default for Heard {
    fn default() -> Self {
        Self { last: watch::Sender::default(), opened: Instant::now() }
    }
}

impl Gateway {
    /// What is known of the shard, here or else elsewhere.
    pub(super) fn known(&self) -> Option<ReplicaStatus> {
        self.status().or_else(|| self.heard.last.borrow().clone())
    }

    /// Whether anybody in sight knows a leader.
    pub(super) fn has_leader(&self) -> bool {
        self.known().is_some_and(|known| known.leader.is_some())
    }

    /// Waits for a leader if the door was just opened: a member of etcd that starts serves
    /// nobody before, so a client that comes back does not hear that there is none, which
    /// would end its watches.
    pub(super) async fn await_first_leader(&self) {
        let led = async {
            while !self.has_leader() {
                sleep(FIRST_LEADER_LOOK).await;
            }
        };
        drop(timeout_at(self.heard.opened + FIRST_LEADER_MAX, led).await);
    }

    /// Why a stream that wants a leader ends: it returns once none has been in sight for a
    /// while, and never if none is wanted.
    pub(super) async fn leaderless(&self, is_wanted: bool) -> EtcdFault {
        if !is_wanted {
            return pending().await;
        }
        let mut looks = 0;
        while looks < LEADER_LOOKS_MAX {
            sleep(LEADER_LOOK).await;
            looks = if self.has_leader() { 0 } else { looks + 1 };
        }
        EtcdFault::NoLeader
    }

    /// Listens for as long as the door is open.
    pub(super) async fn listen(&self) -> Infallible {
        let client = self.client.with_deadline(LOOK_MAX);
        loop {
            let heard = match self.status() {
                None => client.inspect(self.volume()).await.ok(),
                own => own,
            };
            let every = if heard.is_some() { LOOK_EVERY } else { FIRST_LOOK_EVERY };
            self.heard.last.send_replace(heard);
            sleep(every).await;
        }
    }

    /// Waits for a first word of a term, for a moment: a volume may not be there yet.
    pub(super) async fn await_term(&self) {
        let tells = |status: &Option<ReplicaStatus>| status.as_ref().is_some_and(|s| s.term > 0);
        if !tells(&self.status()) {
            let mut heard = self.heard.last.subscribe();
            drop(timeout(FIRST_WORD_MAX, heard.wait_for(tells)).await);
        }
    }
}
