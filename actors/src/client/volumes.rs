//! Volumes: create, list, show, delete.

use cluster::{
    catalog::{
        command::{CatalogCommand, CatalogOutcome},
        record::{VolumePolicy, VolumeRecord, VolumeState},
    },
    ids::{NodeId, ShardId},
    mvcc::compaction::HistoryPolicy,
    request::{ReadLevel, ShardBody},
    shard::descriptor::ShardDescriptor,
};

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    trial::Trial,
};

/// A volume as this client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Its record.
    pub record: VolumeRecord,
    /// Its shards, as far as they are known.
    pub shards: Vec<ShardDescriptor>,
    /// Where their leaders were last seen, in the same order.
    pub leaders: Vec<Option<NodeId>>,
}

impl Client {
    /// Creates a volume and waits until each of its shards has a leader.
    ///
    /// # Errors
    /// [`ClientError::NotServing`] if it is created but does not serve within
    /// the deadline; otherwise see [`ClientError`].
    pub async fn create_volume(
        &self,
        name: &str,
        policy: VolumePolicy,
    ) -> Result<VolumeView, ClientError> {
        let mut trial = self.trial(format!("volume {name}"));
        self.refresh(&mut trial, None, 0).await?;
        let command = CatalogCommand::CreateVolume {
            tenant: self.shared.tenant,
            name: name.to_owned(),
            policy,
        };
        let record = self.change_volume(&mut trial, &command).await?;
        self.wait_for_leaders(&mut trial, &record).await?;
        Ok(self.view_of(&record))
    }

    /// Lets a volume keep more of its past from now on, or less.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_history(
        &self,
        name: &str,
        history: HistoryPolicy,
    ) -> Result<VolumeView, ClientError> {
        let mut trial = self.trial(format!("volume {name}"));
        self.refresh(&mut trial, None, 0).await?;
        let (tenant, name) = (self.shared.tenant, name.to_owned());
        let command = CatalogCommand::SetHistory { tenant, name, history };
        let record = self.change_volume(&mut trial, &command).await?;
        let known = self.view_of(&record);
        Ok(VolumeView { record, ..known })
    }

    async fn change_volume(
        &self,
        trial: &mut Trial,
        command: &CatalogCommand,
    ) -> Result<VolumeRecord, ClientError> {
        match self.change_catalog(trial, command).await? {
            CatalogOutcome::Volume(record) => Ok(record),
            other @ (CatalogOutcome::Done
            | CatalogOutcome::Node(_)
            | CatalogOutcome::Shard(_)
            | CatalogOutcome::Replica(_)
            | CatalogOutcome::Refused(_)) => Err(strange_outcome(trial, &other)),
        }
    }

    /// Waits until every shard of a volume answers a linearizable read.
    async fn wait_for_leaders(
        &self,
        trial: &mut Trial,
        record: &VolumeRecord,
    ) -> Result<(), ClientError> {
        let probes = record
            .shards
            .iter()
            .map(|shard| async move { (*shard, self.serves(*shard, trial_left(self)).await) });
        let waiting: Vec<ShardId> = futures_util::future::join_all(probes)
            .await
            .into_iter()
            .filter_map(|(shard, serves)| (!serves).then_some(shard))
            .collect();
        if waiting.is_empty() {
            // The record the caller sees should say that it serves.
            return self.refresh(trial, None, 0).await;
        }
        Err(ClientError::NotServing {
            volume: record.name.clone(),
            shards: record.shards.len(),
            waiting,
        })
    }

    async fn serves(&self, shard: ShardId, mut trial: Trial) -> bool {
        let body = || ShardBody::List {
            prefix: Vec::new(),
            after: None,
            limit: 1,
            level: ReadLevel::Strong,
            at: None,
            values: false,
        };
        loop {
            let placed = self.map().shard(shard).is_some_and(|known| !known.replicas.is_empty());
            if !placed {
                if self.renew_map(&mut trial).await.is_err() {
                    return false;
                }
                continue;
            }
            match self.ask_shard(&mut trial, shard, Who::Leader, &body).await {
                Ok(Reply::Result(_)) => return true,
                Ok(Reply::Reroute) => {}
                Err(_) => return false,
            }
        }
    }

    /// All volumes of the tenant, as of now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn volumes(&self) -> Result<Vec<VolumeView>, ClientError> {
        let mut trial = self.trial("the catalog");
        self.refresh(&mut trial, None, 0).await?;
        let map = self.map();
        let ours = map.view.volumes().filter(|volume| volume.tenant == self.shared.tenant);
        Ok(ours.map(|record| self.view_of(record)).collect())
    }

    /// One volume, as of now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn show_volume(&self, name: &str) -> Result<VolumeView, ClientError> {
        let mut trial = self.trial(format!("volume {name}"));
        self.refresh(&mut trial, None, 0).await?;
        let (_, record) = self.volume(&mut trial, name).await?;
        Ok(self.view_of(&record))
    }

    /// Deletes a volume with all its data. Its replicas go in the background.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_volume(&self, name: &str) -> Result<(), ClientError> {
        let mut trial = self.trial(format!("volume {name}"));
        self.refresh(&mut trial, None, 0).await?;
        let command =
            CatalogCommand::DeleteVolume { tenant: self.shared.tenant, name: name.to_owned() };
        self.change_catalog(&mut trial, &command).await?;
        // Until the map shows it, this client would still find the volume.
        let tenant = self.shared.tenant;
        loop {
            let map = self.map();
            match map.volume(tenant, name) {
                Some(record) if record.state != VolumeState::Deleting => {}
                Some(_) | None => return Ok(()),
            }
            self.renew_map(&mut trial).await?;
        }
    }

    fn view_of(&self, record: &VolumeRecord) -> VolumeView {
        let map = self.map();
        let record = map.view.volume_by_id(record.volume).unwrap_or(record);
        VolumeView {
            record: record.clone(),
            shards: map.shards_of(record).cloned().collect(),
            leaders: map.shards_of(record).map(|shard| self.hint(shard.shard)).collect(),
        }
    }
}

fn trial_left(client: &Client) -> Trial {
    client.trial("the new volume")
}

fn strange_outcome(trial: &Trial, outcome: &CatalogOutcome) -> ClientError {
    let kind = match outcome {
        CatalogOutcome::Done => "done",
        CatalogOutcome::Node(_) => "a node",
        CatalogOutcome::Volume(_) => "a volume",
        CatalogOutcome::Shard(_) => "a shard",
        CatalogOutcome::Replica(_) => "a replica",
        CatalogOutcome::Refused(_) => "a refusal",
    };
    ClientError::BadAnswer {
        subject: trial.subject().to_owned(),
        cause: format!("the catalog answered with {kind}"),
    }
}
