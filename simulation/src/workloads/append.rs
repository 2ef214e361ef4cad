//! Lists that clients append to by compare-and-set; each element is another.
//!
//! Exactly once, seen from outside: an acknowledged element is there once, one
//! in doubt at most once, one whose compare failed never; and whatever was read
//! is a beginning of what is there at the end.
//! Source: the append workload of Jepsen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use actors::client::ClientError;
use cluster::{
    mvcc::version::Version,
    shard::transaction::{Block, Compare, Keys, Relation, Step, Target, Transaction},
    units::Instant,
};

use super::{Heard, Play, Player, Shared, draw_rest};
use crate::rng::Rng;

/// Elements after which a list is left and the next begun: 8 bytes each, so
/// values stay below 2 KiB.
const ELEMENTS_MAX: usize = 200;

/// The workload.
#[derive(Clone, Debug)]
pub struct Appends {
    clients: u32,
    lists: u32,
    rest: (Duration, Duration),
    seen: Shared<Seen>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    lists: BTreeMap<String, List>,
    /// How often each list was full and begun anew, by its number.
    turns: BTreeMap<u32, u32>,
}

/// What is known of one list.
#[derive(Debug, Default)]
struct List {
    acknowledged: BTreeSet<u64>,
    in_doubt: BTreeSet<u64>,
    /// Reads with call and return.
    reads: Vec<(Instant, Instant, Vec<u64>)>,
    /// Nothing is appended after it was read last.
    last: Option<Vec<u64>>,
}

impl Appends {
    /// Clients that share lists.
    pub fn new(clients: u32, lists: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, lists, rest, seen: Shared::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..120);
        Self::new(2 + rng.number(3), 1 + rng.number(3), rest)
    }
}

impl Play for Appends {
    const NAME: &'static str = "appends";

    fn clients(&self) -> u32 {
        self.clients
    }

    async fn work(self, mut player: Player) {
        let mut made = 0;
        while !player.is_over() {
            let number = player.rng.number(self.lists);
            let turn = self.seen.lock().turns.get(&number).copied().unwrap_or(0);
            let key = format!("append-{number}-{turn}");
            made += 1;
            let element = u64::from(player.number) << 32 | made;
            match self.append(&mut player, &key, element).await {
                Ok(length) if length >= ELEMENTS_MAX => {
                    self.seen.lock().turns.insert(number, turn + 1);
                }
                Ok(_) => {}
                Err(error) => {
                    player.failed(&format!("read {key}"), &error);
                }
            }
            player.rest(self.rest).await;
        }
    }

    async fn look(self, player: Player) -> Result<(), ClientError> {
        let keys: Vec<String> = self.seen.lock().lists.keys().cloned().collect();
        for key in keys {
            self.read(&player, &key).await?;
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let seen = self.seen.lock();
        seen.lists
            .iter()
            .try_for_each(|(key, list)| list.check().map_err(|wrong| format!("{key} {wrong}")))
    }
}

impl Appends {
    /// Reads a list and appends to it; how long it is.
    async fn append(
        &self,
        player: &mut Player,
        key: &str,
        element: u64,
    ) -> Result<usize, ClientError> {
        let (mut list, modified) = self.read(player, key).await?;
        list.push(element);
        let length = list.len();
        let transaction = replace(key, modified, &list);
        let outcome = player.client.transact(&player.volume, transaction).await;
        let mut seen = self.seen.lock();
        let known = seen.lists.entry(key.to_owned()).or_default();
        let outcome = outcome.map(|done| done.succeeded);
        let changed = if matches!(outcome, Ok(false)) { ", but it had changed" } else { "" };
        match player.hear(&format!("append {element} to {key}{changed}"), outcome) {
            Heard::Done(true) => {
                known.acknowledged.insert(element);
            }
            Heard::Done(false) => player.trace.count("compare failed"),
            Heard::InDoubt => {
                known.in_doubt.insert(element);
            }
            Heard::Failed => {}
        }
        Ok(length)
    }

