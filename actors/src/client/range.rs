//! Ranges, and writes that tell what was there before: etcd's `Range`, `Put`
//! and `Compact`.
//!
//! A shard answers about a megabyte at a time. What is in the order of its keys
//! is read page by page at one version. The first of another order are found where the keys
//! lie, if they fit into one answer; if not, or if all are wanted, the range is read whole and
//! sorted here, and no more of it is held than a limit shows. Over several shards a range is a
//! cut, as a list is.

use cluster::{
    ids::ShardId,
    limits::LIST_PAGE_BYTES_MAX,
    mvcc::version::Version,
    request::{Fault, Item, ReadLevel, ShardBody, ShardResult},
    shard::{
        command::Outcome,
        range::{Range, RangeResult, Show, Sort},
        transaction::{Keys, Put, Step, StepResult, Transacted, Transaction, item_bytes},
    },
    units::ByteSize,
};
use futures_util::future::join_all;

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    read::who,
    trial::Trial,
    write::{refused, strange_result},
};

/// Bytes of items one range gathers: what a process should hold at once.
pub(super) const GATHERED_BYTES_MAX: usize = 256 << 20;
/// When to try again if there was no room to gather a range.
const ROOM_RETRY_MS: u32 = 1_000;

/// A range as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranged {
    /// What was found.
    pub result: RangeResult,
    /// The version it was read at.
    pub at: Version,
    /// The newest version then: etcd's header.
    pub now: Version,
}

