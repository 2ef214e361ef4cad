//! Money moves between the accounts of a branch; no list ever shows that some
//! came or went.
//!
//! The accounts of a branch lie in one shard, and its owner writes all of them
//! in one batch. Everybody lists all branches and adds up.
//! Source: the bank test of Jepsen.

use std::{collections::BTreeMap, time::Duration};

use actors::client::{ClientError, ListOptions};
use cluster::{
    request::{Item, ReadLevel, WriteLevel},
    routing::shard_of,
    shard::{command::Op, descriptor::ShardDescriptor},
};

use super::{Play, Player, Shared, Wrong, draw_rest};
use crate::rng::Rng;

/// What all accounts begin with.
const PREFIX: &str = "bank/";
/// Accounts of a branch.
pub(super) const ACCOUNTS: usize = 4;
/// What a branch holds in all.
const TOTAL: u64 = 1_000;
/// Keys tried for each account until one falls into its branch's shard: with
/// 64 shards one in 64 does, so 4,096 miss with a chance of 10^-28.
const TRIES_MAX: u32 = 4_096;

/// The workload.
#[derive(Clone, Debug)]
pub struct Bank {
    branches: u32,
    rest: (Duration, Duration),
    seen: Shared<Seen>,
}

/// What clients know and were told.
#[derive(Debug, Default)]
struct Seen {
    /// The accounts of each branch that no client owns yet.
    free: Vec<Vec<String>>,
    /// The first sum that was wrong.
    wrong: Wrong,
}

impl Bank {
    /// As many branches as clients.
    pub fn new(branches: u32, rest: (Duration, Duration)) -> Self {
        Self { branches, rest, seen: Shared::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 30..130);
        Self::new(1 + rng.number(3), rest)
    }
}

impl Play for Bank {
    const NAME: &'static str = "bank";

    fn clients(&self) -> u32 {
        self.branches
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        let view = player.client.show_volume(&player.volume).await?;
        for branch in 0..self.branches {
            let accounts = accounts_of(&view.shards, branch, &format!("{PREFIX}{branch:02}/"));
            let ops = ops_of(&accounts, &[TOTAL / ACCOUNTS as u64; ACCOUNTS]);
            player.client.write(&player.volume, ops, WriteLevel::Strong).await?;
            self.seen.lock().free.push(accounts);
        }
        Ok(())
    }

    async fn work(self, mut player: Player) {
        let Some(accounts) = self.seen.lock().free.pop() else { return };
        let mut balances = [TOTAL / ACCOUNTS as u64; ACCOUNTS];
        while !player.is_over() {
            if player.rng.chance(500_000) {
                let before = balances;
                self.transfer(&mut player, &accounts, &mut balances).await;
                player.note(&format!("moved money: {before:?} to {balances:?}"));
            } else {
                let level = if player.rng.chance(300_000) {
                    ReadLevel::Eventual
                } else {
                    ReadLevel::Strong
                };
                if let Err(error) = self.audit(&player, level).await {
                    player.failed("audit", &error);
                }
            }
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        self.audit(&player, ReadLevel::Strong).await
    }

    fn verdict(&self) -> Result<(), String> {
        self.seen.lock().wrong.verdict()
    }
}

impl Bank {
    /// Moves a sum between two accounts. Whatever becomes of an earlier
    /// transfer in doubt, every batch names all accounts of the branch.
    async fn transfer(&self, player: &mut Player, accounts: &[String], balances: &mut [u64]) {
        let (from, to) = (player.rng.index(ACCOUNTS), player.rng.index(ACCOUNTS));
        let sum = player.rng.below(balances[from] + 1);
        balances[from] -= sum;
        balances[to] += sum;
        let ops = ops_of(accounts, balances);
        let written = player.client.write(&player.volume, ops, WriteLevel::Strong).await;
        player.hear("transfer", written);
    }

    /// Lists all accounts at one moment and adds them up.
    async fn audit(&self, player: &Player, level: ReadLevel) -> Result<(), ClientError> {
        let options = ListOptions { level, values: true, ..ListOptions::default() };
        let mut listing = player.client.list(&player.volume, PREFIX, options);
        let mut items = Vec::new();
        while let Some(page) = listing.next_page().await? {
            items.extend(page.items);
            if page.next.is_none() {
                break;
            }
        }
        player.count_operation();
        // A replica that is late may not have the accounts at all.
        let branches = if level == ReadLevel::Strong { self.branches } else { 0 };
        if let Err(wrong) = add_up(&items, branches) {
            let told = format!("{wrong} in an audit of c{} at {level:?}", player.number);
            player.accuse(&mut self.seen.lock().wrong, told);
        }
        Ok(())
    }
}

/// Names of a branch's accounts: keys below a prefix that lie in one shard.
pub(super) fn accounts_of(shards: &[ShardDescriptor], branch: u32, prefix: &str) -> Vec<String> {
    let index = usize::try_from(branch).unwrap_or(0) % shards.len().max(1);
    let home = shards.get(index).map(|shard| shard.shard);
    let name = |salt: u32| format!("{prefix}{salt}");
    let lies_here =
        |key: &String| shard_of(shards, key.as_bytes()).map(|shard| shard.shard) == home;
    (0..TRIES_MAX).map(name).filter(lies_here).take(ACCOUNTS).collect()
}

/// Adds up each branch that is there; at least `wanted` must be.
fn add_up(items: &[Item], wanted: u32) -> Result<(), String> {
    let mut sums: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for item in items {
        let key = String::from_utf8_lossy(&item.key);
        let branch = key.rsplit_once('/').map_or("", |(branch, _)| branch).to_owned();
        let balance = item.value.as_slice().try_into().map(u64::from_le_bytes);
        let balance = balance.map_err(|_| format!("{key} holds no balance"))?;
        let (count, sum) = sums.entry(branch).or_default();
        *count += 1;
        *sum += balance;
    }
    if sums.len() < usize::try_from(wanted).unwrap_or(0) {
        return Err(format!("{} of {wanted} branches are there", sums.len()));
    }
    match sums.iter().find(|(_, found)| **found != (ACCOUNTS, TOTAL)) {
        Some((branch, (count, sum))) => {
            Err(format!("{branch} has {count} accounts with {sum} of {TOTAL} in all"))
        }
        None => Ok(()),
    }
}

fn ops_of(accounts: &[String], balances: &[u64]) -> Vec<Op> {
    let put = |(key, balance): (&String, &u64)| Op::Put {
        key: key.clone().into_bytes(),
        value: balance.to_le_bytes().to_vec(),
    };
    accounts.iter().zip(balances).map(put).collect()
}

#[cfg(test)]
mod tests {
    use cluster::mvcc::version::Version;

    use super::*;

    fn account(key: &str, balance: u64) -> Item {
        Item {
            key: key.into(),
            value: balance.to_le_bytes().to_vec(),
            value_bytes: 8,
            created: Version(1),
            modified: Version(1),
            changes: 1,
            modified_ms: 0,
            lease: cluster::ids::LeaseId(0),
        }
    }

    #[test]
    fn a_sum_that_changed_and_a_missing_account_are_found() {
        let sound = [("bank/00/1", 1_000), ("bank/00/2", 0), ("bank/00/5", 0), ("bank/00/9", 0)];
        let mut items: Vec<_> = sound.iter().map(|(key, sum)| account(key, *sum)).collect();
        assert_eq!(add_up(&items, 1), Ok(()));
        assert!(add_up(&items, 2).is_err());
        assert!(add_up(&items[..3], 0).is_err());
        items[0] = account("bank/00/1", 999);
        assert!(add_up(&items, 1).is_err());
    }
}
