//! How a transaction is written: line by line, part by part.

use std::str::Lines;

use cluster::{
    ids::LeaseId,
    limits::TRANSACTION_DEPTH_MAX,
    mvcc::version::Version,
    shard::{
        range::Range,
        transaction::{Compare, Keys, Put, Relation, Step, Target, Transaction},
    },
};

/// What begins and ends a transaction inside another.
const BEGIN: &str = "txn {";
const END: &str = "}";

/// Reads a transaction, or says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Transaction, String> {
    block(&mut text.lines(), 1)
}

/// The parts of one transaction, in their order.
#[derive(Clone, Copy)]
enum Part {
    Compares,
    Then,
    Otherwise,
    Over,
}

impl Part {
    fn next(self) -> Self {
        match self {
            Self::Compares => Self::Then,
            Self::Then => Self::Otherwise,
            Self::Otherwise | Self::Over => Self::Over,
        }
    }
}

/// Reads one up to its end: that of the text, or of its braces if it is inside another.
fn block(lines: &mut Lines<'_>, depth: u32) -> Result<Transaction, String> {
    let mut transaction = Transaction::new();
    let mut part = Part::Compares;
    while let Some(line) = lines.next().map(str::trim) {
        if line == END && depth > 1 {
            return Ok(transaction);
        }
        if line.is_empty() {
            part = part.next();
            continue;
        }
        let inner = (line == BEGIN).then(|| inner(lines, depth)).transpose()?;
        transaction = match (part, inner) {
            (Part::Then, Some(inner)) => transaction.then_transact(inner),
            (Part::Otherwise, Some(inner)) => transaction.otherwise_transact(inner),
            (Part::Compares, Some(_)) => return Err(format!("`{BEGIN}` compares nothing")),
            (Part::Compares, None) => transaction.when(compare(line)?),
            (Part::Then, None) => transaction.then(step(line)?),
            (Part::Otherwise, None) => transaction.otherwise(step(line)?),
            (Part::Over, _) => return Err(format!("`{line}` stands behind the third part")),
        };
    }
    if depth > 1 { Err(format!("`{BEGIN}` is not closed")) } else { Ok(transaction) }
}

fn inner(lines: &mut Lines<'_>, depth: u32) -> Result<Transaction, String> {
    if depth == TRANSACTION_DEPTH_MAX {
        return Err(format!("transactions lie at most {TRANSACTION_DEPTH_MAX} deep"));
    }
    block(lines, depth + 1)
}

fn compare(line: &str) -> Result<Compare, String> {
    let wrong = || format!("`{line}` compares nothing");
    let (what, rest) = line.split_once('(').ok_or_else(wrong)?;
    let (keys, rest) = rest.rsplit_once(')').ok_or_else(wrong)?;
    let (keys, words) = (words(keys)?, words(rest)?);
    let [relation, target] = &words[..] else { return Err(wrong()) };
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let keys = self::keys(&keys).ok_or_else(wrong)?;
    let relation = match relation.as_str() {
        "=" => Relation::Equal,
        "!=" => Relation::NotEqual,
        "<" => Relation::Less,
        ">" => Relation::Greater,
        _ => return Err(wrong()),
    };
    let number = || target.parse::<u64>().map_err(|_| format!("`{target}` is no number"));
    let target = match what.trim() {
        "value" => Target::Value(target.as_bytes().to_vec()),
        "version" => Target::Changes(number()?),
        "created" => Target::Created(Version(number()?)),
        "modified" => Target::Modified(Version(number()?)),
        "lease" => Target::Lease(LeaseId(number()?)),
        _ => return Err(wrong()),
    };
    Ok(Compare::new(keys, relation, target))
}

