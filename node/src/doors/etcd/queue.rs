//! The queue that locks and elections of the door stand in.
//!
//! A place is the key of a lease under a name; whoever's key is oldest has the turn
//! (`actors::client::Queued`). Here is how a request of the door waits for it, and
//! when it may leave: **a place that may be held is left by nobody who did not hear
//! that it is its turn.** A request that takes a place over cannot know whether an
//! earlier one under the same lease was told that it holds, unless it finds somebody
//! who stands before it.
//!
//! What is looked at are keys of any number that anybody may have put below the name,
//! so they are gathered within the room of the door, and without their values.

use std::{sync::Arc, time::Duration};

use actors::client::{Client, ClientError, Queued};
use cluster::{
    auth::{Access, Need},
    ids::LeaseId,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::{Range, SortBy, Span},
        transaction::{Compare, Keys, Relation, Target},
        watch::{EventKind, Watch},
    },
};
use tonic::{Code, Status};

use super::{faults::EtcdFault, gateway::Gateway};
use crate::observe::audit::{Came, Subject};

/// What a lock or a campaign without a lease gets, as in etcd: nobody keeps it.
const LEASE_MS: u64 = 60_000;
/// Pause after a question that nobody answered.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What a waiting request hears whose lease is over.
const EXPIRED: &str = "mutex: session is expired";
/// What it hears if a later request under its lease stands in its place.
pub(super) const TAKEN_OVER: &str =
    "etcdserver: a later request under the same lease has taken this place over";

/// What it needs to stand in a queue. The place of a lease that is yet to be granted is
/// not known: that of none stands for it.
pub(super) fn standing(name: &[u8], lease: i64) -> Vec<Need> {
    let place = Queued::place(name, LeaseId(lease.cast_unsigned()));
    vec![Need::Name, Need::Keys(Access::ReadWrite, Keys::One(place))]
}

/// Holds as long as nobody has written a place again.
pub(super) fn untouched(queued: &Queued) -> Compare {
    Compare::new(queued.key.clone(), Relation::Equal, Target::Modified(queued.version))
}

pub(super) fn unknown(text: &str) -> Status {
    Status::new(Code::Unknown, text)
}

impl Gateway {
    /// The lease a request names, or a new one that nobody keeps.
    pub(super) async fn lease_of(
        &self,
        client: &Client,
        lease: i64,
    ) -> Result<LeaseId, ClientError> {
        if lease != 0 {
            return Ok(LeaseId(lease.cast_unsigned()));
        }
        let granted = client.grant_lease(self.volume(), None, LEASE_MS);
        let telling = self.telling(client, "lease grant", Vec::new);
        let granted = telling.watch(granted, |granted| Came {
            revision: Some(granted.version),
            of: Some(Subject::lease(granted.lease)),
        });
        Ok(granted.await?.lease)
    }

    /// Takes a place under the lease that a request names, or under a new one. That is
    /// revoked if there is no place for it.
    pub(super) async fn join_queue(
        self: &Arc<Self>,
        client: &Client,
        operation: &'static str,
        name: &[u8],
        named: i64,
        value: &[u8],
    ) -> Result<(Waiting, LeaseId), Status> {
        let lease = self.lease_of(client, named).await.map_err(queue_fault)?;
        match self.queue_up(client, operation, name, lease, value).await {
            Ok(waiting) => Ok((waiting, lease)),
            Err(status) => {
                if named == 0 {
                    // Otherwise it ends by itself.
                    drop(client.revoke_lease(self.volume(), lease).await);
                }
                Err(status)
            }
        }
    }

