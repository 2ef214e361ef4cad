//! Looks through a store's file before LMDB maps it.
//!
//! LMDB believes every byte: a bent offset makes it read beyond its map, a bent
//! key makes a lookup miss. So before a store is opened its file is read as
//! plain bytes and every page that LMDB could follow is checked: numbers and
//! flags, nodes that tile their page, keys in order between their separators,
//! counts as the tree claims them, no page used twice or free and used at once,
//! and each record's own checksum, which covers its key. What is left unread is
//! free space. Files beyond [`CHECK_BYTES_MAX`] are left to the scrubber, which
//! has more time than an opening; of them only the meta pages are checked.
//!
//! Nothing is trusted to be in range, and nothing here is unsafe.
//! Source: `mdb.c` (`MDB_page`, `MDB_node`, `MDB_meta`), 64-bit little-endian.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use cluster::{
    mvcc::{
        layout::read_history_key,
        record::{ChangeRecord, Record},
    },
    shard::leases::check_entry,
};

/// Largest file checked whole at opening: about a fifth of a second from the
/// page cache, which keeps a start of a few stores below its goal.
pub(super) const CHECK_BYTES_MAX: u64 = 256 << 20;

const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
const PAGE_HEADER_BYTES: usize = 16;
const NODE_HEADER_BYTES: usize = 8;
const TREE_BYTES: usize = 48;
const META_PAGES: u64 = 2;
const NO_PAGE: u64 = u64::MAX;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;
const BIG_DATA: u16 = 1;
const SUB_DATA: u16 = 2;
/// Deepest tree LMDB can walk (`CURSOR_STACK`).
const DEPTH_MAX: u16 = 32;

type Checked<T> = Result<T, String>;

/// Little-endian number of `n` bytes at `at`; what lies outside is damage.
fn number(bytes: &[u8], at: usize, n: usize) -> Checked<u64> {
    let end = at.checked_add(n);
    let found = end.and_then(|end| bytes.get(at..end)).ok_or("a field lies outside its page")?;
    Ok(found.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn short(bytes: &[u8], at: usize) -> Checked<u16> {
    u16::try_from(number(bytes, at, 2)?).map_err(|error| error.to_string())
}

fn size(number: u64) -> Checked<usize> {
    usize::try_from(number).map_err(|error| error.to_string())
}

/// A tree as a meta page or a leaf describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tree {
    depth: u16,
    counts: Counts,
    root: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
}

impl Tree {
    fn read(bytes: &[u8]) -> Checked<Self> {
        if bytes.len() < TREE_BYTES {
            return Err("a tree's description is cut short".to_owned());
        }
        let word = |at| number(bytes, at, 8);
        let counts = Counts {
            branches: word(8)?,
            leaves: word(16)?,
            overflows: word(24)?,
            entries: word(32)?,
        };
        Ok(Self { depth: short(bytes, 6)?, counts, root: word(40)? })
    }
}

/// One of the two meta pages.
#[derive(Clone, Copy, Debug)]
struct Meta {
    page_bytes: usize,
    free: Tree,
    main: Tree,
    last_page: u64,
    transaction: u64,
}

impl Meta {
    fn read(page: &[u8], at: u64) -> Checked<Self> {
        let body = page.get(PAGE_HEADER_BYTES..).unwrap_or_default();
        let plain = number(page, 0, 8)? == at && short(page, 10)? == META;
        let magic = number(body, 0, 4)? == u64::from(MAGIC);
        if !plain || !magic || number(body, 4, 4)? != u64::from(DATA_VERSION) {
            return Err(format!("meta page {at} is none"));
        }
        Ok(Self {
            page_bytes: size(number(body, 24, 4)?)?,
            free: Tree::read(body.get(24..).unwrap_or_default())?,
            main: Tree::read(body.get(24 + TREE_BYTES..).unwrap_or_default())?,
            last_page: number(body, 24 + 2 * TREE_BYTES, 8)?,
            transaction: number(body, 32 + 2 * TREE_BYTES, 8)?,
        })
    }
}

/// Checks the file of a closed environment.
pub(super) fn structure(path: &Path) -> Checked<()> {
    let text = |error: std::io::Error| format!("its file cannot be read: {error}");
    let file = File::open(path).map_err(text)?;
    let bytes = file.metadata().map_err(text)?.len();
    let meta = newest_meta(&file, bytes)?;
    if bytes > CHECK_BYTES_MAX {
        return Ok(());
    }
    let pages = size(meta.last_page)?.checked_add(1).ok_or("the last page is none")?;
    if pages as u64 > CHECK_BYTES_MAX / 512 {
        return Err("the last page lies far beyond the file".to_owned());
    }
    let mut check = Check { file, meta, seen: vec![false; pages] };
    check.all_trees()
}

/// Both meta pages must be whole and follow each other: a commit writes the one
/// its number's lowest bit names.
fn newest_meta(file: &File, bytes: u64) -> Checked<Meta> {
    /// Bytes of a meta page that mean something.
    const META_BYTES: usize = 4_096;
    let mut page = vec![0; META_BYTES];
    file.read_exact_at(&mut page, 0).map_err(|error| format!("no meta page: {error}"))?;
    let first = Meta::read(&page, 0)?;
    if !first.page_bytes.is_power_of_two() || !(512..=65_536).contains(&first.page_bytes) {
        return Err(format!("pages of {} bytes", first.page_bytes));
    }
    file.read_exact_at(&mut page, first.page_bytes as u64)
        .map_err(|error| format!("no second meta page: {error}"))?;
    let second = Meta::read(&page, 1)?;
    let (even, odd) = (first.transaction, second.transaction);
    let follow = even.abs_diff(odd) == 1 && even % 2 == 0;
    if first.page_bytes != second.page_bytes || !follow {
        return Err(format!("meta pages of transactions {even} and {odd} do not belong together"));
    }
    let newest = if even > odd { first } else { second };
    // The file may end before the last page if that one is free.
    if bytes < META_PAGES * newest.page_bytes as u64 || newest.last_page == NO_PAGE {
        return Err("it is cut short".to_owned());
    }
    Ok(newest)
}

struct Check {
    file: File,
    meta: Meta,
    seen: Vec<bool>,
}

/// What the leaves of a tree hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    FreePages,
    Trees,
    Records,
    History,
    Changes,
    Leases,
    Roots,
}

