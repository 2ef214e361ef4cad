//! Leases: granted, kept, shown, ended.

use etcd_client::{GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};

use crate::{Play, say};

pub(crate) async fn play(play: &mut Play) {
    for (step, ttl, id) in [
        ("grant a lease", 100, 7),
        ("grant it again", 100, 7),
        ("grant none", 0, 9),
        ("grant one for ever", 9_000_000_001, 10),
    ] {
        let options = LeaseGrantOptions::new().with_id(id);
        let answer = play.client.lease_grant(ttl, Some(options)).await;
        play.note(step, answer);
    }
    // What two seconds would end ends now.
    let _ = play.client.lease_revoke(9).await;
    for key in ["l/1", "l/2"] {
        let options = PutOptions::new().with_lease(7);
        let answer = play.client.put(key, "held", Some(options)).await;
        play.note("put under a lease", answer);
    }
    let answer = play.client.leases().await;
    play.note("list leases", answer);
    show(play).await;
    keep(play).await;
    for (step, id) in [("revoke with two keys", 7), ("revoke it again", 7)] {
        let answer = play.client.lease_revoke(id).await;
        play.note(step, answer);
    }
    let answer = play.client.get("l/", Some(GetOptions::new().with_prefix())).await;
    play.note("keys after the lease", answer);
}

async fn show(play: &mut Play) {
    for (step, id, keys) in [
        ("show a lease", 7, false),
        ("show it with its keys", 7, true),
        ("show an unknown one", 77, true),
    ] {
        let options = LeaseTimeToLiveOptions::new();
        let options = if keys { options.with_keys() } else { options };
        let shown = play.client.lease_time_to_live(id, Some(options)).await;
        let Ok(shown) = shown else {
            play.note(step, shown);
            continue;
        };
        let mut held: Vec<_> =
            shown.keys().iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        // etcd's come in no order; and some seconds may have passed.
        held.sort();
        let left = if (90..=100).contains(&shown.ttl()) { 100 } else { shown.ttl() };
        say(step, &format!("{} of {} for {held:?}", left, shown.granted_ttl()));
    }
}

async fn keep(play: &mut Play) {
    let kept = play.client.lease_keep_alive(7).await;
    if let Ok((mut keeper, mut told)) = kept {
        let again = keeper.keep_alive().await;
        play.note("keep a lease alive", again);
        let told = told.message().await;
        play.note("it is kept", told);
    }
    let kept = play.client.lease_keep_alive(77).await.map(|_| "kept");
    play.note("keep an unknown one alive", kept);
}