impl Client {
    /// Reads a range of keys.
    ///
    /// # Errors
    /// See [`ClientError`]; [`Fault::Compacted`] or [`Fault::NoSuchVersion`] if
    /// the version it names cannot be read.
    pub async fn range(
        &self,
        volume: &str,
        range: Range,
        level: ReadLevel,
    ) -> Result<Ranged, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let held = self.room.as_ref().map_or(0, |room| room.taken());
        loop {
            match self.range_once(&mut trial, volume, &range, level).await {
                Ok(Some(all)) => return Ok(all),
                Ok(None) => {}
                // Nobody named a version: the one of the first answer was let go of before
                // the last came.
                Err(ClientError::Fault { fault: fault @ Fault::Compacted { .. }, .. })
                    if range.at.is_none() =>
                {
                    trial.note_fault(&fault, false);
                    if trial.try_for().is_none() {
                        return Err(trial.ended());
                    }
                }
                Err(error) => return Err(error),
            }
            if let Some(room) = &self.room {
                room.give_back(room.taken().saturating_sub(held));
            }
        }
    }

    /// The range at one version; none if shards must be found again.
    async fn range_once(
        &self,
        trial: &mut Trial,
        volume: &str,
        range: &Range,
        level: ReadLevel,
    ) -> Result<Option<Ranged>, ClientError> {
        let shards = self.shards_of(trial, volume, &range.keys).await?;
        let mut at = range.at;
        if at.is_none() && shards.len() > 1 && level == ReadLevel::Strong {
            at = self.cut_of(trial, &shards).await?;
            if at.is_none() {
                return Ok(None);
            }
        }
        let parts = shards.iter().map(|shard| self.range_of(volume, *shard, range, at, level));
        let mut all: Option<Ranged> = None;
        for part in join_all(parts).await {
            let Some(part) = part? else { return Ok(None) };
            match &mut all {
                None => all = Some(part),
                Some(all) => all.join(part),
            }
        }
        let mut all = all.ok_or_else(|| ClientError::BadAnswer {
            subject: trial.subject().to_owned(),
            cause: "the volume has no shards".to_owned(),
        })?;
        range.arrange(&mut all.result);
        Ok(Some(all))
    }

    /// One shard's part, page by page; none if it must be found again. Not yet
    /// in the order asked for.
    async fn range_of(
        &self,
        volume: &str,
        shard: ShardId,
        range: &Range,
        at: Option<Version>,
        level: ReadLevel,
    ) -> Result<Option<Ranged>, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        if range.is_sorted_and_cut() {
            let first = Range { limit: range.limit, sort: range.sort, ..page_of(range, at) };
            match self.gather_page(&mut trial, shard, &first, level).await {
                // More than one answer holds.
                Err(ClientError::Fault { fault: Fault::TooLarge(_), .. }) => {
                    trial = self.trial(format!("volume {volume}"));
                }
                asked => return Ok(asked?.map(|(part, _)| part)),
            }
        }
        let mut page = page_of(range, at);
        let mut all: Option<Ranged> = None;
        let mut bytes = 0;
        loop {
            let asked = self.gather_page(&mut trial, shard, &page, level).await?;
            let Some((part, part_bytes)) = asked else { return Ok(None) };
            bytes += part_bytes;
            if bytes > GATHERED_BYTES_MAX {
                return Err(too_large(&trial, GATHERED_BYTES_MAX));
            }
            let (more, last) = (part.result.more, part.result.items.last().map(|i| i.key.clone()));
            page.at = Some(part.at);
            match &mut all {
                None => all = Some(part),
                Some(all) => {
                    all.result.more = more;
                    all.result.items.extend(part.result.items);
                }
            }
            bytes -= all.as_mut().map_or(0, |all| self.let_go(range, &mut all.result));
            let shown = all.as_ref().map_or(0, |all| all.result.items.len());
            let enough =
                page.limit > 0 && shown >= usize::try_from(range.limit).unwrap_or(usize::MAX);
            match last {
                Some(last) if more && !enough => go_on(&mut page, &last, range.limit, shown),
                Some(_) | None => return Ok(all),
            }
        }
    }

    /// One answer of a shard, with room for it, and its bytes; none if the shard must be
    /// found again.
    async fn gather_page(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        page: &Range,
        level: ReadLevel,
    ) -> Result<Option<(Ranged, usize)>, ClientError> {
        // One key is no larger than what asks for it may be.
        let gathers = matches!(page.keys, Keys::Range { .. });
        self.take_room(trial, if gathers { LIST_PAGE_BYTES_MAX } else { 0 }).await?;
        let asked = self.ask_page(trial, shard, page, level).await;
        let items = asked.iter().flatten().flat_map(|part| &part.result.items);
        let bytes = items.map(item_bytes).sum();
        if gathers {
            self.keep_room(trial, bytes).await?;
        }
        Ok(asked?.map(|part| (part, bytes)))
    }

    /// Lets go of what was gathered and stands behind what the limit of a sorted range
    /// shows, once that is as much again; how many bytes.
    fn let_go(&self, range: &Range, gathered: &mut RangeResult) -> usize {
        let limit = usize::try_from(range.limit).unwrap_or(usize::MAX);
        let much = range.limit > 0 && gathered.items.len() / 2 >= limit;
        if range.is_in_order() || !much {
            return 0;
        }
        let bytes_of = |items: &[Item]| items.iter().map(item_bytes).sum::<usize>();
        let before = bytes_of(&gathered.items);
        range.keep_first(gathered);
        let gone = before.saturating_sub(bytes_of(&gathered.items));
        if let Some(room) = &self.room {
            room.give_back(gone);
        }
        gone
    }

    /// Takes room for what is about to be gathered.
    pub(super) async fn take_room(&self, trial: &Trial, bytes: usize) -> Result<(), ClientError> {
        match &self.room {
            Some(room) if !room.could_grow(bytes) => Err(too_large(trial, room.most())),
            Some(room) if bytes > 0 && !room.grow(bytes).await => {
                let (subject, retry_after_ms) = (trial.subject().to_owned(), ROOM_RETRY_MS);
                Err(ClientError::Fault { subject, fault: Fault::Busy { retry_after_ms } })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives back what an answer did not need of its room, or takes what is missing:
    /// a page ends behind the item that fills it, however large that is.
    async fn keep_room(&self, trial: &Trial, bytes: usize) -> Result<(), ClientError> {
        if let Some(room) = &self.room {
            room.give_back(LIST_PAGE_BYTES_MAX.saturating_sub(bytes));
        }
        self.take_room(trial, bytes.saturating_sub(LIST_PAGE_BYTES_MAX)).await
    }

    /// One answer of a shard, about a megabyte; none if it must be found again.
    async fn ask_page(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        page: &Range,
        level: ReadLevel,
    ) -> Result<Option<Ranged>, ClientError> {
        let body = || ShardBody::Range { range: page.clone(), level };
        match self.ask_shard(trial, shard, who(level), &body).await? {
            Reply::Reroute => Ok(None),
            Reply::Result(ShardResult::Range { result, at, now }) => {
                Ok(Some(Ranged { result, at, now }))
            }
            Reply::Result(other) => Err(strange_result(trial, &other)),
        }
    }

    /// Reads the first keys of a range in the order of keys, as many as come in one
    /// answer: about a megabyte. The volume has one shard.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub async fn range_page(
        &self,
        volume: &str,
        range: &Range,
        level: ReadLevel,
    ) -> Result<Ranged, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let page = page_of(range, range.at);
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            if let Some(part) = self.ask_page(&mut trial, shard, &page, level).await? {
                return Ok(part);
            }
        }
    }

    /// Writes a key as told; its version, and what was there if that is asked.
    ///
    /// # Errors
    /// As [`Self::transact`].
    pub async fn put_as(
        &self,
        volume: &str,
        put: Put,
    ) -> Result<(Version, Option<Item>), ClientError> {
        let transaction = Transaction::new().then(Step::Put(put));
        match self.one_step(volume, transaction).await? {
            (version, StepResult::Put { previous }) => Ok((version, previous)),
            (_, _) => Err(strange_step(volume)),
        }
    }

    /// Lets the versions of a volume of kind *single* begin above this one; the
    /// newest then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn advance(&self, volume: &str, version: Version) -> Result<Version, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let body = || ShardBody::Advance { version };
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            match self.ask_shard(&mut trial, shard, Who::Leader, &body).await? {
                Reply::Reroute => {}
                Reply::Result(ShardResult::Outcome(Outcome::Written { version, .. })) => {
                    return Ok(version);
                }
                Reply::Result(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    pub(super) async fn one_step(
        &self,
        volume: &str,
        transaction: Transaction,
    ) -> Result<(Version, StepResult), ClientError> {
        let Transacted { version, results, .. } = self.transact(volume, transaction).await?;
        let step = results.and_then(|results| results.into_iter().next());
        let none = || ClientError::BadAnswer {
            subject: format!("volume {volume}"),
            cause: "a transaction of one step came without a result".to_owned(),
        };
        Ok((version, step.ok_or_else(none)?))
    }

    /// Lets go of the history below a version, in all shards; the newest
    /// version.
    ///
    /// # Errors
    /// See [`ClientError`]; [`Fault::Compacted`] if it is gone already,
    /// [`Fault::NoSuchVersion`] if it lies in the future.
    pub async fn compact(&self, volume: &str, version: Version) -> Result<Version, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let shards = self.shards_of(&mut trial, volume, &Keys::range("", "")).await?;
        let mut newest = Version(0);
        for shard in shards {
            newest = newest.max(self.compact_shard(&mut trial, shard, version).await?);
        }
        Ok(newest)
    }

    async fn compact_shard(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        version: Version,
    ) -> Result<Version, ClientError> {
        let body = || ShardBody::Compact { version };
        trial.clear_doubt();
        loop {
            let (before, now) = match self.ask_shard(trial, shard, Who::Leader, &body).await? {
                Reply::Reroute => continue,
                Reply::Result(ShardResult::Outcome(Outcome::Compacted { before, now, .. })) => {
                    (before, now)
                }
                Reply::Result(ShardResult::Outcome(Outcome::Refused(refusal))) => {
                    return Err(refused(trial, &refusal));
                }
                Reply::Result(other) => return Err(strange_result(trial, &other)),
            };
            let fault = if version > now {
                let text = format!("version {version} lies in the future; the newest is {now}");
                Fault::NoSuchVersion(text)
            } else if version < before || (version == before && !trial.in_doubt()) {
                Fault::Compacted { at: version, compacted: before }
            } else {
                return Ok(now);
            };
            return Err(ClientError::Fault { subject: trial.subject().to_owned(), fault });
        }
    }

    /// The shards that may hold some of the keys.
    pub(super) async fn shards_of(
        &self,
        trial: &mut Trial,
        volume: &str,
        keys: &Keys,
    ) -> Result<Vec<ShardId>, ClientError> {
        if let Keys::One(key) = keys {
            return Ok(vec![self.shard_for(trial, volume, key).await?]);
        }
        loop {
            let (map, record) = self.volume(trial, volume).await?;
            let all: Vec<_> = map.shards_of(&record).map(|shard| shard.shard).collect();
            if !all.is_empty() && all.len() == record.shards.len() {
                return Ok(all);
            }
            trial.note(format!("the shards of volume {volume} are not all known yet"));
            self.renew_map(trial).await?;
        }
    }

    /// A version that no write acknowledged until now is later than; none if a
    /// shard changed meanwhile.
    async fn cut_of(
        &self,
        trial: &mut Trial,
        shards: &[ShardId],
    ) -> Result<Option<Version>, ClientError> {
        let nothing = || Range { limit: 1, ..Range::of(Keys::range("", "")) }.heads();
        let body = || ShardBody::Range { range: nothing(), level: ReadLevel::Strong };
        let asked = shards.iter().map(|shard| {
            let mut trial = self.trial(trial.subject().to_owned());
            async move { self.ask_shard(&mut trial, *shard, Who::Leader, &body).await }
        });
        let mut cut = self.now_version();
        for reply in join_all(asked).await {
            match reply? {
                Reply::Result(ShardResult::Range { now, .. }) => cut = cut.max(now),
                Reply::Result(other) => return Err(strange_result(trial, &other)),
                Reply::Reroute => return Ok(None),
            }
        }
        Ok(Some(cut))
    }
}