    /// Takes a place under a name, for an operation of that word.
    pub(super) async fn queue_up(
        self: &Arc<Self>,
        client: &Client,
        operation: &'static str,
        name: &[u8],
        lease: LeaseId,
        value: &[u8],
    ) -> Result<Waiting, Status> {
        let brings = || vec![(Queued::place(name, lease), value.len())];
        let passes = self.within_quotas(brings).await?;
        let queued = client.queue_up(self.volume(), name, lease, value);
        let telling = self.telling(client, operation, || vec![Subject::name(name)]);
        let queued = telling.watch(queued, |queued| Came {
            revision: Some(queued.version),
            of: Some(Subject::key(&queued.key)),
        });
        let queued = queued.await.map_err(queue_fault)?;
        passes.written(queued.version);
        Ok(Waiting::new(self, client, queued))
    }

    /// The first head of a range, and the newest version. It can be begun anew.
    pub(super) async fn look(
        &self,
        client: &Client,
        range: Range,
    ) -> Result<(Option<Item>, Version), ClientError> {
        let found = client
            .within(self.modest_room())
            .range(self.volume(), range.limit(1).heads(), ReadLevel::Strong)
            .await?;
        Ok((found.result.items.into_iter().next(), found.now))
    }
}

/// etcd's queues ask its store through a client of their own, and on that way a
/// refusal loses its code. Where codes tell a client to try again, they stay.
pub(super) fn queue_fault(fault: impl Into<EtcdFault>) -> Status {
    let fault = fault.into();
    let lost = [EtcdFault::LeaseNotFound, EtcdFault::PermissionDenied, EtcdFault::UserEmpty];
    if lost.contains(&fault) { unknown(&fault.text()) } else { fault.into() }
}

/// A request in its place. If it is dropped before it has the turn, it leaves the
/// place, unless that may be held.
pub(super) struct Waiting {
    gateway: Arc<Gateway>,
    client: Client,
    pub(super) queued: Queued,
    leaves: bool,
}

impl Waiting {
    pub(super) fn new(gateway: &Arc<Gateway>, client: &Client, queued: Queued) -> Self {
        let (gateway, client) = (gateway.clone(), client.clone());
        // A new place was never held.
        let leaves = queued.found.is_none();
        Self { gateway, client, queued, leaves }
    }

    /// Waits for the turn of this place, over changes of leader; the newest version
    /// then. Fails if the place is gone with its lease, or a later request of the same
    /// lease has taken it over.
    pub(super) async fn take_turn(mut self, name: &[u8]) -> Result<Version, Status> {
        loop {
            match self.turn(name).await {
                Ok(Turn::Now(version)) => {
                    self.leaves = false;
                    return Ok(version);
                }
                Ok(Turn::Later) => {}
                Ok(Turn::Never(text)) => return Err(unknown(text)),
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(queue_fault(error)),
            }
        }
    }

    /// Waits until whoever stands next before this place is gone; looks at the place
    /// itself if nobody does.
    async fn turn(&mut self, name: &[u8]) -> Result<Turn, ClientError> {
        let Some((ahead, now)) = self.ahead(name).await? else { return self.own().await };
        self.leaves = true;
        // Only the next one ahead is watched: its end wakes one, not all.
        let watch = Watch { keys: ahead.into(), puts: false, deletes: true, previous: false };
        let from = Some(Version(now.0 + 1));
        let mut watching = self.client.watch(self.gateway.volume(), watch, from).await?;
        let gone = |kind| kind == EventKind::Delete;
        while !watching.next().await?.events.iter().any(|event| gone(event.kind)) {}
        Ok(Turn::Later)
    }

    /// The key that stands next before this place, and the newest version.
    async fn ahead(&self, name: &[u8]) -> Result<Option<(Vec<u8>, Version)>, ClientError> {
        let token = self.queued.token.0;
        let created = Span { from: Version(0), to: Version(token.saturating_sub(1)) };
        let before =
            Range { created, ..Range::of(Queued::places(name)) }.sorted(SortBy::Created, true);
        let (ahead, now) = self.gateway.look(&self.client, before).await?;
        Ok(ahead.map(|ahead| (ahead.key, now)))
    }

