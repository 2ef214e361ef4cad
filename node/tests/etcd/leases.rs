//! Leases: granted, kept, shown, ended.

use clusterdb::doors::etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest,
};
use futures_util::stream;

use crate::{
    keys::{get, put},
    play::Play,
};

pub(crate) async fn play(play: &mut Play) {
    for (step, ttl, id) in [
        ("grant a lease", 100, 7),
        ("grant it again", 100, 7),
        ("grant a short one", 1, 8),
        ("grant none", 0, 9),
        ("grant one for ever", 9_000_000_001, 10),
    ] {
        let answer = play.lease.lease_grant(LeaseGrantRequest { ttl, id }).await;
        play.note(step, answer);
    }
    // Those of two seconds end in their own time.
    for id in [8, 9] {
        drop(play.lease.lease_revoke(LeaseRevokeRequest { id }).await);
    }
    for key in ["l/1", "l/2", "l/3"] {
        let answer = play.kv.put(PutRequest { lease: 7, ..put(key, "held") }).await;
        play.note("put under a lease", answer);
    }
    let answer = play.kv.put(put("l/3", "free")).await;
    play.note("put it free again", answer);
    let answer = play.kv.range(get("l/", "l0")).await;
    play.note("keys under leases", answer);
    show(play).await;
    keep(play).await;
    for (step, id) in
        [("revoke with two keys", 7), ("revoke it again", 7), ("revoke an unknown one", 77)]
    {
        let answer = play.lease.lease_revoke(LeaseRevokeRequest { id }).await;
        play.note(step, answer);
    }
    let answer = play.kv.range(get("l/", "l0")).await;
    play.note("keys after the lease", answer);
}

async fn show(play: &mut Play) {
    let answer = play.lease.lease_leases(LeaseLeasesRequest {}).await;
    play.note("list leases", answer);
    for (step, id, keys) in [
        ("show a lease", 7, false),
        ("show it with its keys", 7, true),
        ("show an unknown one", 77, true),
    ] {
        let asked = LeaseTimeToLiveRequest { id, keys };
        let answer = play.lease.lease_time_to_live(asked).await.map(|mut answer| {
            let shown = answer.get_mut();
            // Some seconds may have passed; etcd's keys come in no order.
            if (90..=100).contains(&shown.ttl) {
                shown.ttl = 100;
            }
            shown.keys.sort();
            answer
        });
        play.note(step, answer);
    }
}

async fn keep(play: &mut Play) {
    let asked = [7, 77].map(|id| LeaseKeepAliveRequest { id });
    let kept = play.lease.lease_keep_alive(stream::iter(asked)).await;
    let mut kept = kept.unwrap().into_inner();
    for step in ["keep a lease alive", "keep an unknown one alive"] {
        let answer = kept.message().await;
        play.say(step, &format!("{:?}", answer.map_err(|status| crate::play::told(&status))));
    }
}
