//! Watches: of news, of the past, filtered, in parts, of what was compacted.

use std::time::Duration;

use etcd_client::{Error, Txn, TxnOp, WatchFilterType, WatchOptions, WatchResponse, WatchStream};
use tokio::time::timeout;

use crate::{Play, refusal, say};

/// Longest wait for one response.
const ANSWER: Duration = Duration::from_secs(10);

async fn next(stream: &mut WatchStream) -> Result<WatchResponse, String> {
    match timeout(ANSWER, stream.message()).await {
        Ok(Ok(Some(response))) => Ok(response),
        Ok(Ok(None)) => Err("the stream ended".to_owned()),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(_) => Err("nothing came".to_owned()),
    }
}

async fn note(stream: &mut WatchStream, step: &str) {
    let response = next(stream).await;
    say(step, &format!("{response:?}"));
}

/// Prints so many events, however they were grouped.
async fn events(stream: &mut WatchStream, step: &str, count: usize) {
    let mut seen = Vec::new();
    while seen.len() < count {
        match next(stream).await {
            Ok(response) => {
                let told = response.events().iter().map(|event| {
                    let size = event.kv().map_or(0, |kv| kv.value().len());
                    // A large value is told by its size.
                    if size > 100 { format!("{size} bytes") } else { format!("{event:?}") }
                });
                seen.extend(told);
            }
            Err(cause) => seen.extend([cause, "then no more".to_owned()]),
        }
        if seen.last().is_some_and(|last| last == "then no more") {
            break;
        }
    }
    say(step, &seen.join(", "));
}

pub(crate) async fn play(play: &mut Play) -> Result<(), Error> {
    news(play).await?;
    past(play).await
}

async fn news(play: &mut Play) -> Result<(), Error> {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = play.client.watch("w/", Some(options)).await?;
    note(&mut stream, "watch from now on").await;
    play.client.put("w/1", "1", None).await?;
    play.client.put("w/1", "2", None).await?;
    let both = [TxnOp::put("w/2", "3", None), TxnOp::put("w/3", "4", None)];
    play.client.txn(Txn::new().and_then(both)).await?;
    play.client.delete("w/1", None).await?;
    events(&mut stream, "what happened, with what was there", 5).await;
    stream.request_progress().await?;
    note(&mut stream, "how far nothing more happened").await;
    stream.cancel(0).await?;
    note(&mut stream, "cancel").await;
    let options = WatchOptions::new().with_watch_id(7).with_start_revision(1_000_000);
    stream.watch("w/1", Some(options)).await?;
    note(&mut stream, "watch the future under a number").await;
    stream.watch("w/1", Some(WatchOptions::new().with_watch_id(7))).await?;
    note(&mut stream, "watch under a number in use").await;
    stream.watch("z", Some(WatchOptions::new().with_range("a"))).await?;
    note(&mut stream, "watch a range that ends before it begins").await;
    Ok(())
}

async fn past(play: &mut Play) -> Result<(), Error> {
    let since = || WatchOptions::new().with_start_revision(2);
    let mut stream = play.client.watch("a", Some(since())).await?;
    note(&mut stream, "watch from a revision on").await;
    events(&mut stream, "all that happened to one key", 4).await;
    let deletes = since().with_all_keys().with_filters([WatchFilterType::NoPut]);
    let mut stream = play.client.watch("", Some(deletes)).await?;
    note(&mut stream, "watch deletes of all keys").await;
    events(&mut stream, "all deletes", 6).await;
    for name in ["f/1", "f/2", "f/3"] {
        play.client.put(name, "x".repeat(900_000), None).await?;
    }
    let parts = since().with_prefix().with_fragment();
    let mut stream = play.client.watch("f/", Some(parts)).await?;
    note(&mut stream, "watch in parts").await;
    events(&mut stream, "large values in parts", 3).await;
    Ok(())
}

/// After the revision 10 was compacted.
pub(crate) async fn compacted(play: &mut Play) -> Result<(), Error> {
    let options = WatchOptions::new().with_start_revision(3);
    let mut stream = play.client.watch("a", Some(options)).await?;
    note(&mut stream, "watch what is gone").await;
    note(&mut stream, "what is gone cannot be told").await;
    let options = WatchOptions::new().with_start_revision(10).with_prefix();
    stream.watch("w/", Some(options)).await?;
    note(&mut stream, "watch from the compacted revision on").await;
    events(&mut stream, "what happened since", 5).await;
    Ok(())
}
