//! Money moves by transactions: each reads two accounts, and writes both if
//! neither has changed since.
//!
//! Judged: whoever reads all accounts in one transaction finds all the money;
//! transactions have an order, that of their versions, in which each of them
//! found what the one before had left (between what one read and what it wrote
//! no other wrote); and a transaction that began after another had ended comes
//! after it. So they are strictly serializable, as far as clients were told.
//! Sources: the bank test of Jepsen; Adya, "Weak Consistency", 1999, for the
//! order by versions.

use std::{collections::BTreeMap, time::Duration};

use actors::client::ClientError;
use cluster::{
    mvcc::version::Version,
    request::{Item, WriteLevel},
    shard::{
        command::Op,
        transaction::{Compare, Step, StepResult, Transacted, Transaction},
    },
    units::Instant,
};

use super::{
    Heard, Play, Player, Shared, Wrong,
    bank::{ACCOUNTS, accounts_of},
    draw_rest, halve,
};
use crate::{
    oracle::versions::{self, Stamped},
    rng::Rng,
};

/// What all accounts begin with.
const PREFIX: &str = "transfers/";
/// What an account begins with.
const BALANCE: u64 = 250;

/// The workload.
#[derive(Clone, Debug)]
pub struct Transfers {
    clients: u32,
    rest: (Duration, Duration),
    seen: Shared<Seen>,
}

/// What clients know and were told.
#[derive(Debug, Default)]
struct Seen {
    accounts: Vec<String>,
    /// Acknowledged transfers.
    moved: Vec<Moved>,
    wrong: Wrong,
}

/// One transfer.
#[derive(Clone, Debug)]
struct Moved {
    /// The two accounts, with the version of what was read there.
    read: [(String, Version); 2],
    called: Instant,
    returned: Instant,
    version: Version,
}

impl Transfers {
    /// Clients that share four accounts.
    pub fn new(clients: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, rest, seen: Shared::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..120);
        Self::new(2 + rng.number(3), rest)
    }
}

impl Play for Transfers {
    const NAME: &'static str = "transfers";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        let view = player.client.show_volume(&player.volume).await?;
        let accounts = accounts_of(&view.shards, 0, PREFIX);
        let put = |key: &String| Op::Put {
            key: key.clone().into_bytes(),
            value: BALANCE.to_le_bytes().to_vec(),
        };
        let ops = accounts.iter().map(put).collect();
        player.client.write(&player.volume, ops, WriteLevel::Strong).await?;
        self.seen.lock().accounts = accounts;
        Ok(())
    }

    async fn work(self, mut player: Player) {
        let accounts = self.seen.lock().accounts.clone();
        while !player.is_over() {
            let done = if player.rng.chance(700_000) {
                self.transfer(&mut player, &accounts).await
            } else {
                self.audit(&player).await
            };
            if let Err(error) = done {
                player.failed("read of accounts", &error);
            }
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        self.audit(&player).await
    }

    fn verdict(&self) -> Result<(), String> {
        let seen = self.seen.lock();
        seen.wrong.verdict()?;
        judge(&seen.moved)
    }
}

impl Transfers {
    /// Reads two accounts and moves a part of what is in the first.
    async fn transfer(&self, player: &mut Player, accounts: &[String]) -> Result<(), ClientError> {
        let from = player.rng.index(accounts.len());
        let to = (from + 1 + player.rng.index(accounts.len() - 1)) % accounts.len();
        let called = player.now();
        let mut read = Vec::new();
        for account in [from, to] {
            let name = accounts.get(account).cloned().unwrap_or_default();
            let item = player.client.get(&player.volume, &name).await?;
            let (balance, version) = item.map_or((0, Version(0)), |item| balance_of(&item));
            read.push((name, balance, version));
        }
        let [(from, has, from_at), (to, had, to_at)] = read.as_slice() else { return Ok(()) };
        let sum = player.rng.below(has + 1);
        let balances = [(from, from_at, has - sum), (to, to_at, had + sum)];
        let outcome = player.client.transact(&player.volume, moving(&balances)).await;
        if let Heard::Done(done) = player.hear(&format!("move {sum} from {from} to {to}"), outcome)
        {
            let read = [(from.clone(), *from_at), (to.clone(), *to_at)];
            let (returned, version) = (player.now(), done.version);
            if done.succeeded {
                self.seen.lock().moved.push(Moved { read, called, returned, version });
            } else {
                player.trace.count("transfer overtaken");
            }
        }
        Ok(())
    }

