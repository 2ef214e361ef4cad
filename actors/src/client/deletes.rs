//! Deletes of ranges, however large: etcd's `DeleteRange`.
//!
//! What is more than one entry of the log takes goes in parts, cut by what that meets and
//! by what an answer shows.

use cluster::{
    limits::TRANSACTION_BYTES_MAX,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Step, StepResult, Transaction, TransactionError},
    },
};

use super::{
    Client,
    error::ClientError,
    range::{GATHERED_BYTES_MAX, strange_step, too_large},
};

/// Keys of one part of a large delete: a fifth of what an entry may meet, so that
/// keys that come meanwhile still fit.
const PART_KEYS: u32 = 2_000;
/// Bytes of them that are shown: half of what one answer takes, or one larger item.
const PART_BYTES: usize = 512 << 10;
/// The same of those that are not: a quarter of what an entry may meet.
const PART_BYTES_UNSHOWN: usize = TRANSACTION_BYTES_MAX / 4;

/// Keys that were deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The version that deleted them; the newest if there were none.
    pub version: Version,
    /// How many there were.
    pub count: u32,
    /// What they were, if that was asked.
    pub previous: Vec<Item>,
    /// Changes that it took. More than one, and others may have seen part of the keys
    /// gone and part still there.
    pub parts: u32,
}

impl Client {
    /// Deletes keys at one version.
    ///
    /// # Errors
    /// As [`Self::transact`].
    pub async fn delete_range(
        &self,
        volume: &str,
        keys: impl Into<Keys>,
        previous: bool,
    ) -> Result<Deleted, ClientError> {
        let step = Step::Delete { keys: keys.into(), previous };
        match self.one_step(volume, Transaction::new().then(step)).await? {
            (version, StepResult::Deleted { count, previous }) => {
                Ok(Deleted { version, count, previous, parts: 1 })
            }
            (_, _) => Err(strange_step(volume)),
        }
    }

    /// Deletes keys, however many: what is more than one entry of the log takes
    /// goes in parts, each at a version of its own, from the first key on. Keys
    /// written meanwhile may stay or go. The version is that of the last part.
    /// What they were is gathered as a range is, within the same bound.
    ///
    /// # Errors
    /// As [`Self::transact`]; then part of them may be gone. What would not fit
    /// into the answer is refused before anything is deleted.
    pub async fn delete_range_in_parts(
        &self,
        volume: &str,
        keys: impl Into<Keys>,
        previous: bool,
    ) -> Result<Deleted, ClientError> {
        self.delete_range_in_parts_telling(volume, keys, previous, |_| {}).await
    }

    /// The same, telling after each part what is gone by then. If it fails on the way,
    /// what was told last is gone, and maybe one part more.
    ///
    /// # Errors
    /// As [`Self::delete_range_in_parts`].
    pub async fn delete_range_in_parts_telling(
        &self,
        volume: &str,
        keys: impl Into<Keys>,
        previous: bool,
        mut tell: impl FnMut(&Deleted),
    ) -> Result<Deleted, ClientError> {
        let keys = keys.into();
        let whole = self.delete_range(volume, keys.clone(), previous).await;
        let too_much = whole.as_ref().is_err_and(|error| {
            matches!(
                error,
                ClientError::BadTransaction(
                    TransactionError::TouchesTooMuch | TransactionError::ReadsTooMuch
                )
            )
        });
        let Keys::Range { mut from, to } = keys else { return whole };
        if !too_much {
            return whole;
        }
        if previous {
            // All of its room now: what is half deleted cannot be refused.
            let bytes = self.check_gathers(volume, from.clone(), &to).await?;
            self.take_room(&self.trial(format!("volume {volume}")), bytes).await?;
        }
        let mut all = Deleted { version: Version(0), count: 0, previous: Vec::new(), parts: 0 };
        loop {
            let next = Range::of(Keys::range(from.clone(), to.clone())).limit(PART_KEYS).heads();
            let found = self.range_page(volume, &next, ReadLevel::Strong).await?;
            let part = cut(&found.result.items, previous);
            let Some(last) = part.last() else {
                // Somebody else was faster: the newest, as of a delete of nothing.
                let version = if all.parts == 0 { found.now } else { all.version };
                return Ok(Deleted { version, ..all });
            };
            let behind = [last.key.as_slice(), &[0]].concat();
            let done =
                self.delete_range(volume, Keys::range(from, behind.clone()), previous).await?;
            all.version = done.version;
            all.count = all.count.saturating_add(done.count);
            all.previous.extend(done.previous);
            all.parts += 1;
            tell(&all);
            from = behind;
        }
    }

    /// The bytes of a range; refuses one of more than one answer gathers.
    async fn check_gathers(
        &self,
        volume: &str,
        mut from: Vec<u8>,
        to: &[u8],
    ) -> Result<usize, ClientError> {
        let mut bytes = 0;
        loop {
            let next = Range::of(Keys::range(from, to)).heads();
            let found = self.range_page(volume, &next, ReadLevel::Strong).await?.result;
            bytes += found.items.iter().map(whole_bytes).sum::<usize>();
            if bytes > GATHERED_BYTES_MAX {
                let trial = self.trial(format!("volume {volume}"));
                return Err(too_large(&trial, GATHERED_BYTES_MAX));
            }
            match found.items.last() {
                Some(last) if found.more => from = [last.key.as_slice(), &[0]].concat(),
                Some(_) | None => return Ok(bytes),
            }
        }
    }
}

/// So many of the first keys as one entry deletes, and shows if that is asked.
fn cut(items: &[Item], shown: bool) -> &[Item] {
    let most = if shown { PART_BYTES } else { PART_BYTES_UNSHOWN };
    let mut bytes = 0;
    let fits = items.iter().take_while(|item| {
        bytes += whole_bytes(item);
        bytes <= most
    });
    let fits = fits.count().max(1);
    items.get(..fits).unwrap_or(items)
}

/// Bytes of an item with its value, which a head only counts.
fn whole_bytes(item: &Item) -> usize {
    item.key.len().saturating_add(usize::try_from(item.value_bytes).unwrap_or(usize::MAX))
}
