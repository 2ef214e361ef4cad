//! Weaker levels, judged by what they promise.
//!
//! Each client owns two keys. One it writes strongly: a `bounded` read of it is
//! at most so old, an `eventual` one shows something that was written. The
//! other it writes below the strong level: a blind write may be lost with those
//! who held it or take effect again late, but what is read was written once.
//! Source: the root README's guarantees; `WriteLevel` and `ReadLevel`.

use std::{collections::BTreeMap, time::Duration};

use actors::client::ClientError;
use cluster::{
    request::{ReadLevel, WriteLevel},
    shard::command::Op,
    units::Instant,
};

use super::{Heard, Play, Player, Shared, Wrong, draw_rest};
use crate::rng::Rng;

/// The workload.
#[derive(Clone, Debug)]
pub struct Levels {
    clients: u32,
    /// How far clocks of a run may part; a bound on age is as good as they are.
    clocks_apart: Duration,
    rest: (Duration, Duration),
    seen: Shared<Seen>,
}

/// Writes of one key by their rising numbers.
#[derive(Debug, Default)]
struct Seen {
    keys: BTreeMap<String, Writes>,
    wrong: Wrong,
}

/// Numbers written to one key, the last first called, and when those that were
/// acknowledged were.
#[derive(Debug, Default)]
struct Writes {
    called: u64,
    acknowledged: Vec<(Instant, u64)>,
}

impl Levels {
    /// Clients whose clocks are at most so far apart.
    pub fn new(clients: u32, clocks_apart: Duration, rest: (Duration, Duration)) -> Self {
        Self { clients, clocks_apart, rest, seen: Shared::default() }
    }
}

impl Play for Levels {
    const NAME: &'static str = "levels";

    fn clients(&self) -> u32 {
        self.clients
    }

    async fn work(self, mut player: Player) {
        let (strong, weak) =
            (format!("level-strong-{}", player.number), format!("level-weak-{}", player.number));
        let mut number = 0;
        while !player.is_over() {
            number += 1;
            match player.rng.below(8) {
                0 | 1 => self.write(&player, &strong, number, WriteLevel::Strong).await,
                2 => self.write(&player, &weak, number, WriteLevel::Memory).await,
                3 => self.write(&player, &weak, number, WriteLevel::Eventual).await,
                4 => self.read_any(&mut player, ReadLevel::Eventual).await,
                5 => self.read_any(&mut player, ReadLevel::Strong).await,
                _ => {
                    let staleness_ms = 50 + player.rng.number(4_000);
                    self.read_any(&mut player, ReadLevel::Bounded { staleness_ms }).await;
                }
            }
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        let keys: Vec<_> = self.seen.lock().keys.keys().cloned().collect();
        for key in keys {
            self.read(&player, &key, ReadLevel::Strong).await?;
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        self.seen.lock().wrong.verdict()
    }
}

impl Levels {
    async fn write(&self, player: &Player, key: &str, number: u64, level: WriteLevel) {
        self.seen.lock().keys.entry(key.to_owned()).or_default().called = number;
        let op = Op::Put { key: key.into(), value: number.to_le_bytes().to_vec() };
        let written = player.client.write(&player.volume, vec![op], level).await;
        let Heard::Done(_) = player.hear(&format!("write {key}={number} at {level:?}"), written)
        else {
            return;
        };
        if level != WriteLevel::Strong {
            player.trace.count("weak write");
        }
        let acknowledged = (player.now(), number);
        let mut seen = self.seen.lock();
        let writes = seen.keys.entry(key.to_owned()).or_default();
        writes.acknowledged.push(acknowledged);
    }

    /// Reads a key somebody owns.
    async fn read_any(&self, player: &mut Player, level: ReadLevel) {
        let key = {
            let seen = self.seen.lock();
            let keys: Vec<_> = seen.keys.keys().cloned().collect();
            player.rng.pick(&keys).cloned()
        };
        let Some(key) = key else { return };
        if let Err(error) = self.read(player, &key, level).await {
            player.failed(&format!("read {key} at {level:?}"), &error);
        }
    }

    async fn read(&self, player: &Player, key: &str, level: ReadLevel) -> Result<(), ClientError> {
        let called = player.now();
        let item = player.client.read(&player.volume, key, level, None, false).await?;
        let bytes = item.map(|item| item.value);
        let number =
            bytes.map_or(Some(0), |bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        player.note(&format!("read {key}={number:?} at {level:?}"));
        player.count_operation();
        if level != ReadLevel::Strong {
            player.trace.count("weak read");
        }
        let mut seen = self.seen.lock();
        let judged = seen.keys.get(key).map_or(Ok(()), |writes| {
            let oldest = oldest(key, level, called, self.clocks_apart);
            judge(writes, number.unwrap_or(u64::MAX), oldest)
        });
        if let Err(wrong) = judged {
            let told = format!("c{} read {key} at {level:?}: {wrong}", player.number);
            player.accuse(&mut seen.wrong, told);
        }
        Ok(())
    }
}

/// What was acknowledged before this must show; none if nothing must.
fn oldest(key: &str, level: ReadLevel, called: Instant, clocks_apart: Duration) -> Option<Instant> {
    let age = match level {
        _ if key.starts_with("level-weak") => return None,
        ReadLevel::Strong => Duration::ZERO,
        ReadLevel::Bounded { staleness_ms } => {
            Duration::from_millis(u64::from(staleness_ms)) + clocks_apart
        }
        ReadLevel::Eventual => return None,
    };
    let since = called.since(Instant::ORIGIN).checked_sub(age)?;
    Some(Instant::ORIGIN + since)
}

fn judge(writes: &Writes, number: u64, oldest: Option<Instant>) -> Result<(), String> {
    if number > writes.called {
        return Err(format!("{number} was never written, only {}", writes.called));
    }
    let must = |oldest| {
        let before = writes.acknowledged.iter().rev().find(|(at, _)| *at < oldest);
        before.map_or(0, |(_, number)| *number)
    };
    match oldest.map(must) {
        Some(must) if number < must => Err(format!("{number} is older than {must}, too old")),
        Some(_) | None => Ok(()),
    }
}

impl Levels {
    /// Few or many clients.
    pub fn draw(rng: &mut Rng, clocks_apart: Duration) -> Self {
        let rest = draw_rest(rng, 5, 20..120);
        Self::new(1 + rng.number(3), clocks_apart, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(ms)
    }

    fn judged(number: u64, level: ReadLevel, called: u64) -> Result<(), String> {
        let acknowledged = vec![(at(1_000), 1), (at(2_000), 2)];
        let writes = Writes { called: 3, acknowledged };
        let oldest = oldest("level-strong-1", level, at(called), Duration::from_millis(100));
        judge(&writes, number, oldest)
    }

    #[test]
    fn a_bounded_read_that_is_too_old_is_found_and_one_within_its_bound_is_not() {
        let bounded = ReadLevel::Bounded { staleness_ms: 500 };
        assert_eq!(judged(1, bounded, 2_500), Ok(()));
        assert!(judged(1, bounded, 2_700).is_err());
        assert_eq!(judged(2, bounded, 9_000), Ok(()));
        assert_eq!(judged(3, bounded, 9_000), Ok(()), "a write in doubt may show");
        assert!(judged(1, ReadLevel::Strong, 2_001).is_err());
        assert_eq!(judged(0, ReadLevel::Eventual, 9_000), Ok(()));
    }

    #[test]
    fn a_number_nobody_wrote_is_found_at_every_level() {
        for level in [ReadLevel::Strong, ReadLevel::Eventual] {
            assert!(judged(4, level, 500).is_err());
        }
    }
}
