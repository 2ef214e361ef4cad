//! Snapshots are saved and restored in the place of what there is, while others write,
//! read and watch.
//!
//! A restore is many steps; whoever does them is cut off in the middle, goes on or
//! begins anew, or leaves it to another one. Judged: nobody is shown a volume that is
//! not whole, nor may write to it; afterwards exactly what was saved is there, as it
//! was, with all versions above those that anybody saw, and leases with the time they
//! had; who watched from before is told to begin anew; what is acknowledged then stays.
//! Source: `cluster/docs/decisions/2026-11-26-restore.md`, and row B2 of the bug
//! catalogue.

mod operator;

use std::{sync::Arc, time::Duration};

use actors::client::{ClientError, Ranged};
use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::{Fault, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Put},
    },
    units::Instant,
};

use super::{
    Play, Player, Shared, draw_rest, halve,
    streams::{REST_LONG, Streams, state},
};
use crate::{
    oracle::{
        restored::{Eras, Saved},
        watched::Shown,
    },
    rng::Rng,
};

/// What all keys begin with.
const PREFIX: &str = "restored/";
/// Clients that save and restore, in turn.
const OPERATORS: u32 = 2;
/// Longest wait of who writes and reads: a volume that is not whole answers nobody.
const DEADLINE: Duration = Duration::from_secs(3);
/// Time of leases: some are over within seconds, some outlive the run.
const TTLS_MS: [u64; 3] = [4_000, 10_000, 300_000];
/// How far back the past is read.
const PAST: u64 = 20;

/// The workload.
#[derive(Clone, Debug)]
pub struct Restores {
    writers: u32,
    watchers: u32,
    keys: u32,
    rest: (Duration, Duration),
    streams: Streams,
    /// Clients that began.
    begun: Shared<u32>,
    seen: Shared<Seen>,
}

/// What clients were told, but for the streams.
#[derive(Debug, Default)]
struct Seen {
    eras: Eras,
    /// What may be restored.
    saved: Vec<Arc<Saved>>,
    /// The restore that was begun and has not ended, as far as is known.
    under: Option<Under>,
    /// The last restore that is known to have ended.
    whole: Option<Version>,
    /// The era whose begin was heard and whose end was not asked for: nobody may be
    /// shown anything.
    unwhole: Option<Version>,
    /// Whose turn it is among the operators, and whether one is at work.
    turn: u32,
    at_work: bool,
}

/// A restore under way.
#[derive(Clone, Debug)]
struct Under {
    saved: Arc<Saved>,
    bump: u64,
    /// The newest version that anybody had seen when its begin was asked for.
    above: Option<Version>,
    /// When its end was asked for.
    ending: Option<Instant>,
    /// Whether all that cleared the volume before is known to be over.
    clean: bool,
}

/// What was known when something was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    newest: Version,
    whole: Option<Version>,
    unwhole: Option<Version>,
}

impl Restores {
    /// Clients that write, and that watch and read.
    pub fn new(writers: u32, watchers: u32, keys: u32, rest: (Duration, Duration)) -> Self {
        let streams = Streams::new("restored", PREFIX);
        Self {
            writers,
            watchers,
            keys,
            rest,
            streams,
            begun: Shared::default(),
            seen: Shared::default(),
        }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..140);
        Self::new(1 + rng.number(2), 1 + rng.number(2), 4 + rng.number(8), rest)
    }

    fn accuse(&self, player: &Player, what: String) {
        self.streams.accuse(player, what);
    }
}

impl Play for Restores {
    const NAME: &'static str = "restores";

