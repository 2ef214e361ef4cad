//! Bytes that go bad: what a disk does to data at rest.

use cluster::{
    log::damage_below,
    ports::{engine::Engine, files::Files},
};

use super::Storage;
use crate::rng::Rng;

/// Bytes a misdirected write covers: one sector.
const SECTOR_BYTES: usize = 512;
/// The copy of the catalog among the small state files.
const COPY: &str = "catalog";

impl Storage {
    /// A file of the log and a place in what is written of it, in units of so many
    /// bytes. Not where a log cannot tell rot from a torn tail, or the last batch of
    /// all would be gone without a word (`node/docs/damage.md`).
    fn place_in_log(&self, rng: &mut Rng, unit: usize) -> Option<(String, usize)> {
        let segment = |name: String| {
            let bytes = self.log.contents(&name)?;
            let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
            Some((name, used, damage_below(&bytes)))
        };
        let segments: Vec<_> = self.log.list().ok()?.into_iter().filter_map(segment).collect();
        let (last, known) = segments.iter().filter_map(|(_, _, below)| *below).max()?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let written = |(name, used, below): &(String, usize, Option<(u64, u64)>)| {
            let is_sealed = below.is_some_and(|(number, _)| number < last);
            let most = if is_sealed { *used } else { known.min(*used) };
            // Of one that is smaller than a unit, the checkpoint is in the first.
            (name.clone(), (most / unit * unit).max(1))
        };
        let written: Vec<(String, usize)> = segments.iter().map(written).collect();
        let (name, used) = rng.pick(&written)?.clone();
        Some((name, rng.index(used)))
    }

    /// Flips a bit of the log.
    pub(crate) fn flip_log_bit(&self, rng: &mut Rng) -> Option<String> {
        let (name, at) = self.place_in_log(rng, 1)?;
        let bit = at * 8 + rng.index(8);
        self.log.flip_bit(&name, bit).then(|| format!("bit {bit} of {name}"))
    }

    /// Overwrites a sector of the log with what was meant for elsewhere.
    pub(crate) fn misdirect_write(&self, rng: &mut Rng) -> Option<String> {
        let (name, at) = self.place_in_log(rng, SECTOR_BYTES)?;
        let offset = at / SECTOR_BYTES * SECTOR_BYTES;
        let mut bytes = [0; SECTOR_BYTES];
        rng.fill(&mut bytes);
        self.log.scribble(&name, offset, &bytes).then(|| format!("bytes {offset}.. of {name}"))
    }

    /// Cuts a file of the log short.
    pub(crate) fn truncate_log(&self, rng: &mut Rng) -> Option<String> {
        let (name, at) = self.place_in_log(rng, 1)?;
        self.log.truncate(&name, at).then(|| format!("{name} to {at} bytes"))
    }

    /// Flips a bit of the copy of the catalog.
    pub(crate) fn flip_copy_bit(&self, rng: &mut Rng) -> Option<String> {
        let bits = self.state.contents(COPY)?.len() * 8;
        let bit = rng.index(bits);
        self.state.flip_bit(COPY, bit).then(|| format!("bit {bit}"))
    }

    /// Makes a store unreadable.
    pub(crate) fn damage_store(&self, rng: &mut Rng) -> Option<String> {
        let stores = self.engine.list().ok()?;
        let store = *rng.pick(&stores)?;
        self.engine.damage(store);
        Some(store.to_string())
    }
}
