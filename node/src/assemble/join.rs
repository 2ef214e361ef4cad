//! How a node enters a cluster: one request with a token, without a certificate.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use cluster::{
    ids::NodeId,
    membership::Boot,
    ports::{clock::Clock, entropy::Entropy},
    request::{Answer, Fault, JoinAnswer, JoinRequest, Request},
};
use transport::{
    client::{ClientError, ClientParts, join as connect},
    identity::{Credentials, JoinToken, PrivateKey},
};

use crate::{
    cli::start::JoinRefused,
    config::{HostPort, NodeConfig},
    data_dir::{DataDir, NodeIdentity, NodeSecrets},
    devices::{clock::SystemClock, entropy::SystemEntropy},
};

/// Time for one try; the other side may need an election.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Tries before the join is given up.
const TRIES: u32 = 5;
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(500);

/// A member and where it is reached.
pub(super) type Seed = (NodeId, Vec<String>);

/// Joins a cluster and writes the node's identity; returns its members.
pub(super) async fn join(
    config: &NodeConfig,
    dir: &mut DataDir,
    addr: &HostPort,
    token: &JoinToken,
    clock: &Arc<SystemClock>,
    entropy: &Arc<SystemEntropy>,
) -> anyhow::Result<Vec<Seed>> {
    dir.expect_fresh()?;
    let node = NodeId(entropy.next_u128());
    let key = PrivateKey::generate(entropy.as_ref());
    let request = JoinRequest {
        secret: token.secret,
        node,
        signing_request: key.signing_request(node)?,
        addresses: vec![config.advertise.to_string()],
        http_address: config.http.map(|http| http.to_string()).unwrap_or_default(),
        zone: config.zone.to_string(),
        capacity_bytes: config.capacity.map_or(0, cluster::units::ByteSize::bytes),
        // Its first start is registered when it comes.
        boot: Boot::default(),
    };
    let parts = || {
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (clock.clone(), entropy.clone());
        ClientParts { entropy, clock }
    };
    let answer = ask(addr, token, &request, parts).await?;
    let identity = NodeIdentity { cluster: answer.cluster, node };
    let credentials = Credentials::new(answer.authority.clone(), answer.certificate.clone(), key)
        .context("the certificate that came does not fit")?;
    let secrets = NodeSecrets {
        certificates_pem: credentials.certificates_pem(),
        key_pem: credentials.key_pem(),
        cluster_key: answer.cluster_key,
    };
    dir.create(identity, &secrets, None)?;
    tracing::info!(cluster = %answer.cluster, number = answer.number, "joined");
    Ok(answer.members)
}

/// Asks until there is an answer. The same node may ask again with its token.
async fn ask(
    addr: &HostPort,
    token: &JoinToken,
    request: &JoinRequest,
    parts: impl Fn() -> ClientParts,
) -> anyhow::Result<JoinAnswer> {
    let endpoint = addr.to_string();
    let body = bytes::Bytes::from(Request::Join(request.clone()).encode());
    let mut last = anyhow::anyhow!("no answer");
    for _ in 0..TRIES {
        let answer = match connect(&endpoint, token, parts()).await {
            Ok(connection) => connection.request(body.clone(), TIMEOUT).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(bytes) => match Answer::decode(&bytes)? {
                Answer::Joined(answer) => return Ok(answer),
                Answer::Fault(fault @ (Fault::NotAllowed(_) | Fault::Invalid(_))) => {
                    return Err(JoinRefused(format!("{endpoint} refused the join: {fault}")).into());
                }
                Answer::Fault(Fault::Busy { .. }) => {
                    last = anyhow::anyhow!("it is starting, or too much is under way there");
                }
                Answer::Fault(fault) => last = fault.into(),
                other @ (Answer::Shard(_)
                | Answer::CatalogChanges { .. }
                | Answer::NodeStatus(_)
                | Answer::SnapshotPiece(_)
                | Answer::Token(_)) => bail!("{endpoint} answered something else: {other:?}"),
            },
            // Another cluster's node, or none of ours: trying again is no use.
            Err(error @ ClientError::WrongCertificate { .. }) => {
                return Err(JoinRefused(error.to_string()).into());
            }
            Err(error) => last = error.into(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(last.context(format!("cannot join through {endpoint}")))
}
