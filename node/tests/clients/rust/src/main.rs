//! Drives whoever speaks etcd with `etcd-client`, and prints what it heard.
//!
//!     drive HOST:PORT
//!     drive survive HOST:PORT,HOST:PORT,…     (see [`survive`])
//!
//! Each line is a step, a tab, and the answer. `node/tests/etcd.rs` runs
//! this against a real etcd and against us, and compares the lines.

mod accounts;
mod keys;
mod leases;
mod members;
mod queues;
mod survive;
mod watches;

use std::fmt::Debug;

use etcd_client::{Client, Error};

/// One client, and where it asks.
struct Play {
    address: String,
    client: Client,
}

impl Play {
    /// Prints an answer.
    fn note<T: Debug>(&self, step: &str, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                say(step, &format!("{answer:?}"));
                Some(answer)
            }
            Err(error) => {
                say(step, &refusal(&error));
                None
            }
        }
    }
}

/// Prints what was seen.
fn say(step: &str, answer: &str) {
    println!("{step}\t{}", answer.replace('\n', "\\n"));
}

/// A refusal as programs see it: its code and its words.
fn refusal(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
        other => other.to_string(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    if address == "survive" {
        return survive::run(&std::env::args().nth(2).unwrap_or_default()).await;
    }
    let client = Client::connect([&address], None).await?;
    let mut play = Play { address, client };
    keys::play(&mut play).await;
    keys::transactions(&mut play).await;
    watches::play(&mut play).await?;
    keys::compaction(&mut play).await;
    watches::compacted(&mut play).await?;
    leases::play(&mut play).await;
    queues::locks(&mut play).await?;
    queues::elections(&mut play).await?;
    accounts::play(&mut play).await?;
    members::play(&mut play).await?;
    queues::retry(&mut play).await?;
    Ok(())
}
