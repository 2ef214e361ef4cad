//! What is asked, step by step, and the answers without names.

use std::{fmt::Debug, time::Duration};

use clusterdb::doors::etcd::proto::etcdserverpb::{
    cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

/// Longest wait for one answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Each step, and its answer.
pub(crate) type Answers = Vec<(String, String)>;

/// One client, and what it was told.
pub(crate) struct Play {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) lease: LeaseClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
    /// The release it says it is.
    pub(crate) version: String,
    pub(crate) answers: Answers,
}

impl Play {
    pub(crate) async fn begin(address: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.timeout(ANSWER).connect().await.unwrap();
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
            version: String::new(),
            answers: Vec::new(),
        }
    }

    /// Writes an answer down.
    pub(crate) fn note<T: Debug>(&mut self, step: &str, answer: Result<Response<T>, Status>) {
        let answer = match answer {
            Ok(answer) => format!("{:?}", answer.into_inner()),
            Err(status) => told(&status),
        };
        self.say(step, &answer);
    }

    /// Writes down what was seen.
    pub(crate) fn say(&mut self, step: &str, answer: &str) {
        self.answers.push((step.to_owned(), anonymous(answer)));
    }
}

/// A refusal as clients see it.
pub(crate) fn told(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An answer without what names a member, its cluster or a term; whether it names them
/// stays.
pub(crate) fn anonymous(answer: &str) -> String {
    let mut answer = answer.to_owned();
    let names = ["cluster_id", "member_id", "raft_term", "ClusterID\"", "MemberID\"", "RaftTerm\""];
    for name in names {
        for mark in [": ", " : ", "\":"] {
            answer = lettered(&answer, &format!("{name}{mark}"));
        }
    }
    answer
}

/// The digits after each `label` as one letter, or as the zero they are.
pub(crate) fn lettered(text: &str, label: &str) -> String {
    let mut parts = text.split(label);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &part[..part.len() - rest.len()];
        result.push_str(label);
        result.push_str(if ["", "0"].contains(&digits) { digits } else { "N" });
        result.push_str(rest);
    }
    result
}
