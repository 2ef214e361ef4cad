//! Transactions that read the past, sent as no client library sends them.
//!
//! What one would be told depends on how far a replica has let go of history, so
//! replicas would part: nodes refuse it, whatever stands before the read. Row A2 of
//! the bug catalogue; etcd's #18667.

use std::time::Duration;

use cluster::{
    auth::Principal,
    mvcc::version::Hlc,
    request::{self, Fault, Request, ShardAnswer, ShardBody, ShardRequest, ShardResult},
    shard::{
        command::{Outcome, Refusal, SessionRequest},
        descriptor::ShardDescriptor,
        transaction::{Transaction, TransactionError},
    },
};

use super::{Player, plain_done, volume};
use crate::oracle::keyspace::Answer;

/// Time for a node to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Asks a node to do a transaction, whatever is wrong with it; none if what came of it
/// is not known.
pub(super) async fn insist(player: &Player, transaction: &Transaction) -> Option<Answer> {
    let view = player.client.show_volume(&volume(player)).await.ok()?;
    let shard = view.shards.first()?;
    let opened = ask(player, shard, ShardBody::OpenSession).await?.ok()?;
    let ShardResult::Outcome(Outcome::Session(session)) = opened else { return None };
    let request = SessionRequest { session, number: 1, answered: 0 };
    let transaction = transaction.clone();
    let told = ask(player, shard, ShardBody::Transact { request, transaction }).await?;
    let _ = ask(player, shard, ShardBody::CloseSession(session)).await;
    let past = TransactionError::ReadsThePast;
    match told {
        Ok(ShardResult::Outcome(Outcome::Transacted(done))) => {
            Some(Answer::Transacted(plain_done(done)))
        }
        Ok(ShardResult::Outcome(Outcome::Refused(Refusal::Transaction(why)))) => {
            Some(Answer::Refused(why))
        }
        Err(Fault::Invalid(why)) if why == past.to_string() => Some(Answer::Refused(past)),
        Ok(_) | Err(_) => None,
    }
}

async fn ask(
    player: &Player,
    shard: &ShardDescriptor,
    body: ShardBody,
) -> Option<Result<ShardResult, Fault>> {
    let request = Request::Shard(ShardRequest {
        shard: shard.shard,
        epoch: shard.epoch,
        clock: Hlc(0),
        timeout_ms: u32::try_from(ANSWER.as_millis()).unwrap_or(u32::MAX),
        forwarded: false,
        principal: Principal::Trusted,
        body,
    });
    let class = request.class();
    match player.door.call(None, class, request, ANSWER).await {
        Ok(request::Answer::Shard(ShardAnswer { result, .. })) => Some(result),
        Ok(_) | Err(_) => None,
    }
}
