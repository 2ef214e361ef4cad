//! The way of one request to its shard: try, judge, learn, pause, try again.
//!
//! A change of leader costs its time and no error: only the deadline, or a
//! fault that repeating cannot mend, ends a trial.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cluster::{
    catalog::record::{VolumeRecord, VolumeState},
    ids::{Epoch, NodeId, ShardId},
    mvcc::version::Version,
    ports::network::RequestClass,
    request::{Answer, Fault, Request, ShardAnswer, ShardBody, ShardRequest, ShardResult},
    routing::{Reaction, reaction},
    shard::descriptor::{Predicate, ShardDescriptor},
};

use super::{
    Client,
    door::DoorError,
    error::ClientError,
    map::Map,
    trial::{Aim, Trial},
};

/// Pages of catalog changes read in one refresh; a view of the largest size
/// the catalog keeps comes in far fewer.
const REFRESH_PAGES_MAX: u32 = 64;
/// How long a node may hold back an answer to wait for news, once a first
/// look has not helped.
const NEWS_WAIT_MS: u32 = 200;

/// What a shard came to.
#[derive(Debug)]
pub(super) enum Reply {
    /// A result.
    Result(ShardResult),
    /// The map changed under the request: find its shard again.
    Reroute,
}

/// Which replicas may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Its leader.
    Leader,
    /// Any.
    Anyone,
}

impl Client {
    pub(super) fn trial(&self, subject: impl Into<String>) -> Trial {
        Trial::new(subject.into(), self.deadline)
    }

    pub(super) fn map(&self) -> Map {
        self.shared.map.borrow().clone()
    }

    /// Asks one shard until it answers, its map is stale or time is up.
    pub(super) async fn ask_shard(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        who: Who,
        body: &(dyn Fn() -> ShardBody + Send + Sync),
    ) -> Result<Reply, ClientError> {
        loop {
            let descriptor = self.descriptor(shard);
            let chance = (who == Who::Anyone).then(|| self.shared.entropy.next_u64());
            let Some(Aim(node)) = trial.next_node(&descriptor, self.hint(shard), chance) else {
                Box::pin(trial.pause(self.shared.entropy.next_u64())).await?;
                continue;
            };
            let Some(time) = trial.try_for() else { return Err(trial.ended()) };
            let request = ShardRequest {
                shard,
                epoch: descriptor.epoch,
                clock: self.clock(),
                timeout_ms: u32::try_from(time.as_millis()).unwrap_or(u32::MAX),
                forwarded: false,
                principal: self.principal.clone(),
                body: body(),
            };
            let request = Request::Shard(request);
            let answer = self.call(node, request.class(), request, time).await;
            match self.judge(trial, shard, node, answer)? {
                Judged::Result(result) => {
                    // Whoever goes on, page by page, asks the same one again.
                    trial.all_anew();
                    return Ok(Reply::Result(result));
                }
                Judged::Again => {}
                // What is rare waits in a box of its own: every request would carry its room.
                Judged::Pause(pause) => Box::pin(trial.pause_for(pause)).await?,
                Judged::Stale => {
                    Box::pin(self.renew_map(trial)).await?;
                    return Ok(Reply::Reroute);
                }
                Judged::Learnt => return Ok(Reply::Reroute),
            }
        }
    }

