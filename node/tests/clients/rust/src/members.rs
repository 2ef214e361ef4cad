//! Members and their upkeep.

use etcd_client::{AlarmAction, AlarmType, Error};

use crate::{Play, say};

pub(crate) async fn play(play: &mut Play) -> Result<(), Error> {
    let status = play.client.status().await?;
    let revision = status.header().map_or(0, |header| header.revision());
    let sane = status.leader() != 0 && status.raft_index() >= status.raft_applied_index();
    say("status", &format!("revision {revision} sane {sane} learner {}", status.is_learner()));
    let members = play.client.member_list().await?;
    let reached = members.members().iter().all(|member| member.client_urls().len() == 1);
    say("members", &format!("each with one address: {reached}"));
    let alarms = play.client.alarm(AlarmAction::Get, AlarmType::None, None).await;
    play.note("alarms", alarms.map(|answer| answer.alarms().len()));
    let answer = play.client.defragment().await;
    play.note("defragment", answer);
    let hash = play.client.hash_kv(0).await.map(|hash| hash.header().map(|h| h.revision()));
    play.note("hash of keys", hash);
    let hash = play.client.hash_kv(99_999).await;
    play.note("hash of the future", hash);
    let mut pieces = play.client.snapshot().await?;
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await? {
        bytes += piece.blob().len();
    }
    say("snapshot", &format!("a sum at its end: {}", bytes % 512 == 32));
    Ok(())
}