    async fn read(&self, player: &Player, key: &str) -> Result<(Vec<u64>, Version), ClientError> {
        let called = player.now();
        let item = player.client.get(&player.volume, key).await?;
        let modified = item.as_ref().map_or(Version(0), |item| item.modified);
        let list = item.map_or_else(Vec::new, |item| elements(&item.value));
        player.count_operation();
        let mut seen = self.seen.lock();
        let known = seen.lists.entry(key.to_owned()).or_default();
        known.reads.push((called, player.now(), list.clone()));
        known.last = Some(list.clone());
        Ok((list, modified))
    }
}

/// If the key was not changed since it was read: writes the list.
fn replace(key: &str, modified: Version, list: &[u64]) -> Transaction {
    let compare = Compare {
        keys: Keys::One(key.into()),
        is: Relation::Equal,
        target: Target::Modified(modified),
    };
    let value: Vec<u8> = list.iter().flat_map(|element| element.to_le_bytes()).collect();
    let then = vec![Step::put(key, value)];
    Transaction { blocks: vec![Block { compares: vec![compare], then, otherwise: Vec::new() }] }
}

fn elements(value: &[u8]) -> Vec<u64> {
    let number = |chunk: &[u8]| chunk.try_into().map_or(u64::MAX, u64::from_le_bytes);
    value.chunks(8).map(number).collect()
}

impl List {
    fn check(&self) -> Result<(), String> {
        let Some(last) = &self.last else { return Ok(()) };
        let there: BTreeSet<u64> = last.iter().copied().collect();
        if there.len() < last.len() {
            return Err("holds an element twice".to_owned());
        }
        if let Some(lost) = self.acknowledged.difference(&there).next() {
            return Err(format!("lost {lost}, which was acknowledged"));
        }
        let known =
            |element: &&u64| self.acknowledged.contains(element) || self.in_doubt.contains(element);
        if let Some(extra) = last.iter().find(|element| !known(element)) {
            return Err(format!("holds {extra}, whose append failed for certain"));
        }
        if let Some((_, _, read)) = self.reads.iter().find(|(_, _, read)| !last.starts_with(read)) {
            return Err(format!("was read as {read:?}, which is no beginning of {last:?}"));
        }
        self.check_order()
    }

    /// A read that began after another ended shows at least as much.
    fn check_order(&self) -> Result<(), String> {
        let mut by_call: Vec<_> = self.reads.iter().collect();
        by_call.sort_by_key(|(called, _, _)| *called);
        let mut by_return = by_call.clone();
        by_return.sort_by_key(|(_, returned, _)| *returned);
        let mut returned = by_return.into_iter().peekable();
        let mut longest = 0;
        for (called, _, read) in by_call {
            while let Some((_, _, before)) = returned.next_if(|(_, end, _)| end < called) {
                longest = longest.max(before.len());
            }
            if read.len() < longest {
                return Err(format!("showed {} elements after {longest}", read.len()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(ms)
    }

    fn list(last: &[u64], reads: &[(u64, u64, &[u64])]) -> List {
        List {
            acknowledged: [1, 2].into(),
            in_doubt: [3].into(),
            reads: reads.iter().map(|(a, b, read)| (at(*a), at(*b), read.to_vec())).collect(),
            last: Some(last.to_vec()),
        }
    }

    #[test]
    fn a_list_in_which_everything_happened_once_passes() {
        assert_eq!(list(&[1, 2], &[(0, 1, &[]), (2, 3, &[1])]).check(), Ok(()));
        assert_eq!(list(&[1, 3, 2], &[(0, 9, &[1, 3]), (2, 3, &[1])]).check(), Ok(()));
    }

    #[test]
    fn loss_doubles_forks_and_reads_that_go_back_are_found() {
        assert!(list(&[1], &[]).check().unwrap_err().contains("lost 2"));
        assert!(list(&[1, 2, 1], &[]).check().unwrap_err().contains("twice"));
        assert!(list(&[1, 2, 9], &[]).check().unwrap_err().contains("for certain"));
        assert!(list(&[1, 2], &[(0, 1, &[2])]).check().unwrap_err().contains("no beginning"));
        let back = list(&[1, 2], &[(0, 1, &[1, 2]), (2, 3, &[1])]);
        assert!(back.check().unwrap_err().contains("showed 1"));
    }
}