/// Keys a page may hold: from `low` on, below `high`.
#[derive(Clone, Copy)]
struct Fence<'a> {
    low: &'a [u8],
    high: Option<&'a [u8]>,
}

struct Node<'p> {
    flags: u16,
    key: &'p [u8],
    /// In a branch the child, in a leaf the size of the data.
    word: u64,
    data: &'p [u8],
}

/// What was found while a tree was walked.
#[derive(Default)]
struct Walked {
    counts: Counts,
    trees: Vec<(Vec<u8>, Tree)>,
    free: Vec<u64>,
}

impl Check {
    fn all_trees(&mut self) -> Checked<()> {
        let meta = self.meta;
        let free = self.tree(&meta.free, Content::FreePages)?.free;
        for (name, tree) in self.tree(&meta.main, Content::Trees)?.trees {
            let content = match name.as_slice() {
                b"latest" => Content::Records,
                b"history" => Content::History,
                b"changes" => Content::Changes,
                b"leases" => Content::Leases,
                b"root" => Content::Roots,
                _ => return Err("it has a tree of unknown name".to_owned()),
            };
            self.tree(&tree, content)?;
        }
        free.into_iter().try_for_each(|page| self.claim(page, 1))
    }

    fn tree(&mut self, tree: &Tree, content: Content) -> Checked<Walked> {
        let mut walked = Walked::default();
        if tree.root == NO_PAGE {
            if tree.depth != 0 {
                return Err("a tree lost its root".to_owned());
            }
        } else {
            if tree.depth == 0 || tree.depth > DEPTH_MAX {
                return Err(format!("a tree of depth {}", tree.depth));
            }
            let fence = Fence { low: &[], high: None };
            self.page(tree.root, tree.depth, fence, content, &mut walked)?;
        }
        if walked.counts != tree.counts {
            return Err(format!("a tree claims {:?} and has {:?}", tree.counts, walked.counts));
        }
        Ok(walked)
    }

