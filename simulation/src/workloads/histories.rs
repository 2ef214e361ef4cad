//! A volume is told to keep more of its past, or less, while clients read the past.
//!
//! Judged: what a policy promises to keep can be read, and shows what was there; what
//! is refused is refused as compacted, and one of the policies let go of it; and once
//! the world is whole, what goes beyond a policy goes.
//! Source: etcd's automatic compaction, by revision and by period.

use std::time::Duration;

use actors::client::ClientError;
use cluster::{
    mvcc::{compaction::HistoryPolicy, version::Version},
    request::{Fault, ReadLevel},
    shard::{range::Range, transaction::Keys},
};

use super::{
    Play, Player, Shared, halve,
    streams::{REST_LONG, Streams, state},
};
use crate::oracle::{kept::Kept, watched::Shown};

/// What all keys begin with.
const PREFIX: &str = "kept/";
/// What a volume is told to keep.
const POLICIES: [HistoryPolicy; 6] = [
    HistoryPolicy::Usual,
    HistoryPolicy::Versions(10),
    HistoryPolicy::Versions(50),
    HistoryPolicy::Versions(400),
    HistoryPolicy::Age(30_000),
    HistoryPolicy::Age(600_000),
];
/// How long a policy stays: some not long enough to be heard of everywhere.
const STAYS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(18));
/// How far back the past is read.
const PASTS: [u64; 4] = [5, 40, 100, 600];
/// What is kept at the end, and what is written beyond it.
const KEPT_LAST: u64 = 10;
const WRITTEN_LAST: u64 = 20;
/// Looks until what goes beyond is gone, and the pause between two.
const LOOKS_MAX: u32 = 120;
const PAUSE: Duration = Duration::from_millis(250);

/// The workload.
#[derive(Clone, Debug)]
pub struct Histories {
    writers: u32,
    readers: u32,
    keys: u32,
    rest: (Duration, Duration),
    /// Clients that began.
    begun: Shared<u32>,
    streams: Streams,
    kept: Shared<Kept>,
}

impl Histories {
    /// Clients that write, and that watch and read; one more changes policies.
    pub fn new(writers: u32, readers: u32, keys: u32, rest: (Duration, Duration)) -> Self {
        let streams = Streams::new("kept", PREFIX);
        let (begun, kept) = (Shared::default(), Shared::default());
        Self { writers, readers, keys, rest, begun, streams, kept }
    }
}

impl Play for Histories {
    const NAME: &'static str = "histories";