    fn clients(&self) -> u32 {
        OPERATORS + self.writers + self.watchers
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.watchers) || halve(&mut self.writers) || halve(&mut self.keys)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        player.create_single(&self.streams.volume(&player)).await?;
        self.streams.open(self.watchers);
        self.seen.lock().saved.push(Arc::new(operator::foreign()));
        Ok(())
    }

    async fn work(self, player: Player) {
        let turn = self.begun.turn();
        if turn < OPERATORS {
            return self.operate(player, turn).await;
        }
        let player = Player { client: player.client.with_deadline(DEADLINE), ..player };
        match turn.checked_sub(OPERATORS + self.writers) {
            Some(stream) => self.follow(player, stream as usize).await,
            None => self.write(player).await,
        }
    }

    /// Ends the restore that others left; brings every stream to what is there then.
    async fn look(self, mut player: Player) -> Result<(), ClientError> {
        while self.seen.lock().at_work {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.finish(&mut player).await?;
        let Some(read) = self.show(&player, None, ReadLevel::Strong).await? else {
            self.accuse(&player, "the volume is not whole after the last restore".to_owned());
            return Ok(());
        };
        for stream in 0..self.watchers as usize {
            self.streams.catch_up(&player, stream, read.at).await;
            let at = self.streams.upto(stream);
            let Some(then) = self.show(&player, Some(at), ReadLevel::Strong).await? else {
                continue;
            };
            let found = state(&then.result.items);
            let verdict = self.streams.lock().telling.compare(stream, &found, at);
            if let Err(wrong) = verdict {
                self.accuse(&player, format!("stream {stream} {wrong}"));
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let known = self.streams.lock();
        known.wrong.verdict()?;
        known.telling.check()?;
        self.seen.lock().eras.check()
    }
}

impl Restores {
    fn asked(&self) -> Asked {
        let seen = self.seen.lock();
        Asked { newest: seen.eras.newest(), whole: seen.whole, unwhole: seen.unwhole }
    }

    /// The era that was not whole from when something was asked for until now.
    fn unwhole(&self, asked: Asked) -> Option<Version> {
        asked.unwhole.filter(|_| self.seen.lock().unwhole == asked.unwhole)
    }

    /// Whether there is work for others: before the first restore there is nothing, and
    /// during one only few try.
    fn is_open(&self, player: &mut Player) -> bool {
        let (whole, under) = {
            let seen = self.seen.lock();
            (seen.whole.is_some(), seen.under.is_some())
        };
        whole && (!under || player.rng.chance(50_000))
    }

    async fn write(&self, mut player: Player) {
        let mut lease = LeaseId(0);
        let mut made = 0_u32;
        while !player.is_over() {
            player.rest(self.rest).await;
            if !self.is_open(&mut player) {
                continue;
            }
            made += 1;
            if let Err(error) = self.change(&mut player, made, &mut lease).await {
                player.failed("change", &error);
                lease = LeaseId(0);
            }
        }
    }

    /// Changes one key; under a lease at times.
    async fn change(
        &self,
        player: &mut Player,
        made: u32,
        lease: &mut LeaseId,
    ) -> Result<(), ClientError> {
        let volume = self.streams.volume(player);
        let key = format!("{PREFIX}{}", player.rng.number(self.keys));
        let value = format!("{}-{made}", player.number);
        let way = player.rng.below(10);
        if way >= 8 && *lease == LeaseId(0) {
            let ttl_ms = player.rng.pick(&TTLS_MS).copied().unwrap_or(TTLS_MS[0]);
            *lease = player.client.grant_lease(&volume, None, ttl_ms).await?.lease;
        }
        let asked = self.asked();
        let (version, value) = match way {
            0..6 => {
                let put = player.client.put(&volume, &key, value.as_str()).await?;
                (put.version, Some(value))
            }
            6..8 => {
                let gone = player.client.delete(&volume, &key).await?;
                (gone.version.filter(|_| gone.deleted > 0), None)
            }
            _ => {
                let put = Put::new(key.as_str(), value.as_str()).under(*lease);
                (Some(player.client.put_as(&volume, put).await?.0), Some(value))
            }
        };
        player.count_operation();
        if let Some(era) = self.unwhole(asked) {
            self.accuse(player, format!("{key} was changed while the restore at {era} went on"));
        }
        if let Some(version) = version {
            self.see(player, asked, version);
            self.streams.lock().telling.written.push((version, key, value));
        }
        Ok(())
    }

    /// A version that is the newest, or was when something was asked for.
    fn see(&self, player: &Player, asked: Asked, version: Version) {
        self.seen.lock().eras.see(version);
        if version < asked.newest {
            let newest = asked.newest;
            self.accuse(player, format!("the newest version is {version}, and was {newest}"));
        }
    }

    /// Watches, rests, goes away, and reads.
    async fn follow(&self, mut player: Player, stream: usize) {
        self.streams.join_door(&mut player);
        let mut watching = None;
        while !player.is_over() {
            self.streams.advance(&mut player, stream, &mut watching, |_| {}).await;
            if player.rng.chance(400_000)
                && let Err(error) = self.read(&mut player).await
            {
                player.failed("read", &error);
            }
            if player.rng.chance(50_000) {
                player.rest(REST_LONG).await;
            }
            player.rest(self.rest).await;
        }
    }

    /// Reads all keys: of the present or of the past, of whoever leads or of anybody.
    async fn read(&self, player: &mut Player) -> Result<(), ClientError> {
        let level =
            if player.rng.chance(500_000) { ReadLevel::Strong } else { ReadLevel::Eventual };
        let back = player.rng.below(PAST);
        let past = player.rng.chance(300_000);
        let at = self.asked().newest.0.saturating_sub(back).max(1);
        self.show(player, past.then_some(Version(at)), level).await.map(drop)
    }

    /// Reads all keys and judges what is shown; none if that is refused by name.
    async fn show(
        &self,
        player: &Player,
        at: Option<Version>,
        level: ReadLevel,
    ) -> Result<Option<Ranged>, ClientError> {
        let asked = self.asked();
        let range = Range { at, ..Range::of(Keys::prefix(PREFIX)) };
        let read = player.client.range(&self.streams.volume(player), range, level).await;
        let read = match read {
            Ok(read) => read,
            Err(ClientError::Fault { fault: Fault::Restoring, .. }) => {
                player.trace.count("read refused during a restore");
                return Ok(None);
            }
            Err(ClientError::Fault { fault: Fault::Compacted { .. }, .. }) => {
                player.trace.count("past compacted");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        player.count_operation();
        player.trace.count(if at.is_some() { "past read" } else { "range" });
        self.judge(player, asked, level, &read);
        let shown = Shown { at: read.at, found: state(&read.result.items) };
        self.streams.lock().telling.read.push(vec![shown]);
        Ok(Some(read))
    }

    fn judge(&self, player: &Player, asked: Asked, level: ReadLevel, read: &Ranged) {
        let (strong, at) = (level == ReadLevel::Strong, read.at);
        if let Some(era) = self.unwhole(asked)
            && (strong || read.now >= era)
        {
            self.accuse(player, format!("{at} was shown while the restore at {era} went on"));
        }
        if let Some(era) = asked.whole
            && strong
            && at < era
        {
            self.accuse(player, format!("{at} was shown after the restore at {era} had ended"));
        }
        if strong {
            self.see(player, asked, read.now);
        } else {
            self.seen.lock().eras.see(read.now);
        }
        let fits = self.seen.lock().eras.check_shown(at, &read.result.items);
        if let Err(wrong) = fits {
            self.accuse(player, wrong);
        }
    }
}