    /// Reads all accounts in one transaction and adds them up.
    async fn audit(&self, player: &Player) -> Result<(), ClientError> {
        let accounts = self.seen.lock().accounts.clone();
        let read = |all: Transaction, key: &String| all.then(Step::get(key.as_str()));
        let transaction = accounts.iter().fold(Transaction::new(), read);
        let outcome = player.client.transact(&player.volume, transaction).await;
        let done = player.noted("audit", outcome)?;
        if let Err(wrong) = add_up(&done) {
            let told = format!("{wrong} in an audit of c{}", player.number);
            player.accuse(&mut self.seen.lock().wrong, told);
        }
        Ok(())
    }
}

fn balance_of(item: &Item) -> (u64, Version) {
    let balance = item.value.as_slice().try_into().map_or(0, u64::from_le_bytes);
    (balance, item.modified)
}

/// If no account changed since it was read: writes all.
fn moving(accounts: &[(&String, &Version, u64)]) -> Transaction {
    accounts.iter().fold(Transaction::new(), |all, (key, version, balance)| {
        all.when(Compare::modified(key.as_str(), **version))
            .then(Step::put(key.as_str(), balance.to_le_bytes()))
    })
}

/// All accounts, with all the money.
fn add_up(done: &Transacted) -> Result<(), String> {
    let results = done.results.as_deref().unwrap_or_default();
    let items = results.iter().filter_map(|result| match result {
        StepResult::Read(read) => read.items.first(),
        StepResult::Put { .. } | StepResult::Deleted { .. } | StepResult::Nested { .. } => None,
    });
    let items: Vec<&Item> = items.collect();
    let sum: u64 = items.iter().map(|item| balance_of(item).0).sum();
    if (items.len(), sum) == (ACCOUNTS, ACCOUNTS as u64 * BALANCE) {
        return Ok(());
    }
    Err(format!("{} accounts with {sum} at {:?}", items.len(), done.version))
}

/// Judges acknowledged transfers by their versions.
fn judge(moved: &[Moved]) -> Result<(), String> {
    let mut writes: BTreeMap<&str, Vec<Version>> = BTreeMap::new();
    for one in moved {
        for (account, _) in &one.read {
            writes.entry(account).or_default().push(one.version);
        }
    }
    for one in moved {
        for (account, read) in &one.read {
            let all = writes.get(account.as_str()).into_iter().flatten();
            let mut between = all.filter(|other| **other > *read && **other < one.version);
            if let Some(other) = between.next() {
                return Err(format!(
                    "a transfer at {:?} read {account} as of {read:?}, but one wrote it at \
                     {other:?}",
                    one.version
                ));
            }
        }
    }
    // One shard, one order: as if all of them wrote one key.
    let stamp = |one: &Moved| Stamped {
        key: PREFIX.to_owned(),
        called: one.called,
        returned: one.returned,
        version: one.version,
    };
    versions::check(&moved.iter().map(stamp).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use cluster::{ids::LeaseId, shard::range::RangeResult};

    use super::*;

    fn moved(accounts: [(&str, u64); 2], version: u64, at: u64) -> Moved {
        let at = Instant::ORIGIN + Duration::from_secs(at);
        Moved {
            read: accounts.map(|(name, read)| (name.to_owned(), Version(read))),
            called: at,
            returned: at + Duration::from_millis(5),
            version: Version(version),
        }
    }

    #[test]
    fn a_transfer_that_missed_one_it_follows_is_found() {
        let first = moved([("a", 1), ("b", 1)], 2, 1);
        assert_eq!(judge(&[first.clone(), moved([("a", 2), ("c", 1)], 3, 2)]), Ok(()));
        assert!(judge(&[first.clone(), moved([("a", 1), ("c", 1)], 3, 2)]).is_err());
        let early = moved([("c", 1), ("d", 1)], 1, 2);
        assert!(judge(&[first, early]).is_err(), "later, at an earlier version");
    }

    #[test]
    fn money_that_came_from_nowhere_is_found() {
        let item = |balance: u64| Item {
            key: b"k".to_vec(),
            value: balance.to_le_bytes().to_vec(),
            value_bytes: 8,
            created: Version(1),
            modified: Version(1),
            changes: 1,
            modified_ms: 0,
            lease: LeaseId(0),
        };
        let read = |balances: [u64; 4]| Transacted {
            version: Version(1),
            succeeded: true,
            changed: false,
            results: Some(
                balances
                    .map(|balance| {
                        let items = vec![item(balance)];
                        StepResult::Read(RangeResult { items, ..RangeResult::default() })
                    })
                    .to_vec(),
            ),
        };
        assert_eq!(add_up(&read([250, 0, 500, 250])), Ok(()));
        assert!(add_up(&read([250, 0, 500, 251])).is_err());
    }
}