    /// Takes pages for one use.
    fn claim(&mut self, first: u64, count: u64) -> Checked<()> {
        for page in first..first.saturating_add(count) {
            let seen = self.seen.get_mut(size(page)?).filter(|_| page >= META_PAGES);
            let seen = seen.ok_or_else(|| format!("page {page} does not exist"))?;
            if std::mem::replace(seen, true) {
                return Err(format!("page {page} is used twice"));
            }
        }
        Ok(())
    }

    fn load(&self, page: u64, count: u64) -> Checked<Vec<u8>> {
        let page_bytes = self.meta.page_bytes as u64;
        let mut bytes = vec![0; size(count * page_bytes)?];
        let at = page.checked_mul(page_bytes).ok_or("a page beyond all files")?;
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(|error| format!("page {page} cannot be read: {error}"))?;
        if number(&bytes, 0, 8)? != page {
            return Err(format!("page {page} bears another number"));
        }
        Ok(bytes)
    }

    fn page(
        &mut self,
        at: u64,
        depth: u16,
        fence: Fence<'_>,
        content: Content,
        walked: &mut Walked,
    ) -> Checked<()> {
        self.claim(at, 1)?;
        let page = self.load(at, 1)?;
        let flags = short(&page, 10)?;
        if flags != if depth > 1 { BRANCH } else { LEAF } {
            return Err(format!("page {at} has flags {flags:#x}"));
        }
        let nodes = nodes(&page, flags == BRANCH).map_err(|error| format!("page {at}: {error}"))?;
        let from = usize::from(flags == BRANCH);
        in_order(&nodes, from, fence, content).map_err(|error| format!("page {at}: {error}"))?;
        if flags == LEAF {
            walked.counts.leaves += 1;
            return nodes.iter().try_for_each(|node| self.entry(node, content, walked));
        }
        walked.counts.branches += 1;
        for (place, node) in nodes.iter().enumerate() {
            // The first key of a branch is not looked at: it is the fence's.
            let low = if place == 0 { fence.low } else { node.key };
            let high = nodes.get(place + 1).map_or(fence.high, |next| Some(next.key));
            self.page(node.word, depth - 1, Fence { low, high }, content, walked)?;
        }
        Ok(())
    }

    fn entry(&mut self, node: &Node<'_>, content: Content, walked: &mut Walked) -> Checked<()> {
        walked.counts.entries += 1;
        if content == Content::Trees {
            if node.flags != SUB_DATA {
                return Err("the list of trees holds something else".to_owned());
            }
            walked.trees.push((node.key.to_vec(), Tree::read(node.data)?));
            return Ok(());
        }
        match node.flags {
            0 => examine(content, node.key, node.data, walked),
            BIG_DATA => {
                let first = number(node.data, 0, 8)?;
                let count =
                    (node.word + PAGE_HEADER_BYTES as u64 - 1) / self.meta.page_bytes as u64 + 1;
                self.claim(first, count)?;
                let pages = self.load(first, count)?;
                if short(&pages, 10)? != OVERFLOW || number(&pages, 12, 4)? != count {
                    return Err(format!("page {first} is no run of {count} pages"));
                }
                walked.counts.overflows += count;
                let end = PAGE_HEADER_BYTES + size(node.word)?;
                let data = pages.get(PAGE_HEADER_BYTES..end).ok_or("data beyond its pages")?;
                examine(content, node.key, data, walked)
            }
            flags => Err(format!("a node has flags {flags:#x}")),
        }
    }
}

