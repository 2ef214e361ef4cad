//! Operations on a key space, for people.

use std::fmt::{self, Display, Formatter, Write};

use cluster::{
    ids::LeaseId,
    request::Item,
    shard::{
        command::Op,
        range::{Range, Show, Sort, Span},
        transaction::{Compare, Keys, Relation, Step, StepResult, Target, Transaction},
    },
};

use super::{Answer, Call, Operation};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `key=value @created..modified x changes`, and the lease if there is one.
pub(super) fn item(item: &Item) -> String {
    let Item { key, value, created, modified, changes, lease, .. } = item;
    let (key, value) = (text(key), text(value));
    let lease = if *lease == LeaseId(0) { String::new() } else { format!(" L{}", lease.0) };
    format!("{key}={value}@{created}..{modified}x{changes}{lease}")
}

fn items(items: &[Item]) -> String {
    let items: Vec<String> = items.iter().map(item).collect();
    format!("[{}]", items.join(", "))
}

fn keys(keys: &Keys) -> String {
    match keys {
        Keys::One(key) => text(key),
        Keys::Range { from, to } => format!("{}..{}", text(from), text(to)),
    }
}

fn range(range: &Range) -> String {
    let mut out = keys(&range.keys);
    let mut add = |what: String| {
        let _ = write!(out, " {what}");
    };
    if let Some(at) = range.at {
        add(format!("at {at}"));
    }
    if range.limit > 0 {
        add(format!("limit {}", range.limit));
    }
    if range.show != Show::Items {
        add(format!("{:?}", range.show));
    }
    if range.sort != Sort::default() {
        add(format!("by {:?}{}", range.sort.by, if range.sort.descending { " down" } else { "" }));
    }
    for (name, span) in [("created", range.created), ("modified", range.modified)] {
        if span != Span::default() {
            add(format!("{name} {}..{}", span.from, span.to));
        }
    }
    if range.count {
        add("counted".to_owned());
    }
    out
}

fn compare(compare: &Compare) -> String {
    let is = match compare.is {
        Relation::Equal => "=",
        Relation::NotEqual => "!=",
        Relation::Less => "<",
        Relation::Greater => ">",
    };
    let target = match &compare.target {
        Target::Value(value) => format!("value {is} {}", text(value)),
        Target::Changes(changes) => format!("changes {is} {changes}"),
        Target::Created(version) => format!("created {is} {version}"),
        Target::Modified(version) => format!("modified {is} {version}"),
        Target::Lease(lease) => format!("lease {is} {}", lease.0),
    };
    format!("{} {target}", keys(&compare.keys))
}

fn block(transaction: &Transaction, place: usize) -> String {
    let Some(block) = transaction.blocks.get(place) else { return "nothing".to_owned() };
    let compares: Vec<String> = block.compares.iter().map(compare).collect();
    let branch = |steps: &[Step]| {
        let steps: Vec<String> = steps.iter().map(|one| step(transaction, one)).collect();
        steps.join(", ")
    };
    let (then, otherwise) = (branch(&block.then), branch(&block.otherwise));
    format!("if {} {{{then}}} else {{{otherwise}}}", compares.join(" and "))
}

fn step(transaction: &Transaction, step: &Step) -> String {
    match step {
        Step::Put(put) => {
            let value = put.value.as_deref().map_or_else(|| "(kept)".to_owned(), text);
            let lease = match put.lease {
                None => " L(kept)".to_owned(),
                Some(LeaseId(0)) => String::new(),
                Some(lease) => format!(" L{}", lease.0),
            };
            let previous = if put.previous { " showing" } else { "" };
            format!("put {}={value}{lease}{previous}", text(&put.key))
        }
        Step::Delete { keys: all, previous } => {
            format!("delete {}{}", keys(all), if *previous { " showing" } else { "" })
        }
        Step::Read(of) => format!("read {}", range(of)),
        Step::Nested(child) => block(transaction, usize::try_from(*child).unwrap_or(usize::MAX)),
    }
}

fn result(result: &StepResult) -> String {
    match result {
        StepResult::Put { previous } => match previous {
            Some(previous) => format!("put, was {}", item(previous)),
            None => "put".to_owned(),
        },
        StepResult::Deleted { count, previous } => format!("deleted {count} {}", items(previous)),
        StepResult::Read(read) => {
            let more = if read.more { " and more" } else { "" };
            format!("{}{more} of {}", items(&read.items), read.count)
        }
        StepResult::Nested { succeeded, results } => format!("nested {succeeded} with {results}"),
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(key) => write!(f, "get {key}"),
            Self::Range(of) => write!(f, "range {}", range(of)),
            Self::Write(ops) => ops.iter().try_for_each(|op| match op {
                Op::Put { key, value } => write!(f, "put {}={} ", text(key), text(value)),
                Op::Delete { key } => write!(f, "delete {} ", text(key)),
            }),
            Self::DeleteRange(all) => write!(f, "delete all {}", keys(all)),
            Self::Transact(transaction) => f.write_str(&block(transaction, 0)),
            Self::Compact(version) => write!(f, "compact {version}"),
        }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(None) => f.write_str("absent"),
            Self::Item(Some(found)) => f.write_str(&item(found)),
            Self::Range { result, at, now } => {
                let more = if result.more { " and more" } else { "" };
                write!(f, "{}{more} of {} at {at} now {now}", items(&result.items), result.count)
            }
            Self::Written { version, deleted } => write!(f, "written {version}, deleted {deleted}"),
            Self::Deleted { version, count, previous } => {
                write!(f, "deleted {count} {} at {version}", items(previous))
            }
            Self::Transacted(done) => {
                let results = done.results.as_ref().map_or_else(
                    || "answers lost".to_owned(),
                    |all| all.iter().map(result).collect::<Vec<_>>().join("; "),
                );
                let (version, held, changed) = (done.version, done.succeeded, done.changed);
                write!(f, "{version}, held {held}, changed {changed}: {results}")
            }
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Compacted => f.write_str("compacted"),
            Self::Gone(compacted) => write!(f, "gone before {compacted}"),
            Self::Future => f.write_str("in the future"),
        }
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = |nanos: u64| nanos / 1_000_000;
        let called = ms(self.called.as_nanos());
        write!(f, "c{} {}", self.client, self.call)?;
        match &self.answered {
            Some((returned, answer)) => {
                write!(f, " -> {answer} [{called}..{} ms]", ms(returned.as_nanos()))
            }
            None => write!(f, " [{called}.. ms, unknown]"),
        }
    }
}
