//! What is applied but not yet in the store, merged with a view of the store.
//!
//! Two layers of persistent ordered maps. Apply writes the *active* one. A
//! flush freezes it and writes the frozen layer to the store while apply goes
//! on above; once the store holds it, the frozen layer goes as a whole. A clone
//! is a few reference counts, so every reader has its own unchanging overlay.
//!
//! Merging is safe in one order only: overlay first, view afterwards. Then what
//! the overlay has dropped is in the view. `shard::reader` enforces it.

use std::{
    cmp::Ordering,
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;

use crate::ports::engine::{EngineError, Order, Tree, View, Visit, Write, is_void};

/// What one entry costs beside its bytes: tree node, entry and two `Bytes`
/// with their reference counts, as measured on 64 bits, rounded up.
const ENTRY_OVERHEAD_BYTES: usize = 224;

/// The trees an overlay has, in the order in which a batch writes them.
const OVERLAID: [Tree; 4] = [Tree::Latest, Tree::History, Tree::Changes, Tree::Leases];

type Map = RedBlackTreeMapSync<Bytes, Option<Bytes>>;
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
    latest: Map,
    history: Map,
    changes: Map,
    leases: Map,
    bytes: usize,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            latest: Map::new_sync(),
            history: Map::new_sync(),
            changes: Map::new_sync(),
            leases: Map::new_sync(),
            bytes: 0,
        }
    }
}

impl Layer {
    /// Root records are never in an overlay: they are made when it is flushed.
    fn map(&self, tree: Tree) -> Option<&Map> {
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
        if let Some(old) = map.get(&change.key) {
            self.bytes -= cost(&change.key, old.as_ref());
        }
        self.bytes += cost(&change.key, change.value.as_ref());
        map.insert_mut(change.key, change.value);
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
                for (key, value) in active.map(tree).into_iter().flat_map(Map::iter) {
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
        for layer in [&self.active, &self.frozen] {
            if let Some(found) = layer.map(tree).and_then(|map| map.get(key)) {
                return Ok(found.as_deref());
            }
        }
        view.get(tree, key)
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
                .flat_map(move |map| map.range::<[u8], _>(bounds))
                .map(|(key, value)| (&key[..], value.as_deref()))
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
            self.0.map(tree).into_iter().flat_map(Map::iter).map(move |(key, value)| Write {
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
