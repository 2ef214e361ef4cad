//! Holders of one lock that write what it protects, and at times sleep through the
//! end of their lease and write all the same.
//!
//! Every write brings its holder's fence and is shown what was written before.
//! Judged: tokens never fall from one write to the next, so whoever slept until
//! another one held was refused.
//! Source: row A3 of the bug catalogue (Jepsen on etcd 3.4.3).

use std::time::Duration;

use actors::client::{ClientError, Lock};
use cluster::{
    mvcc::version::Version,
    request::ReadLevel,
    shard::{
        range::Range,
        transaction::{Keys, Step, StepResult, Transaction},
    },
};

use super::{Play, Player, Shared, Wrong, halve};

/// The lock, and what it protects.
const LOCK: &str = "lock";
const GUARDED: &str = "guarded";
/// How long a lock lives that nobody keeps.
const TTL: Duration = Duration::from_millis(2_500);

/// The workload.
#[derive(Clone, Debug)]
pub struct Locks {
    clients: u32,
    rest: (Duration, Duration),
    seen: Shared<Seen>,
}

/// What holders were told.
#[derive(Debug, Default)]
struct Seen {
    /// Writes that were let in: version and token.
    written: Vec<(Version, Version)>,
    wrong: Wrong,
}

fn volume(player: &Player) -> String {
    format!("{}-locked", player.volume)
}

impl Locks {
    /// Clients that take turns.
    pub fn new(clients: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, rest, seen: Shared::default() }
    }
}

impl Play for Locks {
    const NAME: &'static str = "locks";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        player.create_single(&volume(&player)).await
    }

    async fn work(self, mut player: Player) {
        while !player.is_over() {
            let lock = player.client.lock(&volume(&player), LOCK, TTL).await;
            let held = match player.noted("takes the lock", lock) {
                Ok(lock) => self.hold(&mut player, lock).await,
                Err(error) => Err(error),
            };
            if let Err(error) = held {
                player.failed("hold the lock", &error);
            }
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        let guarded = Range::of(Keys::from(GUARDED));
        player.client.range(&volume(&player), guarded, ReadLevel::Strong).await.map(drop)
    }

    fn verdict(&self) -> Result<(), String> {
        let seen = self.seen.lock();
        seen.wrong.verdict()?;
        judge(&seen.written)
    }
}

impl Locks {
    /// Writes a few times; then gives the lock back, or sleeps and writes again.
    async fn hold(&self, player: &mut Player, lock: Lock) -> Result<(), ClientError> {
        for _ in 0..=player.rng.below(3) {
            self.write(player, &lock).await?;
            player.rest(self.rest).await;
        }
        if player.is_over() || player.rng.chance(600_000) {
            return lock.release().await;
        }
        player.note("sleeps as holder of the lock");
        let end = player.now() + TTL * 2;
        while player.now() < end {
            if player.is_over() {
                return Ok(());
            }
            tokio::time::sleep(TTL / 10).await;
        }
        if !self.write(player, &lock).await? {
            player.trace.count("holder fenced off");
        }
        Ok(())
    }

    /// Writes as the holder; whether it was let in.
    async fn write(&self, player: &Player, lock: &Lock) -> Result<bool, ClientError> {
        let token = lock.token();
        let write = Transaction::new()
            .when(lock.fence())
            .then(Step::get(GUARDED))
            .then(Step::put(GUARDED, token.0.to_be_bytes()));
        let done = player.client.transact(&volume(player), write).await;
        let done = player.noted(&format!("writes with token {token}"), done)?;
        if !done.succeeded {
            return Ok(false);
        }
        let before = done.results.into_iter().flatten().find_map(|step| match step {
            StepResult::Read(read) => read.items.first().and_then(|item| token_of(&item.value)),
            StepResult::Put { .. } | StepResult::Deleted { .. } | StepResult::Nested { .. } => None,
        });
        player.trace.count("guarded write");
        let mut seen = self.seen.lock();
        seen.written.push((done.version, token));
        if let Some(before) = before.filter(|before| *before > token) {
            let wrong = format!("token {token} was let in after {before}");
            player.accuse(&mut seen.wrong, wrong);
        }
        Ok(true)
    }
}

fn token_of(value: &[u8]) -> Option<Version> {
    value.try_into().ok().map(|bytes| Version(u64::from_be_bytes(bytes)))
}

/// Tokens never fall.
fn judge(written: &[(Version, Version)]) -> Result<(), String> {
    let mut written = written.to_vec();
    written.sort_unstable();
    let fall = written.array_windows().find(|[(_, before), (_, token)]| before > token);
    fall.map_or(Ok(()), |[(_, before), (version, token)]| {
        Err(format!("token {token} was let in at {version}, after {before}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_falls_is_found_in_whichever_order_it_was_told() {
        let write = |version, token| (Version(version), Version(token));
        assert_eq!(judge(&[write(5, 2), write(3, 2), write(9, 7)]), Ok(()));
        assert!(judge(&[write(9, 2), write(5, 7)]).unwrap_err().contains("token 2"));
    }
}
