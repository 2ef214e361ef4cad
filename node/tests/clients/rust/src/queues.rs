//! Locks and elections.

use std::time::Duration;

use etcd_client::{
    Client, Error, GetOptions, LeaderResponse, LeaseGrantOptions, LockOptions, ProclaimOptions,
    ResignOptions,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{Play, say};

/// Longest wait for what must come; and how long what must not come is waited for.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(500);

/// Waits until another one stands in a queue behind the first: what is done before makes
/// other revisions. To look makes none.
async fn await_second(play: &mut Play, queue: &str) -> Result<(), Error> {
    let places = || Some(GetOptions::new().with_prefix().with_count_only());
    let queued = async {
        while play.client.get(queue, places()).await?.count() < 2 {
            sleep(SHORT / 10).await;
        }
        Ok(())
    };
    // Whoever does not come in time is missed in what is told next.
    timeout(LONG, queued).await.unwrap_or(Ok(()))
}

pub(crate) async fn locks(play: &mut Play) -> Result<(), Error> {
    for id in [21, 22] {
        play.client.lease_grant(100, Some(LeaseGrantOptions::new().with_id(id))).await?;
    }
    let with = |lease: i64| Some(LockOptions::new().with_lease(lease));
    let answer = play.client.lock("lock", with(21)).await;
    let first = play.note("lock", answer);
    let mut other = Client::connect([&play.address], None).await?;
    let mut second = tokio::spawn(async move { other.lock("lock", with(22)).await });
    await_second(play, "lock/").await?;
    let waits = timeout(SHORT, &mut second).await.is_err();
    say("another one waits", &waits.to_string());
    if let Some(first) = first {
        let answer = play.client.unlock(first.key()).await;
        play.note("unlock", answer);
    }
    match timeout(LONG, second).await {
        Ok(Ok(answer)) => drop(play.note("the other one has it", answer)),
        _ => say("the other one has it", "no"),
    }
    let answer = play.client.unlock("lock/nobody").await;
    play.note("unlock what is not locked", answer);
    let answer = play.client.lock("lock", with(77)).await;
    play.note("lock under an unknown lease", answer);
    Ok(())
}

/// Takes one lock twice. Last, for it may cost a revision.
pub(crate) async fn retry(play: &mut Play) -> Result<(), Error> {
    play.client.lease_grant(100, Some(LeaseGrantOptions::new().with_id(23))).await?;
    for step in ["lock", "lock it again under the same lease"] {
        let options = LockOptions::new().with_lease(23);
        let answer = play.client.lock("again", Some(options)).await;
        play.note(step, answer);
    }
    Ok(())
}

/// Who leads, as an observer hears it. etcd answers nothing, not even headers,
/// before there is a leader.
struct Observer(mpsc::UnboundedReceiver<Result<Option<LeaderResponse>, Error>>);

async fn observe(play: &Play) -> Result<Observer, Error> {
    let mut client = Client::connect([&play.address], None).await?;
    let (tells, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let Ok(mut leaders) = client.observe("chair").await else { return };
        while tells.send(leaders.message().await).is_ok() {}
    });
    Ok(Observer(told))
}

impl Observer {
    async fn next(&mut self) -> Result<Option<LeaderResponse>, Error> {
        timeout(LONG, self.0.recv()).await.ok().flatten().unwrap_or(Ok(None))
    }
}

pub(crate) async fn elections(play: &mut Play) -> Result<(), Error> {
    let answer = play.client.leader("chair").await;
    play.note("no leader yet", answer);
    let mut told = observe(play).await?;
    let answer = play.client.campaign("chair", "one", 21).await;
    let won = play.note("campaign", answer).and_then(|mut won| won.take_leader());
    let Some(won) = won else { return Ok(()) };
    let seen = told.next().await;
    play.note("observe the first", seen);
    let mut other = Client::connect([&play.address], None).await?;
    let mut second = tokio::spawn(async move { other.campaign("chair", "two", 22).await });
    await_second(play, "chair/").await?;
    say("another one waits", &timeout(SHORT, &mut second).await.is_err().to_string());
    let say_more = || Some(ProclaimOptions::new().with_leader(won.clone()));
    let answer = play.client.proclaim("more", say_more()).await;
    play.note("proclaim", answer);
    let seen = told.next().await;
    play.note("observe what was proclaimed", seen);
    let answer = play.client.leader("chair").await;
    play.note("who leads", answer);
    let resign = Some(ResignOptions::new().with_leader(won.clone()));
    let answer = play.client.resign(resign).await;
    play.note("resign", answer);
    match timeout(LONG, second).await {
        Ok(Ok(answer)) => drop(play.note("the other one leads", answer)),
        _ => say("the other one leads", "no"),
    }
    let seen = told.next().await;
    play.note("observe the second", seen);
    let answer = play.client.proclaim("late", say_more()).await;
    play.note("proclaim without leading", answer);
    let answer = play.client.resign(None).await;
    play.note("resign from nothing", answer);
    Ok(())
}