    fn judge(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        asked: Option<NodeId>,
        answer: Result<Answer, DoorError>,
    ) -> Result<Judged, ClientError> {
        let fault = match answer {
            Err(error @ (DoorError::BadCertificate { .. } | DoorError::BadAnswer { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                trial.note_silence(&error);
                self.forget_hint(shard, asked);
                return Ok(Judged::Again);
            }
            Ok(Answer::Shard(ShardAnswer { clock, leader, result })) => {
                self.shared.clock_seen.fetch_max(clock.0, Ordering::Relaxed);
                if let Some(leader) = leader {
                    self.set_hint(shard, leader);
                }
                match result {
                    Ok(result) => return Ok(Judged::Result(result)),
                    Err(fault) => fault,
                }
            }
            Ok(Answer::Fault(fault)) => fault,
            Ok(
                other @ (Answer::CatalogChanges { .. }
                | Answer::NodeStatus(_)
                | Answer::SnapshotPiece(_)
                | Answer::Joined(_)
                | Answer::Token(_)),
            ) => return Err(strange(trial.subject(), &other)),
        };
        self.react(trial, shard, asked, fault)
    }

    fn react(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        asked: Option<NodeId>,
        fault: Fault,
    ) -> Result<Judged, ClientError> {
        let reaction = reaction(&fault);
        trial.note_fault(&fault, reaction == Reaction::Elsewhere { in_doubt: true });
        Ok(match reaction {
            Reaction::At(node) => {
                self.set_hint(shard, node);
                trial.follow(node);
                Judged::Again
            }
            Reaction::Elsewhere { .. } => {
                self.forget_hint(shard, asked);
                Judged::Again
            }
            Reaction::SameAfter(ms) => Judged::Pause(Duration::from_millis(u64::from(ms))),
            Reaction::Refresh => Judged::Stale,
            Reaction::Learn(descriptor) => {
                let known = self.descriptor(shard).epoch;
                if descriptor.epoch <= known {
                    // Not newer than what was sent: a node that lags.
                    return Ok(Judged::Again);
                }
                self.shared.map.send_modify(|map| *map = map.with_descriptor(descriptor));
                trial.all_anew();
                Judged::Learnt
            }
            // No fault asks for it; a refusal of apply does, and is judged by
            // the writer.
            Reaction::Renew | Reaction::GiveUp => {
                let subject = trial.subject().to_owned();
                return Err(ClientError::Fault { subject, fault });
            }
        })
    }

    /// The volume, looked for anew when it is not known.
    pub(super) async fn volume(
        &self,
        trial: &mut Trial,
        name: &str,
    ) -> Result<(Map, Arc<VolumeRecord>), ClientError> {
        let found = |map: Map| {
            let record = map.volume(self.shared.tenant, name)?;
            let record =
                (record.state != VolumeState::Deleting).then(|| Arc::new(record.clone()))?;
            Some((map, record))
        };
        if let Some(found) = found(self.map()) {
            return Ok(found);
        }
        Box::pin(self.volume_anew(trial, name, found)).await
    }

    async fn volume_anew(
        &self,
        trial: &mut Trial,
        name: &str,
        found: impl Fn(Map) -> Option<(Map, Arc<VolumeRecord>)>,
    ) -> Result<(Map, Arc<VolumeRecord>), ClientError> {
        loop {
            self.refresh(trial, None, 0).await?;
            if let Some(found) = found(self.map()) {
                return Ok(found);
            }
            // The node at hand may lag; the catalog's own replicas know first.
            let mut heard = false;
            for node in self.map().catalog_nodes() {
                heard |= self.refresh_once(Some(node), NEWS_WAIT_MS, trial).await.is_ok();
                if let Some(found) = found(self.map()) {
                    return Ok(found);
                }
            }
            if heard || self.map().view.cluster().is_some() {
                return Err(ClientError::UnknownVolume { volume: name.to_owned() });
            }
            // A node that has just started may know nothing yet.
            trial.note("the node asked does not know its cluster yet".to_owned());
            trial.pause(self.shared.entropy.next_u64()).await?;
        }
    }

    /// Learns the catalog's news, from a random member when the first try did
    /// not help: the node at hand may be cut off itself.
    pub(super) async fn renew_map(&self, trial: &mut Trial) -> Result<(), ClientError> {
        trial.pause(self.shared.entropy.next_u64()).await?;
        let nodes = self.map().catalog_nodes();
        let chance = usize::try_from(self.shared.entropy.next_u64() >> 33).unwrap_or(0);
        let other = nodes.get(chance % nodes.len().max(1)).copied();
        let node = if trial.tries() > 2 { other } else { None };
        self.refresh(trial, node, NEWS_WAIT_MS).await
    }

    /// Learns the catalog's news, trying until the deadline.
    pub(super) async fn refresh(
        &self,
        trial: &mut Trial,
        mut node: Option<NodeId>,
        wait_ms: u32,
    ) -> Result<(), ClientError> {
        while let Err(error) = self.refresh_once(node.take(), wait_ms, trial).await {
            if !error.is_retryable() {
                return Err(error);
            }
            trial.pause(self.shared.entropy.next_u64()).await?;
        }
        Ok(())
    }

    async fn refresh_once(
        &self,
        node: Option<NodeId>,
        wait_ms: u32,
        trial: &mut Trial,
    ) -> Result<(), ClientError> {
        // One that began after this call serves it too: the second to end.
        let before = self.shared.refreshes.load(Ordering::Relaxed);
        let Some(time) = trial.try_for() else { return Err(trial.ended()) };
        // Nobody may poll whoever has the turn, so that is not waited for without end.
        let _turn = tokio::time::timeout(time, self.shared.refreshing.lock()).await.ok();
        if self.shared.refreshes.load(Ordering::Relaxed) >= before + 2 {
            return Ok(());
        }
        let mut wait_ms = wait_ms;
        for _ in 0..REFRESH_PAGES_MAX {
            let after = self.map().view.version();
            let Some(time) = trial.try_for() else { return Err(trial.ended()) };
            let request = Request::CatalogChanges { after, wait_ms };
            let answer = self.call(node, RequestClass::Admin, request, time).await;
            match answer {
                Ok(Answer::CatalogChanges { version, changes }) => {
                    let done = changes.is_empty() || version <= after;
                    self.take_changes(trial, version, &changes)?;
                    if done {
                        self.shared.refreshes.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                    wait_ms = 0;
                }
                Ok(Answer::Fault(fault)) => {
                    trial.note_fault(&fault, false);
                    return Err(ClientError::Fault { subject: "the catalog".into(), fault });
                }
                Ok(other) => return Err(strange("the catalog", &other)),
                Err(error) => {
                    trial.note_silence(&error);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn take_changes(
        &self,
        trial: &Trial,
        version: Version,
        changes: &[(String, Option<Vec<u8>>)],
    ) -> Result<(), ClientError> {
        let pairs = changes.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
        let mut learnt = Ok(());
        // Two that refresh at once must not undo each other's news.
        self.shared.map.send_modify(|map| match map.view.updated(version, pairs) {
            Ok(view) => *map = map.with_view(view),
            Err(error) => learnt = Err(error),
        });
        self.shared.door.learn(self.map().addresses());
        learnt.map_err(|error| ClientError::BadAnswer {
            subject: trial.subject().to_owned(),
            cause: error.to_string(),
        })
    }

    /// What is known of a shard. The catalog itself may be asked before
    /// anything is known: epoch 0 is stale everywhere and gets the descriptor.
    fn descriptor(&self, shard: ShardId) -> ShardDescriptor {
        let unknown = || ShardDescriptor {
            shard,
            volume: cluster::ids::CATALOG_VOLUME,
            epoch: Epoch(0),
            predicate: Predicate::all(),
            replicas: Vec::new(),
        };
        self.map().shard(shard).cloned().unwrap_or_else(unknown)
    }

    pub(super) fn call(
        &self,
        node: Option<NodeId>,
        class: RequestClass,
        request: Request,
        time: Duration,
    ) -> impl Future<Output = Result<Answer, DoorError>> + Send + use<> {
        let call = self.shared.door.call(node, class, request, time);
        async move {
            // A door that forgets the time must not make a client forget it.
            tokio::time::timeout(time, call).await.unwrap_or_else(|_| {
                let node = node.map_or_else(|| "the cluster".into(), |node| node.to_string());
                Err(DoorError::Timeout { node, after: time })
            })
        }
    }
}

enum Judged {
    Result(ShardResult),
    Again,
    Pause(Duration),
    Stale,
    Learnt,
}

/// An answer of a kind that was not asked for.
pub(super) fn strange(subject: &str, answer: &Answer) -> ClientError {
    let kind = match answer {
        Answer::Shard(_) => "a shard's answer",
        Answer::CatalogChanges { .. } => "catalog changes",
        Answer::NodeStatus(_) => "a node's status",
        Answer::SnapshotPiece(_) => "a piece of a snapshot",
        Answer::Joined(_) => "an admission",
        Answer::Token(_) => "a token",
        Answer::Fault(_) => "a fault",
    };
    ClientError::BadAnswer { subject: subject.to_owned(), cause: format!("{kind} came instead") }
}
