//! Members and their upkeep.

use clusterdb::doors::etcd::proto::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, DowngradeRequest, HashKvRequest, MemberAddRequest,
    MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
    MoveLeaderRequest, SnapshotRequest, StatusRequest, alarm_request::AlarmAction,
};

use crate::play::{Play, told};

pub(crate) async fn play(play: &mut Play) {
    let status = play.maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    let sane = status.leader != 0 && status.raft_index >= status.raft_applied_index;
    play.say("status", &format!("revision {} sane {sane}", status.header.unwrap().revision));
    play.version = status.version;
    let members = play.cluster.member_list(MemberListRequest::default()).await.unwrap();
    let reached = members.into_inner().members.iter().all(|m| m.client_ur_ls.len() == 1);
    play.say("members", &format!("each with one address: {reached}"));
    let answer = play.maintenance.alarm(AlarmRequest::default()).await;
    play.note("alarms", answer);
    alarm(play, "raise an alarm", AlarmAction::Activate).await;
    alarm(play, "disarm it", AlarmAction::Deactivate).await;
    let answer = play.maintenance.defragment(DefragmentRequest {}).await;
    play.note("defragment", answer);
    let target_id = 7;
    hash(play, "hash of keys").await;
    let answer = play.maintenance.hash_kv(HashKvRequest { revision: 99_999 }).await;
    play.note("hash of the future", answer);
    let answer = play.maintenance.move_leader(MoveLeaderRequest { target_id }).await;
    // Whether this member leads is chance with three.
    let refused = answer.map_err(|status| status.code());
    play.say("move the leader to nobody", &format!("{:?}", refused.map(drop)));
    snapshot(play).await;
    changes(play).await;
}

async fn alarm(play: &mut Play, step: &str, action: AlarmAction) {
    let of = AlarmType::Nospace as i32;
    let request = AlarmRequest { action: action as i32, member_id: 0, alarm: of };
    let answer = play.maintenance.alarm(request).await;
    let alarms = answer.map(|answer| format!("{} alarms", answer.into_inner().alarms.len()));
    play.say(step, &alarms.unwrap_or_else(|status| told(&status)));
}

/// The hash itself is of what each keeps.
pub(crate) async fn hash(play: &mut Play, step: &str) {
    let answer = play.maintenance.hash_kv(HashKvRequest { revision: 0 }).await;
    let hash = answer.map(|hash| {
        let hash = hash.into_inner();
        let revision = hash.header.unwrap().revision;
        format!("revision {revision}, compacted at {}", hash.compact_revision)
    });
    play.say(step, &hash.unwrap_or_else(|status| told(&status)));
}

async fn snapshot(play: &mut Play) {
    let mut pieces = play.maintenance.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend(piece.blob);
    }
    play.say("snapshot", &format!("a sum at its end: {}", bytes.len() % 512 == 32));
}

async fn changes(play: &mut Play) {
    let peer_ur_ls = vec!["http://127.0.0.1:1".to_owned()];
    let id = 7;
    let answer = play.cluster.member_remove(MemberRemoveRequest { id }).await;
    play.note("remove a member", answer);
    let update = MemberUpdateRequest { id, peer_ur_ls: peer_ur_ls.clone() };
    let answer = play.cluster.member_update(update).await;
    play.note("update a member", answer);
    // etcd asks its leader about it, and at times does not hear in time.
    let answer = play.cluster.member_promote(MemberPromoteRequest { id }).await;
    play.say("promote a member", if answer.is_err() { "refused" } else { "done" });
    let answer = play.maintenance.downgrade(DowngradeRequest::default()).await;
    play.note("downgrade", answer);
    // Last: one member of two that does not exist leaves etcd without a majority.
    let add = MemberAddRequest { peer_ur_ls, ..MemberAddRequest::default() };
    let answer = play.cluster.member_add(add).await.map(drop_names);
    play.note("add a member", answer);
}

fn drop_names<T>(answer: tonic::Response<T>) -> tonic::Response<&'static str> {
    answer.map(|_| "a member of whom nobody has heard")
}
