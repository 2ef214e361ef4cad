//! Any history of the map, and any point of it, against an ordered map of the
//! standard library.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

type Model = BTreeMap<Bytes, Option<Bytes>>;

fn key(chance: &mut StdRng) -> Bytes {
    let keys = [3, 40, 5_000][chance.random_range(0..3)];
    format!("key{:04}", chance.random_range(0..keys)).into_bytes().into()
}

/// Maps of each kind.
fn kinds() -> [GrowingMap; 3] {
    [GrowingMap::default(), GrowingMap::by_place(2), GrowingMap::by_place(usize::MAX)]
}

impl Shared {
    fn is_beside(&self, found: Found, id: u32, key: &[u8]) -> bool {
        let near = self.tables.newest(&self.slots, id, found.hash(key));
        self.order.beside(&self.slots, key, near).is_some()
    }
}

fn agree(map: &GrowingMap, model: &Model, chance: &mut StdRng) {
    assert!(map.iter().eq(model.iter()));
    assert_eq!(map.is_empty(), model.is_empty());
    for _ in 0..20 {
        let (one, other) = (key(chance), key(chance));
        assert_eq!(map.get(&one), model.get(&one));
        let (from, to) = (one.clone().min(other.clone()), one.max(other));
        let bounds = match chance.random_range(0..4) {
            0 => (Bound::Included(&from[..]), Bound::Excluded(&to[..])),
            1 => (Bound::Excluded(&from[..]), Bound::Unbounded),
            2 if from < to => (Bound::Excluded(&from[..]), Bound::Included(&to[..])),
            _ => (Bound::Unbounded, Bound::Included(&to[..])),
        };
        let model = model.range::<[u8], _>(bounds);
        assert!(map.range(bounds).eq(model), "{bounds:?}");
    }
}

#[test]
fn every_point_shows_what_was_there_whatever_is_written_since() {
    for (seed, map) in (0..21).zip(kinds().into_iter().cycle()) {
        let mut chance = StdRng::seed_from_u64(seed);
        let (mut map, mut model) = (map.clone(), Model::new());
        let mut points = Vec::new();
        for number in 0..1_500_u32 {
            if chance.random_range(0..100) == 0 {
                points.push((map.clone(), model.clone()));
            }
            let key = key(&mut chance);
            let value = chance.random_bool(0.8).then(|| number.to_string().into_bytes().into());
            let replaced = map.insert(&key, value.clone());
            let old = model.insert(key, value);
            assert_eq!(replaced, old.map(|old| old.map_or(0, |old| old.len())));
        }
        points.push((map, model));
        for (map, model) in points {
            agree(&map, &model, &mut chance);
        }
    }
}

#[test]
fn two_clones_that_are_both_written_part() {
    kinds().into_iter().for_each(clones_part);
}

fn clones_part(map: GrowingMap) {
    let mut chance = StdRng::seed_from_u64(7);
    let mut maps = vec![(map, Model::new())];
    for number in 0..600_u32 {
        if number % 100 == 50 {
            let any = chance.random_range(0..maps.len());
            maps.push(maps[any].clone());
        }
        let any = chance.random_range(0..maps.len());
        let (key, value) = (key(&mut chance), Some(number.to_string().into_bytes().into()));
        maps[any].0.insert(&key, value.clone());
        maps[any].1.insert(key, value);
    }
    for (map, model) in maps {
        agree(&map, &model, &mut chance);
    }
}

#[test]
fn keys_chosen_to_share_a_chain_are_found_by_their_order() {
    // A table of 1,024 entries tells by ten bits: one key in 1,024 shares them.
    let shared = |key: &Bytes| Found::Hash.hash(key).trailing_zeros() >= 10;
    let keys = (0..200_000_u32).map(|number| Bytes::from(number.to_string().into_bytes()));
    let chosen: Vec<_> = keys.filter(shared).take(100).collect();
    assert!(chosen.len() > 50);
    let mut map = GrowingMap::default();
    for key in &chosen {
        map.insert(key, Some(key.clone()));
    }
    let first = chosen.first().unwrap();
    let told = map.shared.as_deref().unwrap();
    let told = told.tables.first(&told.slots, map.len, Found::Hash.hash(first), first);
    assert_eq!(told, Told::TooLong, "the chain is not as long as it was meant to be");
    assert!(chosen.iter().all(|key| map.get(key) == Some(&Some(key.clone()))));
    assert_eq!(map.get(b"nothing"), None);
}

/// A version of a key, newer ones first; a change, newer ones last.
#[test]
fn versions_and_changes_find_their_place_beside_what_they_know() {
    let mut chance = StdRng::seed_from_u64(3);
    let (mut history, mut changes) = (GrowingMap::by_place(4), GrowingMap::by_place(usize::MAX));
    let (mut versions, mut told) = (Model::new(), Model::new());
    for number in 0..10_000_u32 {
        let key = chance.random_range(0..300_u32).to_be_bytes();
        let version = [&key[..], &(!number).to_be_bytes()].concat();
        let told_at = [&number.to_be_bytes()[..], &key].concat();
        for (map, model, key) in
            [(&mut history, &mut versions, version), (&mut changes, &mut told, told_at)]
        {
            // What is known says where: nothing is searched for.
            let shared = map.shared.as_deref();
            let place = shared.is_some_and(|shared| shared.is_beside(map.found, map.len, &key));
            assert!(place || number < 3_000, "{number}");
            let (key, value) = (Bytes::from(key), Some(Bytes::new()));
            map.insert(&key, value.clone());
            model.insert(key, value);
        }
    }
    agree(&history, &versions, &mut chance);
    agree(&changes, &told, &mut chance);
}

#[test]
fn a_reader_beside_the_writer_sees_its_point_whole() {
    let done = AtomicBool::new(false);
    let (shown, points) = std::sync::mpsc::channel::<(GrowingMap, u32)>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut map = GrowingMap::default();
            for number in 0..20_000_u32 {
                let key = (number.wrapping_mul(2_654_435_761) % 3_000).to_string();
                map.insert(&key.into_bytes().into(), Some(number.to_le_bytes().to_vec().into()));
                if number % 16 == 0 {
                    shown.send((map.clone(), number)).unwrap();
                }
            }
            done.store(true, Ordering::Release);
            drop(shown);
        });
        for (map, last) in points {
            let key = (last.wrapping_mul(2_654_435_761) % 3_000).to_string();
            let value = Some(Bytes::from(last.to_le_bytes().to_vec()));
            assert_eq!(map.get(key.as_bytes()), Some(&value));
            if last % 160 == 0 {
                let seen = map.iter().filter_map(|(_, value)| value.as_ref()).map(|value| {
                    u32::from_le_bytes(value.first_chunk().copied().unwrap_or_default())
                });
                assert_eq!(seen.max(), Some(last), "nothing later is seen");
                assert!(map.iter().is_sorted_by(|(one, _), (other, _)| one < other));
            }
        }
    });
    assert!(done.load(Ordering::Acquire));
}