    fn clients(&self) -> u32 {
        1 + self.writers + self.readers
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.readers) || halve(&mut self.writers) || halve(&mut self.keys)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        player.create_single(&self.streams.volume(&player)).await?;
        self.streams.open(self.readers);
        Ok(())
    }

    async fn work(self, player: Player) {
        let turn = self.begun.turn();
        match turn.checked_sub(1 + self.writers) {
            _ if turn == 0 => self.change_policies(player).await,
            Some(stream) => self.follow(player, stream as usize).await,
            None => self.write(player).await,
        }
    }

    /// Has little kept, writes more, and waits until what goes beyond is gone.
    async fn look(self, mut player: Player) -> Result<(), ClientError> {
        self.set(&player, HistoryPolicy::Versions(KEPT_LAST)).await?;
        for made in 0..WRITTEN_LAST {
            self.change(&mut player, made).await?;
        }
        let now = self.newest(&player).await?;
        let beyond = Version(now.0.saturating_sub(KEPT_LAST + 2).max(1));
        let mut looks = 0;
        while self.read(&player, beyond, ReadLevel::Strong).await? {
            looks += 1;
            if looks > LOOKS_MAX {
                let what = format!("{beyond} is kept for ever, where {now} is the newest");
                self.streams.accuse(&player, what);
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        for stream in 0..self.readers as usize {
            self.streams.catch_up(&player, stream, now).await;
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let known = self.streams.lock();
        known.wrong.verdict()?;
        known.telling.check()?;
        self.kept.lock().check()
    }
}

impl Histories {
    async fn change_policies(&self, mut player: Player) {
        while !player.is_over() {
            let policy = player.rng.pick(&POLICIES).copied().unwrap_or_default();
            if let Err(error) = self.set(&player, policy).await {
                player.failed("change the policy", &error);
            }
            let until = player.now() + player.rng.between(STAYS.0, STAYS.1);
            while !player.is_over() && player.now() < until {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn set(&self, player: &Player, policy: HistoryPolicy) -> Result<(), ClientError> {
        let number = self.kept.lock().ask(policy, player.now());
        let done = player.client.set_history(&self.streams.volume(player), policy).await;
        player.noted(&format!("keeps {policy:?}"), done)?;
        self.kept.lock().answer(number, player.now());
        player.trace.count("history policy changed");
        Ok(())
    }

    async fn write(&self, mut player: Player) {
        let mut made = 0;
        while !player.is_over() {
            made += 1;
            if let Err(error) = self.change(&mut player, made).await {
                player.failed("change", &error);
            }
            player.rest(self.rest).await;
        }
    }

    async fn change(&self, player: &mut Player, made: u64) -> Result<(), ClientError> {
        let volume = self.streams.volume(player);
        let key = format!("{PREFIX}{}", player.rng.number(self.keys));
        let (asked, deletes) = (player.now(), player.rng.chance(250_000));
        let value = (!deletes).then(|| format!("{}-{made}", player.number));
        let done = match &value {
            Some(value) => player.client.put(&volume, &key, value.as_str()).await?,
            None => player.client.delete(&volume, &key).await?,
        };
        player.count_operation();
        if let Some(version) = done.version.filter(|_| value.is_some() || done.deleted > 0) {
            self.kept.lock().tell(asked, version);
            self.streams.lock().telling.written.push((version, key, value));
        }
        Ok(())
    }

    async fn follow(&self, mut player: Player, stream: usize) {
        let mut watching = None;
        while !player.is_over() {
            self.streams.advance(&mut player, stream, &mut watching, |_| {}).await;
            if player.rng.chance(500_000)
                && let Err(error) = self.read_past(&mut player).await
            {
                player.failed("read the past", &error);
            }
            if player.rng.chance(30_000) {
                player.rest(REST_LONG).await;
            }
            player.rest(self.rest).await;
        }
    }

    /// Reads all keys as of a version not far below the newest.
    async fn read_past(&self, player: &mut Player) -> Result<(), ClientError> {
        let far = player.rng.pick(&PASTS).copied().unwrap_or(1);
        let now = self.newest(player).await?;
        let at = Version(now.0.saturating_sub(player.rng.below(far)).max(1));
        let level =
            if player.rng.chance(500_000) { ReadLevel::Strong } else { ReadLevel::Eventual };
        self.read(player, at, level).await.map(drop)
    }

    async fn newest(&self, player: &Player) -> Result<Version, ClientError> {
        let (none, asked) = (Range::of(Keys::range("", "")).limit(1).heads(), player.now());
        let volume = self.streams.volume(player);
        let now = player.client.range(&volume, none, ReadLevel::Strong).await?.now;
        self.kept.lock().tell(asked, now);
        Ok(now)
    }

    /// Reads all keys as of a version; whether it was there.
    async fn read(
        &self,
        player: &Player,
        at: Version,
        level: ReadLevel,
    ) -> Result<bool, ClientError> {
        let all = Range::of(Keys::prefix(PREFIX)).at(at);
        match player.client.range(&self.streams.volume(player), all, level).await {
            Ok(read) => {
                player.count_operation();
                player.trace.count("past read");
                let shown = Shown { at, found: state(&read.result.items) };
                self.streams.lock().telling.read.push(vec![shown]);
                Ok(true)
            }
            Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
                player.trace.count("past compacted");
                self.kept.lock().refuse(player.now(), compacted);
                if at >= compacted {
                    let what = format!("{at} was refused as below {compacted}");
                    self.streams.accuse(player, what);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