impl Ranged {
    /// Takes in another shard's part.
    fn join(&mut self, other: Self) {
        self.result.items.extend(other.result.items);
        self.result.more |= other.result.more;
        self.result.count += other.result.count;
        self.now = self.now.max(other.now);
    }
}

/// The first page of a range, in the order of keys.
fn page_of(range: &Range, at: Option<Version>) -> Range {
    let limit = if range.is_in_order() { range.limit } else { 0 };
    let show = match range.show {
        Show::Heads if range.needs_values() => Show::Items,
        show @ (Show::Items | Show::Heads | Show::Count) => show,
    };
    Range { at, limit, show, sort: Sort::default(), ..range.clone() }
}

/// Turns a page into the one after the key `last`.
fn go_on(page: &mut Range, last: &[u8], limit: u32, shown: usize) {
    if let Keys::Range { from, .. } = &mut page.keys {
        *from = [last, &[0]].concat();
    }
    // All were counted with the first page.
    page.count = false;
    if page.limit > 0 {
        page.limit = limit.saturating_sub(u32::try_from(shown).unwrap_or(u32::MAX)).max(1);
    }
}

pub(super) fn too_large(trial: &Trial, most: usize) -> ClientError {
    let fault = Fault::Invalid(format!(
        "a range gathers at most {}: set a limit, or leave values out",
        ByteSize(most as u64)
    ));
    ClientError::Fault { subject: trial.subject().to_owned(), fault }
}

pub(super) fn strange_step(volume: &str) -> ClientError {
    ClientError::BadAnswer {
        subject: format!("volume {volume}"),
        cause: "the result of another step came instead".to_owned(),
    }
}