/// Checks what a leaf holds by its own checksum.
fn examine(content: Content, key: &[u8], data: &[u8], walked: &mut Walked) -> Checked<()> {
    match content {
        Content::FreePages => {
            let count = size(number(data, 0, 8)?)?;
            let ids = data.get(8..).unwrap_or_default();
            if ids.len() / 8 < count {
                return Err("a list of free pages is cut short".to_owned());
            }
            for id in ids.chunks_exact(8).take(count) {
                walked.free.push(number(id, 0, 8)?);
            }
            Ok(())
        }
        Content::Records => {
            Record::read(key, data).map(drop).map_err(|error| format!("newest version: {error}"))
        }
        Content::History => {
            let (key, version, sub) = read_history_key(key).ok_or("a bent key in the history")?;
            let head =
                Record::read(&key, data).map_err(|error| format!("old version: {error}"))?.head;
            let placed = (head.modified, head.sub) == (version, sub);
            if placed { Ok(()) } else { Err("an old version lies under another".to_owned()) }
        }
        Content::Changes => {
            ChangeRecord::read(key, data).map(drop).map_err(|error| format!("change: {error}"))
        }
        Content::Leases => {
            check_entry(key, data).map_err(|error| format!("lease, or key of one: {error}"))
        }
        // Roots, stamp and progress are checked by whoever reads them by name.
        Content::Roots | Content::Trees => Ok(()),
    }
}

/// The nodes of a page; they must fill it from its free space to its end.
fn nodes(page: &[u8], branch: bool) -> Checked<Vec<Node<'_>>> {
    let (lower, upper) = (usize::from(short(page, 12)?), usize::from(short(page, 14)?));
    let tidy = lower >= PAGE_HEADER_BYTES && lower % 2 == 0 && lower <= upper;
    if !tidy || upper > page.len() {
        return Err(format!("free space from {lower} to {upper}"));
    }
    let count = (lower - PAGE_HEADER_BYTES) / 2;
    if count < if branch { 2 } else { 1 } {
        return Err("it is empty".to_owned());
    }
    let mut nodes = Vec::with_capacity(count);
    let mut places = Vec::with_capacity(count);
    for index in 0..count {
        let at = usize::from(short(page, PAGE_HEADER_BYTES + 2 * index)?);
        let (node, bytes) = node(page, at, branch)?;
        places.push((at, at + bytes));
        nodes.push(node);
    }
    places.sort_unstable();
    let end = places.iter().try_fold(upper, |at, (from, to)| (*from == at).then_some(*to));
    if end == Some(page.len()) { Ok(nodes) } else { Err("nodes overlap or leave gaps".to_owned()) }
}

/// One node and the bytes it takes, rounded up to even.
fn node(page: &[u8], at: usize, branch: bool) -> Checked<(Node<'_>, usize)> {
    let (low, flags) = (number(page, at, 4)?, short(page, at + 4)?);
    let key_bytes = usize::from(short(page, at + 6)?);
    let word = if branch { low | u64::from(flags) << 32 } else { low };
    let data_bytes = if branch {
        0
    } else if flags & BIG_DATA == 0 {
        size(low)?
    } else {
        8
    };
    let key_at = at + NODE_HEADER_BYTES;
    let data_at = key_at + key_bytes;
    let key = page.get(key_at..data_at).ok_or("a key leaves its page")?;
    let end = data_at.saturating_add(data_bytes);
    let data = page.get(data_at..end).ok_or("data leaves its page")?;
    Ok((Node { flags, key, word, data }, (end - at).next_multiple_of(2)))
}

fn in_order(nodes: &[Node<'_>], from: usize, fence: Fence<'_>, content: Content) -> Checked<()> {
    // Keys of the list of free pages are native numbers.
    let order = |a: &[u8], b: &[u8]| match content {
        Content::FreePages => a.iter().rev().cmp(b.iter().rev()),
        Content::Trees
        | Content::Records
        | Content::History
        | Content::Changes
        | Content::Leases
        | Content::Roots => a.cmp(b),
    };
    let keys: Vec<&[u8]> = nodes.iter().skip(from).map(|node| node.key).collect();
    let rising = keys.windows(2).all(|pair| match pair {
        [a, b] => order(a, b).is_lt(),
        _ => true,
    });
    let above =
        keys.first().is_none_or(|key| fence.low.is_empty() || order(key, fence.low).is_ge());
    let below = match (keys.last(), fence.high) {
        (Some(key), Some(high)) => order(key, high).is_lt(),
        (None, _) | (_, None) => true,
    };
    if rising && above && below { Ok(()) } else { Err("keys are out of order".to_owned()) }
}
