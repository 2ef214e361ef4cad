//! Who saves and restores: `cdb volume snapshot` and `cdb volume restore --replace`,
//! run by people whose machines fail them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use actors::client::ClientError;
use cluster::{
    ids::LeaseId,
    limits::LEASE_TTL_MS_MIN,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::Range,
        restore::{
            Begun, RESTORE_BUMP, RESTORE_BUMP_MIN, RestoreCommand, RestoreError, RestoreStep,
            Restored, SavedId, SavedLease,
        },
        transaction::Keys,
    },
    units::Instant,
};

use super::{PREFIX, Player, Restores, Under};
use crate::oracle::{
    restored::{Era, Saved},
    watched::{Base, State},
};

/// Time between two snapshots or restores.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// After so long a step is given up, where one is.
const CUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(150));
/// Snapshots that are kept.
const SAVED_MAX: usize = 3;
/// How far versions rise: as little as may be, as usually, and between.
const BUMPS: [u64; 3] = [RESTORE_BUMP_MIN, 1_000, RESTORE_BUMP];
/// Keys and leases of one part.
const PART_KEYS: u32 = 3;
const PART_LEASES: usize = 1;
/// What clocks that err by 3 % make of a lease's time, as parts of a hundred.
const ERROR: u64 = 5;

/// What a step came to, unless whoever asked for it was cut off.
type Done = Result<Option<Restored>, ClientError>;

/// A snapshot of another cluster, which a new volume begins with.
pub(super) fn foreign() -> Saved {
    let lease =
        |lease, ttl_ms, remaining_ms| SavedLease { lease: LeaseId(lease), ttl_ms, remaining_ms };
    let items = (1..=6).map(|number| {
        let value = format!("saved-{number}").into_bytes();
        Item {
            key: format!("{PREFIX}{number}").into_bytes(),
            value_bytes: value.len() as u64,
            value,
            created: Version(number),
            modified: Version(7 * number),
            changes: number,
            modified_ms: 777,
            lease: LeaseId(number / 3),
        }
    });
    Saved {
        id: SavedId([1; 16]),
        version: Version(50),
        items: items.collect(),
        leases: vec![lease(1, 60_000, 5_000), lease(2, 300_000, 200_000), lease(3, 9_000, 9_000)],
    }
}

impl Restores {
    /// Saves and restores when it is its turn.
    pub(super) async fn operate(&self, mut player: Player, me: u32) {
        while !player.is_over() {
            if !self.is_turn_of(me) {
                player.rest(self.rest).await;
                continue;
            }
            if let Err(error) = self.take_turn(&mut player).await {
                player.failed("a turn of an operator", &error);
            }
            self.seen.lock().at_work = false;
            if player.rng.chance(300_000) {
                self.seen.lock().turn += 1;
            }
            let under = self.seen.lock().under.is_some();
            player.rest(if under { self.rest } else { BETWEEN }).await;
        }
    }

    /// Takes the turn of an operator, unless it is another one's or that one is still at
    /// work.
    fn is_turn_of(&self, me: u32) -> bool {
        let mut seen = self.seen.lock();
        let is_mine = !seen.at_work && seen.turn % super::OPERATORS == me;
        seen.at_work |= is_mine;
        is_mine
    }

    async fn take_turn(&self, player: &mut Player) -> Result<(), ClientError> {
        if self.seen.lock().under.is_none() {
            let first = self.seen.lock().whole.is_none();
            if !first && player.rng.chance(500_000) {
                return self.save(player).await;
            }
            self.choose(player);
        } else {
            player.trace.count("restore resumed");
        }
        self.restore(player, true).await
    }

    /// Ends what others began.
    pub(super) async fn finish(&self, player: &mut Player) -> Result<(), ClientError> {
        while self.seen.lock().under.is_some() {
            self.restore(player, false).await?;
        }
        Ok(())
    }

