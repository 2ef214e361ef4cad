//! What only the node itself can do: admit others, make tokens, tell of itself.

use std::{fmt, sync::OnceLock, time::Duration};

use actors::{router::Router, switchboard::Gate, world::World};
use cluster::{
    auth::Principal,
    catalog::{
        command::{CatalogCommand, CatalogOutcome},
        record::{ClusterRecord, NodeRecord, NodeState},
    },
    ids::{CATALOG_SHARD, Epoch},
    limits::TOKEN_LIFETIME_MS_MAX,
    ports::network::BoxFuture,
    request::{Answer, Fault, JoinAnswer, JoinRequest, ShardBody, ShardRequest, ShardResult},
    shard::command::Outcome,
    units::WallTime,
};
use transport::identity::{Authority, ClusterKey, JoinToken, token_hash};

use super::status::NodeView;

/// Time the catalog has for one of these, an election included.
const DEADLINE: Duration = Duration::from_secs(8);
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(100);

/// The gate of a real node.
pub(super) struct NodeGate {
    world: World,
    key: ClusterKey,
    late: OnceLock<(Router, NodeView)>,
}

impl fmt::Debug for NodeGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeGate").finish_non_exhaustive()
    }
}

impl NodeGate {
    pub(super) fn new(world: World, key: ClusterKey) -> Self {
        Self { world, key, late: OnceLock::new() }
    }

    /// Gives it what starts after it.
    pub(super) fn set(&self, router: Router, view: NodeView) {
        let _ = self.late.set((router, view));
    }

    fn admission(&self) -> Option<Admission> {
        let (router, _) = self.late.get()?;
        Some(Admission { world: self.world.clone(), key: self.key.clone(), router: router.clone() })
    }
}

fn not_yet() -> Answer {
    Answer::Fault(Fault::Busy { retry_after_ms: 100 })
}

impl Gate for NodeGate {
    fn join(&self, request: JoinRequest) -> BoxFuture<Answer> {
        let admission = self.admission();
        Box::pin(async move {
            match admission {
                Some(admission) => admission.join(request).await.unwrap_or_else(Answer::Fault),
                None => not_yet(),
            }
        })
    }

    fn new_token(&self, lifetime_ms: u32) -> BoxFuture<Answer> {
        let admission = self.admission();
        Box::pin(async move {
            match admission {
                Some(admission) => {
                    admission.new_token(lifetime_ms).await.unwrap_or_else(Answer::Fault)
                }
                None => not_yet(),
            }
        })
    }

    fn status(&self) -> BoxFuture<Answer> {
        let view = self.late.get().map(|(_, view)| view.clone());
        Box::pin(async move {
            match view {
                Some(view) => Answer::NodeStatus(view.json()),
                None => not_yet(),
            }
        })
    }
}

fn strange(outcome: &CatalogOutcome) -> Fault {
    Fault::Invalid(format!("the catalog answered {outcome:?}"))
}

/// Admits nodes through the catalog.
struct Admission {
    world: World,
    key: ClusterKey,
    router: Router,
}

impl Admission {
    async fn join(&self, request: JoinRequest) -> Result<Answer, Fault> {
        let record = self.cluster()?;
        let authority = self.authority(&record)?;
        let now = self.world.clock.wall();
        // The certificate is made before the token is used up, so that a bad
        // signing request costs nothing, and handed out only after.
        let certificate = authority
            .sign_node_request(
                &request.signing_request,
                request.node,
                self.world.entropy.as_ref(),
                now,
            )
            .map_err(|error| Fault::Invalid(error.to_string()))?;
        let node = NodeRecord {
            node: request.node,
            number: 0,
            addresses: request.addresses,
            http_address: request.http_address,
            zone: request.zone,
            capacity_bytes: request.capacity_bytes,
            state: NodeState::Active,
            boot: request.boot,
        };
        let admit = CatalogCommand::AdmitNode { hash: token_hash(&request.secret), now, node };
        let number = match self.propose(admit).await? {
            CatalogOutcome::Node(admitted) => admitted.number,
            CatalogOutcome::Refused(refusal) => return Err(Fault::NotAllowed(refusal.to_string())),
            other @ (CatalogOutcome::Done
            | CatalogOutcome::Volume(_)
            | CatalogOutcome::Shard(_)
            | CatalogOutcome::Replica(_)) => return Err(strange(&other)),
        };
        let catalog = self.router.catalog();
        let members =
            catalog.active_nodes().map(|node| (node.node, node.addresses.clone())).collect();
        Ok(Answer::Joined(JoinAnswer {
            cluster: record.cluster,
            number,
            certificate,
            authority: record.authority,
            cluster_key: self.key.0,
            members,
        }))
    }

    async fn new_token(&self, lifetime_ms: u32) -> Result<Answer, Fault> {
        if !(1..=TOKEN_LIFETIME_MS_MAX).contains(&lifetime_ms) {
            let text = format!("a join token lives 1 ms to 15 min, not {lifetime_ms} ms");
            return Err(Fault::Invalid(text));
        }
        let record = self.cluster()?;
        let token = JoinToken::generate(&record.authority, self.world.entropy.as_ref());
        let expires = WallTime(self.world.clock.wall().0 + u64::from(lifetime_ms));
        match self.propose(CatalogCommand::AddToken { hash: token.hash(), expires }).await? {
            CatalogOutcome::Done => Ok(Answer::Token(token.to_string())),
            other @ (CatalogOutcome::Node(_)
            | CatalogOutcome::Volume(_)
            | CatalogOutcome::Shard(_)
            | CatalogOutcome::Replica(_)
            | CatalogOutcome::Refused(_)) => Err(strange(&other)),
        }
    }

    fn cluster(&self) -> Result<ClusterRecord, Fault> {
        self.router.catalog().cluster().cloned().ok_or(Fault::Busy { retry_after_ms: 200 })
    }

    fn authority(&self, record: &ClusterRecord) -> Result<Authority, Fault> {
        Authority::open(&record.authority, &record.authority_key_sealed, &self.key).map_err(
            |error| Fault::Stopped(format!("the cluster's authority cannot be opened: {error}")),
        )
    }

    /// Proposes to the catalog until it has answered or time is up.
    async fn propose(&self, command: CatalogCommand) -> Result<CatalogOutcome, Fault> {
        let last = self.world.clock.now() + DEADLINE;
        loop {
            let left = last.since(self.world.clock.now());
            let request = ShardRequest {
                shard: CATALOG_SHARD,
                epoch: Epoch(0),
                clock: self.world.hybrid.last(),
                timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
                forwarded: false,
                principal: Principal::Trusted,
                body: ShardBody::Catalog { request: None, command: command.clone() },
            };
            let fault = match self.router.shard(request).await.result {
                Ok(ShardResult::Outcome(Outcome::Catalog(outcome))) => return Ok(outcome),
                Ok(other) => Fault::Invalid(format!("the catalog answered {other:?}")),
                Err(fault) => fault,
            };
            if self.world.clock.now() + PAUSE >= last {
                return Err(fault);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
