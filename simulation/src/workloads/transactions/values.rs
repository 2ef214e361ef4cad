//! Values of which a few are more than one answer holds. In histories their names stand for
//! them, which are in the same order: a run would not fit into memory else.

use cluster::{request::Item, shard::command::Op};

/// What the names of large values end with.
pub(super) const LARGE: &str = "+";
/// Zeros behind such a name: two such values are more than one answer holds, so a range that
/// shows a third takes several.
const PADDING_BYTES: usize = 600 << 10;

/// A change with its value as it is stored.
pub(super) fn whole(op: Op) -> Op {
    match op {
        Op::Put { key, mut value } if value.ends_with(LARGE.as_bytes()) => {
            value.resize(value.len() + PADDING_BYTES, 0);
            Op::Put { key, value }
        }
        other @ (Op::Put { .. } | Op::Delete { .. }) => other,
    }
}

/// An item with the name of its value, if that is sound and large.
pub(super) fn named(mut item: Item) -> Item {
    let Some(name_bytes) = item.value_bytes.checked_sub(PADDING_BYTES as u64) else { return item };
    let bytes = usize::try_from(name_bytes).unwrap_or(usize::MAX);
    // Without the value, if only heads were asked for.
    let whole = item.value.is_empty() || item.value.len() as u64 == item.value_bytes;
    if whole && item.value.iter().skip(bytes).all(|byte| *byte == 0) {
        item.value.truncate(bytes);
        item.value_bytes = name_bytes;
    }
    item
}

#[cfg(test)]
mod tests {
    use cluster::{ids::LeaseId, mvcc::version::Version};

    use super::*;

    #[test]
    fn a_large_value_has_its_name_back_unless_it_was_damaged() {
        let Op::Put { value, .. } = whole(Op::Put { key: vec![1], value: b"1-2+".into() }) else {
            panic!("it was a put");
        };
        let item = |value: &[u8]| Item {
            key: vec![1],
            value: value.into(),
            value_bytes: value.len() as u64,
            created: Version(1),
            modified: Version(1),
            changes: 1,
            modified_ms: 0,
            lease: LeaseId(0),
        };
        assert_eq!(named(item(&value)), item(b"1-2+"));
        let head = Item { value: Vec::new(), ..item(&value) };
        assert_eq!(named(head), Item { value: Vec::new(), ..item(b"1-2+") });
        let short = Item { value_bytes: value.len() as u64, ..item(&value[..1_000]) };
        assert_eq!(named(short.clone()), short);
        let mut damaged = value;
        damaged[10] ^= 1;
        assert_eq!(named(item(&damaged)), item(&damaged));
        assert_eq!(named(item(b"1-3")), item(b"1-3"));
    }
}