    /// Saves a snapshot, as of one version, and the leases after it.
    async fn save(&self, player: &mut Player) -> Result<(), ClientError> {
        let volume = self.streams.volume(player);
        let Some(read) = self.show(player, None, ReadLevel::Strong).await? else { return Ok(()) };
        let items = read.result.items;
        let named: BTreeSet<LeaseId> =
            items.iter().map(|item| item.lease).filter(|lease| *lease != LeaseId(0)).collect();
        let (listed, _) = player.client.list_leases(&volume).await?;
        let mut leases = Vec::new();
        for lease in named.iter().copied().chain(listed.into_iter().filter(|l| !named.contains(l)))
        {
            let (shown, _) = player.client.show_lease(&volume, lease, false).await?;
            let (ttl_ms, remaining_ms) = match shown {
                Some(shown) => (shown.ttl_ms, shown.remaining_ms),
                // It ended since the keys were read.
                None if named.contains(&lease) => (LEASE_TTL_MS_MIN, LEASE_TTL_MS_MIN),
                None => continue,
            };
            leases.push(SavedLease { lease, ttl_ms, remaining_ms });
        }
        let id = SavedId(std::array::from_fn(|_| player.rng.below(256).to_le_bytes()[0]));
        player.noted(&format!("saved {id} as of {}", read.at), Ok(()))?;
        player.trace.count("snapshot saved");
        let mut seen = self.seen.lock();
        if seen.saved.len() >= SAVED_MAX {
            seen.saved.remove(0);
        }
        seen.saved.push(Arc::new(Saved { id, version: read.at, items, leases }));
        Ok(())
    }

    /// Chooses what to restore.
    fn choose(&self, player: &mut Player) {
        let mut seen = self.seen.lock();
        let Some(saved) = player.rng.pick(&seen.saved).cloned() else { return };
        let bump = player.rng.pick(&BUMPS).copied().unwrap_or(RESTORE_BUMP);
        player.note(&format!("restores {} of {} by {bump}", saved.id, saved.version));
        seen.under = Some(Under { saved, bump, above: None, ending: None, clean: true });
    }

    /// All steps from where the restore stands; none of them, or some, if `hasty`.
    async fn restore(&self, player: &mut Player, hasty: bool) -> Result<(), ClientError> {
        let Some(under) = self.seen.lock().under.clone() else { return Ok(()) };
        let Some(begun) = self.begin(player, &under, hasty).await? else { return Ok(()) };
        if begun.whole {
            return self.ended(player).await;
        }
        if hasty && player.rng.chance(200_000) {
            self.meddle(player, &under).await?;
        }
        for leases in under.saved.leases.chunks(PART_LEASES) {
            let step = RestoreStep::Leases(begun.begun, leases.to_vec());
            if self.part(player, &under, step, hasty).await?.is_none() {
                return Ok(());
            }
        }
        // Whoever does not ask where it stands brings all of it again.
        let upto = if player.rng.chance(300_000) { Vec::new() } else { begun.upto };
        let lacks = |item: &&Item| item.key > upto;
        let mut left: &[Item] =
            &under.saved.items.iter().filter(lacks).cloned().collect::<Vec<_>>();
        while !left.is_empty() {
            let count = (player.rng.number(PART_KEYS) as usize + 1).min(left.len());
            let (part, rest) = left.split_at(count);
            left = rest;
            let step = RestoreStep::Keys(begun.begun, part.to_vec());
            if self.part(player, &under, step, hasty).await?.is_none() {
                return Ok(());
            }
        }
        self.end(player, (&under, begun.begun), hasty).await
    }

    /// Begins, or hears where it stands; none if it must be asked again.
    async fn begin(&self, player: &mut Player, under: &Under, hasty: bool) -> Done {
        {
            let mut seen = self.seen.lock();
            let newest = seen.eras.newest();
            if let Some(under) = &mut seen.under {
                under.above.get_or_insert(newest);
            }
        }
        let step = RestoreStep::Begin { version: under.saved.version, bump: under.bump };
        match self.step(player, under, step, hasty).await {
            Ok(Some(begun)) if begun.whole && under.ending.is_none() => {
                // The same snapshot was restored before, and the volume is not empty.
                self.clear(player).await.map(|()| None)
            }
            Ok(Some(begun)) => {
                if !begun.whole {
                    self.has_begun(player, begun.version);
                }
                Ok(Some(begun))
            }
            Err(ClientError::BadRestore(RestoreError::NotEmpty)) => {
                self.clear(player).await.map(|()| None)
            }
            other => other,
        }
    }