    /// What has become of this place.
    async fn own(&self) -> Result<Turn, ClientError> {
        let own = Range::of(self.queued.key.clone());
        let (own, now) = self.gateway.look(&self.client, own).await?;
        Ok(match own.filter(|own| own.created == self.queued.token) {
            None => Turn::Never(EXPIRED),
            Some(own) if own.modified != self.queued.version => Turn::Never(TAKEN_OVER),
            Some(_) => Turn::Now(now),
        })
    }
}

/// When it is somebody's turn.
enum Turn {
    /// At this version.
    Now(Version),
    /// Perhaps after another look.
    Later,
    /// For this reason.
    Never(&'static str),
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.leaves {
            return;
        }
        let (gateway, client) = (self.gateway.clone(), self.client.clone());
        let queued = self.queued.clone();
        tokio::spawn(Box::pin(async move {
            let telling = gateway.telling(&client, "leave", || vec![Subject::key(&queued.key)]);
            let leave = async {
                let left = client.transact(gateway.volume(), queued.leave()).await?;
                if left.succeeded { Ok(left.version) } else { Err(Left::Stays) }
            };
            if let Err(error) = telling.watch(leave, |version| *version).await {
                tracing::debug!(%error, "a place in a queue is not left");
            }
        }));
    }
}

/// Why a place was not left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("{TAKEN_OVER}")]
    Stays,
    #[error(transparent)]
    Failed(#[from] ClientError),
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::{super::tests::Door, *};

    const NAME: &[u8] = b"q";
    const SHORT: Duration = Duration::from_millis(500);

    impl Door {
        async fn stand(&self, lease: LeaseId) -> Waiting {
            let client = &self.gateway.client;
            self.gateway.queue_up(client, "lock", NAME, lease, b"").await.unwrap()
        }

        async fn stands(&self, key: &[u8]) -> bool {
            let range = Range::of(key.to_vec());
            self.gateway.look(&self.gateway.client, range).await.unwrap().0.is_some()
        }

        async fn until_gone(&self, key: &[u8]) {
            let gone = async {
                while self.stands(key).await {
                    sleep(SHORT / 10).await;
                }
            };
            timeout(SHORT * 20, gone).await.expect("it left");
        }
    }

    /// A retry under the lease of a holder, given up before it heard anything, let the
    /// next one hold as well.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_place_that_may_be_held_is_not_left_by_who_gives_it_up() {
        let door = Door::open().await;
        let (holds, waits) = (door.lease().await, door.lease().await);
        let first = door.stand(holds).await;
        let held = first.queued.key.clone();
        first.take_turn(NAME).await.unwrap();
        drop(door.stand(holds).await);
        sleep(SHORT).await;
        assert!(door.stands(&held).await);

        let behind = door.stand(waits).await;
        let place = behind.queued.key.clone();
        drop(behind);
        door.until_gone(&place).await;
        let first = door.stand(waits).await;
        let second = door.stand(waits).await;
        assert!(timeout(SHORT, second.take_turn(NAME)).await.is_err());
        door.until_gone(&place).await;
        drop(first);
        assert!(door.stands(&held).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whose_place_was_taken_over_hears_so_and_whose_lease_is_over_hears_that() {
        let door = Door::open().await;
        let (holds, waits) = (door.lease().await, door.lease().await);
        let holder = door.stand(holds).await;
        let first = door.stand(waits).await;
        let second = door.stand(waits).await;
        drop(holder);
        let told = timeout(SHORT * 20, first.take_turn(NAME)).await.unwrap().unwrap_err();
        assert_eq!(told.message(), TAKEN_OVER);
        second.take_turn(NAME).await.unwrap();
        let third = door.stand(waits).await;
        door.gateway.client.revoke_lease(door.gateway.volume(), waits).await.unwrap();
        assert_eq!(third.take_turn(NAME).await.unwrap_err().message(), EXPIRED);
    }
}