fn step(line: &str) -> Result<Step, String> {
    let words = words(line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let step = match words[..] {
        ["put", key, value] => Some(Step::put(key, value)),
        ["put", key, value, "--lease", lease] => {
            let lease = lease.parse().map_err(|_| format!("`{lease}` is no lease"))?;
            Some(Step::Put(Put::new(key, value).under(LeaseId(lease))))
        }
        ["get", ref named @ ..] => keys(named).map(|keys| Step::Read(Range::of(keys))),
        ["del", ref named @ ..] => keys(named).map(|keys| Step::Delete { keys, previous: false }),
        _ => None,
    };
    step.ok_or_else(|| {
        format!(
            "`{line}` is none of: put KEY VALUE [--lease NUMBER], get KEY, del KEY, \
             get|del PREFIX --prefix, get|del KEY --from-key, get|del KEY --to KEY, {BEGIN}"
        )
    })
}

/// Keys as `cdb kv get` names them.
fn keys(words: &[&str]) -> Option<Keys> {
    match *words {
        [key] => Some(Keys::from(key)),
        [prefix, "--prefix"] => Some(Keys::prefix(prefix)),
        [key, "--from-key"] => Some(Keys::range(key, "")),
        [key, "--to", to] => Some(Keys::range(key, to)),
        _ => None,
    }
}

/// Words between spaces; in double quotes spaces count, and a backslash takes
/// the next character as it is.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            space if space.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    if quoted {
        return Err(format!("a quote is not closed in `{text}`"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_read_as_the_help_shows_it() {
        let text = "value(lock) = free\nversion(\"a b\") > 0\n\nput lock \"it is \\\"mine\\\"\"\n\nget lock\ndel x\n";
        let wanted = Transaction::new()
            .when(Compare::value("lock", "free"))
            .when(Compare::present("a b"))
            .then(Step::put("lock", "it is \"mine\""))
            .otherwise(Step::get("lock"))
            .otherwise(Step::delete("x"));
        assert_eq!(parse(text), Ok(wanted));
        let text = "\nput a b --lease 7\nget p/ --prefix\ndel q/ --prefix\n";
        let wanted = Transaction::new()
            .then(Step::Put(Put::new("a", "b").under(LeaseId(7))))
            .then(Step::Read(Range::of(Keys::prefix("p/"))))
            .then(Step::Delete { keys: Keys::prefix("q/"), previous: false });
        assert_eq!(parse(text), Ok(wanted));
        assert_eq!(parse("\nput a b\n").unwrap().blocks[0].then.len(), 1, "nothing to compare");
        let parts = |text: &str| {
            let root = parse(text).unwrap().blocks.remove(0);
            (root.compares.len(), root.then.len(), root.otherwise.len())
        };
        assert_eq!(parts("version(a) = 0\n\n\nget b\n"), (1, 0, 1), "nothing to do");
        assert_eq!(parts("\n\nget b\n\n\n"), (0, 0, 1));
        assert_eq!(parts("version(a) = 0\n  \nput b 1\r\n\r\nget b\r\n\n"), (1, 1, 1));
    }

    #[test]
    fn ranges_are_named_alike_in_compares_and_in_steps() {
        let text = "version(p/ --prefix) = 0\nmodified(a --to c) < 9\nlease(\"x y\" --from-key) = 0\n\n\
                    get a --to c\ndel x --from-key\n";
        let wanted = Transaction::new()
            .when(Compare::absent(Keys::prefix("p/")))
            .when(Compare::new(Keys::range("a", "c"), Relation::Less, Target::Modified(Version(9))))
            .when(Compare::new(Keys::range("x y", ""), Relation::Equal, Target::Lease(LeaseId(0))))
            .then(Step::Read(Range::of(Keys::range("a", "c"))))
            .then(Step::Delete { keys: Keys::range("x", ""), previous: false });
        assert_eq!(parse(text), Ok(wanted));
    }

    #[test]
    fn a_step_may_be_a_transaction_with_parts_of_its_own() {
        let text = "version(a) > 0\n\nput a 1\ntxn {\n  value(b) = 2\n\n  put b 3\n\n  txn {\n\n    del c\n  }\n}\nput d 4\n\nget a\n";
        let innermost = Transaction::new().then(Step::delete("c"));
        let inner = Transaction::new()
            .when(Compare::value("b", "2"))
            .then(Step::put("b", "3"))
            .otherwise_transact(innermost);
        let wanted = Transaction::new()
            .when(Compare::present("a"))
            .then(Step::put("a", "1"))
            .then_transact(inner)
            .then(Step::put("d", "4"))
            .otherwise(Step::get("a"));
        assert_eq!(parse(text), Ok(wanted));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let deep = "\ntxn {\n".repeat(100_000);
        for (text, named) in [
            ("value lock = 1", "compares nothing"),
            ("value(a --prefix b) = 1", "compares nothing"),
            ("value() = 1", "compares nothing"),
            ("version(a) = b", "`b` is no number"),
            ("\nput a", "put KEY VALUE"),
            ("\nget", "put KEY VALUE"),
            ("\nput a \"b", "not closed"),
            ("\ntxn {\n\nput a b\n", "`txn {` is not closed"),
            ("txn {\n}\n", "compares nothing"),
            ("\nput a b\n}\n", "`}` is none of"),
            ("version(a) = 0\n\nget a\n\nget b\n\nget c\n", "behind the third part"),
            (&deep, "at most 8 deep"),
        ] {
            assert!(parse(text).unwrap_err().contains(named), "{text}");
        }
    }
}