    /// Notes the era that began, and judges its version.
    fn has_begun(&self, player: &Player, at: Version) {
        let Some(under) = self.seen.lock().under.clone() else { return };
        let era = Era { at, bump: under.bump, saved: under.saved.clone() };
        let state: State = super::state(&under.saved.items);
        let above = under.above.unwrap_or_default().max(under.saved.version);
        {
            let mut seen = self.seen.lock();
            if !seen.eras.begin(era) {
                return;
            }
            seen.eras.see(at);
            seen.unwhole = Some(at);
        }
        player.note(&format!("the restore of {} stands at {at}", under.saved.id));
        player.trace.count("restore begun");
        let mut known = self.streams.lock();
        known.telling.bases.push(Base { at, state });
        known.telling.bases.sort_by_key(|base| base.at);
        if at.0 < above.0 + under.bump {
            let what = format!("a restore begins at {at}, not {} above {above}", under.bump);
            player.accuse(&mut known.wrong, what);
        }
    }

    /// Lets go of what there is, leases and keys.
    async fn clear(&self, player: &mut Player) -> Result<(), ClientError> {
        let volume = self.streams.volume(player);
        self.set_clean(false);
        for lease in player.client.list_leases(&volume).await?.0 {
            match player.client.revoke_lease(&volume, lease).await {
                Ok(_) | Err(ClientError::BadLease(_)) => {}
                Err(error) => return Err(error),
            }
        }
        player.client.delete_range_in_parts(&volume, Keys::range("", ""), false).await?;
        player.count_operation();
        self.set_clean(true);
        Ok(())
    }

    fn set_clean(&self, clean: bool) {
        if let Some(under) = &mut self.seen.lock().under {
            under.clean = clean;
        }
    }

    /// Tries to restore something else in between, which must be refused.
    async fn meddle(&self, player: &mut Player, under: &Under) -> Result<(), ClientError> {
        let step = RestoreStep::Begin { version: Version(1), bump: RESTORE_BUMP };
        let saved = SavedId([0; 16]);
        let volume = self.streams.volume(player);
        match player.client.restore_step(&volume, &RestoreCommand { saved, step }).await {
            Err(ClientError::BadRestore(RestoreError::Another(other)))
                if other == under.saved.id =>
            {
                player.trace.count("another restore refused");
                Ok(())
            }
            // One of before that was cut off ended it.
            Err(ClientError::BadRestore(RestoreError::NotEmpty)) if under.ending.is_some() => {
                Ok(())
            }
            Err(error @ ClientError::BadRestore(_)) => {
                self.accuse(player, format!("another restore was refused so: {error}"));
                Ok(())
            }
            Err(error) => Err(error),
            Ok(restored) => {
                self.accuse(player, format!("two restores went on at once: {restored:?}"));
                Ok(())
            }
        }
    }

    /// A step in the middle, and a rest.
    async fn part(
        &self,
        player: &mut Player,
        under: &Under,
        step: RestoreStep,
        hasty: bool,
    ) -> Done {
        if hasty && player.is_over() {
            return Ok(None);
        }
        let done = match self.step(player, under, step, hasty).await {
            // One of before that was cut off ended it.
            Err(ClientError::BadRestore(RestoreError::NotBegun)) if under.ending.is_some() => None,
            Err(error @ ClientError::BadRestore(_)) => {
                self.accuse(player, format!("a step of a restore was refused: {error}"));
                return Err(error);
            }
            other => other?,
        };
        if hasty {
            player.rest(self.rest).await;
        }
        Ok(done)
    }

