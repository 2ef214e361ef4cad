//! What is applied but not yet in the store, merged with a view of the store.
//!
//! Two layers of ordered maps that only grow (`growing`). Apply writes
//! the *active* one. A flush freezes it and writes the frozen layer to the store
//! while apply goes on above; once the store holds it, the frozen layer goes as a
//! whole. A clone is a few reference counts, so every reader has its own
//! unchanging overlay.
//!
//! Merging is safe in one order only: overlay first, view afterwards. Then what
//! the overlay has dropped is in the view. `shard::reader` enforces it.

use std::{
    cmp::Ordering,
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;

use super::{
    growing::{GrowingMap, Shown},
    layout::HISTORY_SUFFIX_BYTES,
};
use crate::ports::engine::{EngineError, Order, Tree, View, Visit, Write, is_void};

/// What one entry costs beside its bytes: its slot (112 bytes on 64 bits), its
/// places in tables and order, and two `Bytes` with their reference counts,
/// rounded up.
const ENTRY_OVERHEAD_BYTES: usize = 224;
/// What an overwritten entry still costs: its slot and its places, rounded up. Its
/// value is the history's then, and counted there.
const OVERWRITTEN_BYTES: usize = 144;

/// The trees an overlay has, in the order in which a batch writes them.
const OVERLAID: [Tree; 4] = [Tree::Latest, Tree::History, Tree::Changes, Tree::Leases];

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A change of one tree; `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In which tree.
    pub tree: Tree,
    /// The key.
    pub key: Bytes,
    /// The new bytes, or `None` to delete.
    pub value: Option<Bytes>,
}

#[derive(Clone, Debug)]
struct Layer {
    latest: GrowingMap,
    history: GrowingMap,
    changes: GrowingMap,
    leases: GrowingMap,
    bytes: usize,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            latest: GrowingMap::default(),
            // Newer versions of a key come before older ones.
            history: GrowingMap::by_place(HISTORY_SUFFIX_BYTES),
            // Each change comes behind all before it.
            changes: GrowingMap::by_place(usize::MAX),
            leases: GrowingMap::default(),
            bytes: 0,
        }
    }
}

impl Layer {
    /// Root records are never in an overlay: they are made when it is flushed.
    fn map(&self, tree: Tree) -> Option<&GrowingMap> {
        match tree {
            Tree::Latest => Some(&self.latest),
            Tree::History => Some(&self.history),
            Tree::Changes => Some(&self.changes),
            Tree::Leases => Some(&self.leases),
            Tree::Root => None,
        }
    }

    fn insert(&mut self, change: Change) {
        let map = match change.tree {
            Tree::Latest => &mut self.latest,
            Tree::History => &mut self.history,
            Tree::Changes => &mut self.changes,
            Tree::Leases => &mut self.leases,
            Tree::Root => return,
        };
        self.bytes += cost(&change.key, change.value.as_ref());
        if let Some(replaced) = map.insert(&change.key, change.value) {
            let gone = ENTRY_OVERHEAD_BYTES + change.key.len() + replaced;
            self.bytes -= gone - OVERWRITTEN_BYTES;
        }
    }

    fn is_empty(&self) -> bool {
        [&self.latest, &self.history, &self.changes, &self.leases].iter().all(|map| map.is_empty())
    }
}

fn cost(key: &Bytes, value: Option<&Bytes>) -> usize {
    ENTRY_OVERHEAD_BYTES + key.len() + value.map_or(0, Bytes::len)
}

/// Applied writes on their way to the store.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    active: Layer,
    frozen: Layer,
}

/// The layer that is on its way to the store.
#[derive(Clone, Debug)]
pub struct Frozen(Layer);

impl Overlay {
    /// Takes in one change.
    pub fn insert(&mut self, change: Change) {
        self.active.insert(change);
    }

    /// Bytes it occupies, about.
    pub fn bytes(&self) -> usize {
        self.active.bytes + self.frozen.bytes
    }

    /// Whether everything is in the store.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.frozen.is_empty()
    }

    /// Freezes all it holds for a flush. After a failed flush the next one
    /// carries both layers.
    pub fn freeze(&mut self) -> Frozen {
        let active = std::mem::take(&mut self.active);
        if self.frozen.is_empty() {
            self.frozen = active;
        } else {
            for tree in OVERLAID {
                for (key, value) in active.map(tree).into_iter().flat_map(GrowingMap::iter) {
                    self.frozen.insert(Change { tree, key: key.clone(), value: value.clone() });
                }
            }
        }
        Frozen(self.frozen.clone())
    }

    /// Drops the frozen layer: the store holds it.
    pub fn thaw(&mut self) {
        self.frozen = Layer::default();
    }

    /// The bytes under `key` in overlay and view.
    ///
    /// # Errors
    /// Those of the view.
    pub fn get<'a>(
        &'a self,
        view: &'a dyn View,
        tree: Tree,
        key: &[u8],
    ) -> Result<Option<&'a [u8]>, EngineError> {
        match self.held(tree, key) {
            Some(held) => Ok(held.as_deref()),
            None => view.get(tree, key),
        }
    }

    /// What the overlay itself says of `key`; none if the view is to be asked.
    pub fn held(&self, tree: Tree, key: &[u8]) -> Option<&Option<Bytes>> {
        let layers = [&self.active, &self.frozen];
        layers.into_iter().find_map(|layer| layer.map(tree)?.get(key))
    }

    /// Visits the entries of overlay and view between the bounds, ascending.
    ///
    /// # Errors
    /// Those of the view.
    pub fn scan(
        &self,
        view: &dyn View,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        if is_void(from, to) {
            return Ok(());
        }
        let mut ours = self.range(tree, (from, to)).peekable();
        let mut ended = false;
        view.scan(tree, from, to, Order::Ascending, &mut |key, value| {
            while let Some((our_key, our_value)) = ours.next_if(|(our_key, _)| *our_key <= key) {
                let shown = our_value.is_some_and(|value| visit(our_key, value).is_break());
                if shown {
                    ended = true;
                    return ControlFlow::Break(());
                }
                if our_key == key {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            ended = flow.is_break();
            flow
        })?;
        if ended {
            return Ok(());
        }
        for (key, value) in ours {
            if value.is_some_and(|value| visit(key, value).is_break()) {
                break;
            }
        }
        Ok(())
    }

    /// The entries of both layers in order; the active one hides the frozen.
    fn range<'a>(
        &'a self,
        tree: Tree,
        bounds: Bounds<'a>,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let entries = move |layer: &'a Layer| {
            layer
                .map(tree)
                .into_iter()
                .flat_map(move |map| map.range(bounds))
                .map(|(key, value): Shown<'a>| (&key[..], value.as_deref()))
                .peekable()
        };
        let (mut active, mut frozen) = (entries(&self.active), entries(&self.frozen));
        std::iter::from_fn(move || {
            let order = match (active.peek(), frozen.peek()) {
                (Some((a, _)), Some((f, _))) => a.cmp(f),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            match order {
                Ordering::Less => active.next(),
                Ordering::Equal => {
                    frozen.next();
                    active.next()
                }
                Ordering::Greater => frozen.next(),
            }
        })
    }
}

impl Frozen {
    /// The writes of the layer, sorted by tree and key.
    pub fn writes(&self) -> impl Iterator<Item = Write> {
        OVERLAID.into_iter().flat_map(move |tree| {
            self.0.map(tree).into_iter().flat_map(GrowingMap::iter).map(move |(key, value)| Write {
                tree,
                key: key.to_vec(),
                value: value.as_ref().map(|value| value.to_vec()),
            })
        })
    }

    /// Bytes it occupies, about.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }
}
