//! Goes on while members die: `drive survive HOST:PORT,HOST:PORT,…`
//!
//! Writes one key after another, each until it is acknowledged (`put N`), watches them
//! (`saw N`), and keeps a lease of a few seconds alive. Ends when nobody types any more,
//! and then says how many keys there are (`keys N`) and whether the lease lives.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, Error, GetOptions, LeaseGrantOptions, WatchOptions};
use tokio::time::sleep;

const LEASE: i64 = 7;
const LEASE_SECONDS: i64 = 10;
const PAUSE: Duration = Duration::from_millis(20);
const ANSWER: Duration = Duration::from_secs(3);

pub(crate) async fn run(addresses: &str) -> Result<(), Error> {
    let options = ConnectOptions::new()
        .with_timeout(ANSWER)
        .with_connect_timeout(ANSWER)
        .with_keep_alive(Duration::from_secs(1), ANSWER);
    let endpoints: Vec<&str> = addresses.split(',').collect();
    let mut client = Client::connect(endpoints, Some(options)).await?;
    let options = LeaseGrantOptions::new().with_id(LEASE);
    client.lease_grant(LEASE_SECONDS, Some(options)).await?;
    let from = client.get("none", None).await?.header().map_or(0, |header| header.revision());
    tokio::spawn(watch(client.clone(), from + 1));
    tokio::spawn(keep(client.clone()));
    let over = Arc::new(AtomicBool::new(false));
    let typed = over.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        typed.store(true, Ordering::Release);
    });
    let mut number = 0;
    while !over.load(Ordering::Acquire) {
        match client.put(format!("s/{number:06}"), number.to_string(), None).await {
            Ok(_) => {
                println!("put {number}");
                number += 1;
            }
            Err(error) => eprintln!("put {number}: {error}"),
        }
        sleep(PAUSE).await;
    }
    let options = GetOptions::new().with_prefix().with_count_only();
    println!("keys {}", client.get("s/", Some(options)).await?.count());
    let lives = client.lease_time_to_live(LEASE, None).await?.ttl() > 0;
    println!("lease {lives}");
    // The watch may be a moment behind.
    sleep(ANSWER).await;
    Ok(())
}

/// Tells of every key; goes on where it stood at whoever is there.
async fn watch(mut client: Client, mut from: i64) {
    loop {
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let watched = client.watch("s/", Some(options)).await;
        if let Err(error) = follow(watched, &mut from).await {
            eprintln!("watch: {error}");
        }
        sleep(PAUSE).await;
    }
}

async fn follow(
    watched: Result<etcd_client::WatchStream, Error>,
    from: &mut i64,
) -> Result<(), Error> {
    let mut stream = watched?;
    while let Some(told) = stream.message().await? {
        for key in told.events().iter().filter_map(|event| event.kv()) {
            println!("saw {}", key.value_str()?);
            *from = key.mod_revision() + 1;
        }
    }
    Ok(())
}

async fn keep(mut client: Client) {
    loop {
        if let Err(error) = keep_alive(&mut client).await {
            eprintln!("keep alive: {error}");
        }
        sleep(PAUSE).await;
    }
}

async fn keep_alive(client: &mut Client) -> Result<(), Error> {
    let (mut keeper, mut kept) = client.lease_keep_alive(LEASE).await?;
    loop {
        keeper.keep_alive().await?;
        if kept.message().await?.is_none() {
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
}
