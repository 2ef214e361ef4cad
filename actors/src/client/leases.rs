//! Leases: keys that go when nobody keeps them.

use cluster::{
    ids::{LeaseId, ShardId},
    mvcc::version::Version,
    request::{ShardBody, ShardResult},
    shard::{
        command::Outcome,
        leases::{LeaseCommand, LeaseOutcome, LeaseView},
        transaction::Keys,
    },
};

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    trial::Trial,
    write::strange_result,
};

/// A lease that was granted or kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGranted {
    /// Which.
    pub lease: LeaseId,
    /// Milliseconds it lives from then on.
    pub ttl_ms: u64,
    /// The newest version then.
    pub version: Version,
}

/// Some of a volume's leases, in order, without their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePage {
    /// What was found.
    pub leases: Vec<LeaseView>,
    /// Whether more follow.
    pub more: bool,
    /// The newest version then.
    pub version: Version,
}

impl LeasePage {
    /// The lease behind which the next page begins; none if this is the last.
    pub fn next(&self) -> Option<LeaseId> {
        self.leases.last().filter(|_| self.more).map(|last| last.lease)
    }
}

impl Client {
    /// Grants a lease in a volume of one shard, under a number of the caller's
    /// choice or a random one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn grant_lease(
        &self,
        volume: &str,
        lease: Option<LeaseId>,
        ttl_ms: u64,
    ) -> Result<LeaseGranted, ClientError> {
        let random = || LeaseId((self.shared.entropy.next_u64() >> 1).max(1));
        let lease = lease.unwrap_or_else(random);
        let outcome = self.change_lease(volume, LeaseCommand::Grant { lease, ttl_ms }).await?;
        granted(volume, lease, outcome)
    }

    /// Begins a lease's time anew.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn keep_lease_alive(
        &self,
        volume: &str,
        lease: LeaseId,
    ) -> Result<LeaseGranted, ClientError> {
        let outcome = self.change_lease(volume, LeaseCommand::KeepAlive(lease)).await?;
        granted(volume, lease, outcome)
    }

    /// Ends a lease with its keys; the version that deleted them, and how many
    /// they were.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke_lease(
        &self,
        volume: &str,
        lease: LeaseId,
    ) -> Result<(Version, u32), ClientError> {
        match self.change_lease(volume, LeaseCommand::Revoke(lease)).await? {
            LeaseOutcome::Ended { version, keys } => Ok((version, keys)),
            LeaseOutcome::Lives { .. } | LeaseOutcome::NotDue => Err(strange(volume)),
        }
    }

    /// A lease as its leader sees it, none if there is none; and the newest
    /// version then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn show_lease(
        &self,
        volume: &str,
        lease: LeaseId,
        keys: bool,
    ) -> Result<(Option<LeaseView>, Version), ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let body = || ShardBody::ShowLease { lease, keys };
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            match self.ask_shard(&mut trial, shard, Who::Leader, &body).await? {
                Reply::Reroute => {}
                Reply::Result(ShardResult::Lease(view, now)) => return Ok((view, now)),
                Reply::Result(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    /// All leases, in order, page by page, and the newest version at the first of them:
    /// one that was granted or ended since may be among them or not.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_leases(&self, volume: &str) -> Result<(Vec<LeaseId>, Version), ClientError> {
        let mut page = self.leases_after(volume, LeaseId(0)).await?;
        let (version, mut all) = (page.version, Vec::new());
        loop {
            all.extend(page.leases.iter().map(|lease| lease.lease));
            match page.next() {
                Some(after) => page = self.leases_after(volume, after).await?,
                None => return Ok((all, version)),
            }
        }
    }

    /// A page of leases, in order, behind one of them; zero begins.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn leases_after(
        &self,
        volume: &str,
        after: LeaseId,
    ) -> Result<LeasePage, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let body = || ShardBody::ListLeases { after };
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            match self.ask_shard(&mut trial, shard, Who::Leader, &body).await? {
                Reply::Reroute => {}
                Reply::Result(ShardResult::Leases { leases, more, now: version }) => {
                    return Ok(LeasePage { leases, more, version });
                }
                Reply::Result(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    async fn change_lease(
        &self,
        volume: &str,
        command: LeaseCommand,
    ) -> Result<LeaseOutcome, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            let body = |request| ShardBody::Lease { request, command };
            match self.once(&mut trial, shard, &body).await? {
                None => {}
                Some(ShardResult::Outcome(Outcome::Lease(outcome))) => return Ok(outcome),
                Some(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    /// The shard of a volume that has only one: a lease and its keys lie
    /// together.
    pub(super) async fn only_shard(
        &self,
        trial: &mut Trial,
        volume: &str,
    ) -> Result<ShardId, ClientError> {
        let shards = self.shards_of(trial, volume, &Keys::range("", "")).await?;
        match shards[..] {
            [shard] => Ok(shard),
            _ => Err(ClientError::SpansShards { volume: volume.to_owned() }),
        }
    }
}

fn granted(
    volume: &str,
    lease: LeaseId,
    outcome: LeaseOutcome,
) -> Result<LeaseGranted, ClientError> {
    match outcome {
        LeaseOutcome::Lives { ttl_ms, version } => Ok(LeaseGranted { lease, ttl_ms, version }),
        LeaseOutcome::Ended { .. } | LeaseOutcome::NotDue => Err(strange(volume)),
    }
}

fn strange(volume: &str) -> ClientError {
    ClientError::BadAnswer {
        subject: format!("volume {volume}"),
        cause: "the outcome of another command of a lease came instead".to_owned(),
    }
}
