//! Transactions that read the past, sent as no client library sends them.
//!
//! What one would be told depends on how far a replica has let go of history, so
//! replicas would part: nodes refuse it, whatever stands before the read. Row A2 of
//! the bug catalogue; etcd's #18667.

use cluster::{
    request::{Fault, ShardBody, ShardResult},
    shard::{
        command::{Outcome, Refusal, SessionRequest},
        transaction::{Transaction, TransactionError},
    },
};

use super::{Player, plain_done, volume};
use crate::oracle::keyspace::Answer;

/// Asks a node to do a transaction, whatever is wrong with it; none if what came of it
/// is not known.
pub(super) async fn insist(player: &Player, transaction: &Transaction) -> Option<Answer> {
    let view = player.client.show_volume(&volume(player)).await.ok()?;
    let at = view.shards.first().map(|shard| (shard.shard, shard.epoch))?;
    let opened = player.ask(None, at, ShardBody::OpenSession).await?.ok()?;
    let ShardResult::Outcome(Outcome::Session(session)) = opened else { return None };
    let request = SessionRequest { session, number: 1, answered: 0 };
    let transaction = transaction.clone();
    let told = player.ask(None, at, ShardBody::Transact { request, transaction }).await?;
    let _ = player.ask(None, at, ShardBody::CloseSession(session)).await;
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