    async fn end(
        &self,
        player: &mut Player,
        (under, begun): (&Under, Begun),
        hasty: bool,
    ) -> Result<(), ClientError> {
        let now = player.now();
        {
            let mut seen = self.seen.lock();
            seen.unwhole = None;
            if let Some(under) = &mut seen.under {
                under.ending.get_or_insert(now);
            }
        }
        match self.step(player, under, RestoreStep::End(begun), hasty).await? {
            Some(ended) if ended.whole => self.ended(player).await,
            Some(ended) => {
                self.accuse(player, format!("a restore was ended and is not whole: {ended:?}"));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// One step; none if who asked for it was cut off.
    async fn step(
        &self,
        player: &mut Player,
        under: &Under,
        step: RestoreStep,
        hasty: bool,
    ) -> Done {
        let (volume, saved) = (self.streams.volume(player), under.saved.id);
        let command = RestoreCommand { saved, step };
        let step = player.client.restore_step(&volume, &command);
        if !hasty || !player.rng.chance(60_000) {
            let done = step.await?;
            player.count_operation();
            return Ok(Some(done));
        }
        let cut = player.rng.between(CUT.0, CUT.1);
        let done = tokio::time::timeout(cut, step).await;
        if done.is_err() {
            player.trace.count("restore cut off");
            self.seen.lock().turn += 1;
        }
        done.ok().transpose()
    }

    /// Looks at what is there once a restore has ended.
    async fn ended(&self, player: &mut Player) -> Result<(), ClientError> {
        let (under, era) = {
            let mut seen = self.seen.lock();
            let era = seen.eras.last().cloned();
            seen.whole = era.as_ref().map(|era| era.at);
            (seen.under.take(), era)
        };
        let (Some(under), Some(era)) = (under, era) else { return Ok(()) };
        player.note(&format!("the restore at {} has ended", era.at));
        player.trace.count("restore ended");
        let Some(read) = self.show(player, None, ReadLevel::Strong).await? else {
            self.accuse(player, "a restore has ended, and the volume is not whole".to_owned());
            return Ok(());
        };
        if read.at == era.at {
            player.trace.count("restored state compared");
            let wanted: Vec<Item> = era.items().collect();
            if read.result.items != wanted {
                let found = read.result.items;
                self.accuse(player, format!("restored {wanted:?}, and there is {found:?}"));
            }
        }
        let Some(ending) = under.ending.filter(|_| under.clean) else { return Ok(()) };
        for saved in &under.saved.leases {
            self.compare_lease(player, saved, ending).await?;
        }
        Ok(())
    }

    /// A lease has the time that it had, less what passed since the end.
    async fn compare_lease(
        &self,
        player: &mut Player,
        saved: &SavedLease,
        ending: Instant,
    ) -> Result<(), ClientError> {
        let volume = self.streams.volume(player);
        let (shown, at) = player.client.show_lease(&volume, saved.lease, true).await?;
        let passed = player.now().since(ending).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let least = saved.remaining_ms.saturating_sub(passed + passed * ERROR / 100 + 1);
        let Some(shown) = shown else {
            if least > 0 {
                let what = format!("{saved:?} is over {passed} ms after the end of its restore");
                self.accuse(player, what);
            }
            return Ok(());
        };
        let most = saved.remaining_ms.max(LEASE_TTL_MS_MIN);
        if shown.ttl_ms != saved.ttl_ms || !(least..=most).contains(&shown.remaining_ms) {
            self.accuse(player, format!("{saved:?} is {shown:?} after {passed} ms"));
        }
        let range = Range::of(Keys::prefix(PREFIX));
        let read = player.client.range(&volume, range, ReadLevel::Strong).await?;
        let hang = read.result.items.iter().filter(|item| item.lease == saved.lease);
        let hang: Vec<&Vec<u8>> = hang.map(|item| &item.key).collect();
        if read.at == at && hang != shown.keys.iter().collect::<Vec<_>>() {
            self.accuse(player, format!("{hang:?} hang on {}, which has {shown:?}", saved.lease));
        }
        player.trace.count("restored lease compared");
        Ok(())
    }
}
