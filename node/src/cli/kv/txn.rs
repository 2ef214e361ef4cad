//! `cdb kv txn`: a transaction as text.

use std::io::Read;

use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    shard::{
        range::Range,
        transaction::{Compare, Keys, Put, Relation, Step, StepResult, Target, Transaction},
    },
};

use super::{
    super::{
        CLOSE_WITHIN, Context,
        error::{CliError, Outcome},
        render,
    },
    ItemView,
};

/// Longest text of a transaction: its values have at most 4 MiB.
const TEXT_BYTES_MAX: u64 = 8 << 20;

pub(super) const HELP: &str = r"Three parts, each ended by an empty line: what must hold, what to do if all of it
holds, what to do if not. Words with spaces stand in double quotes.

  value(lock) = free      also: version, created, modified, lease; = != < >
                          (version counts the changes of a key)
  put lock mine
  get lock

  get lock

Also: put KEY VALUE --lease NUMBER, get PREFIX --prefix, del PREFIX --prefix.";

pub(super) async fn run(context: &Context, volume: &str) -> Outcome {
    let mut text = String::new();
    std::io::stdin().lock().take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    let transaction = parse(&text)
        .map_err(|wrong| CliError::usage(wrong, "write it as `cdb kv txn --help` shows"))?;
    let client = context.client()?;
    let done = client.transact(volume, transaction).await;
    client.with_deadline(CLOSE_WITHIN).close().await;
    let done = done?;
    let results = done.results.unwrap_or_default();
    let shown: Vec<serde_json::Value> = results.iter().map(result).collect();
    if context.output.is_json() {
        return context.output.json(&serde_json::json!({
            "succeeded": done.succeeded, "version": done.version.0, "results": shown,
        }));
    }
    render::line(if done.succeeded { "succeeded" } else { "failed" })?;
    for result in shown {
        render::line(&result.to_string())?;
    }
    Ok(())
}

fn result(result: &StepResult) -> serde_json::Value {
    let views = |items: &[cluster::request::Item]| -> Vec<ItemView> {
        items.iter().map(ItemView::from).collect()
    };
    match result {
        StepResult::Put { .. } => serde_json::json!({ "put": true }),
        StepResult::Deleted { count, .. } => serde_json::json!({ "deleted": count }),
        StepResult::Read(read) => {
            serde_json::json!({ "items": views(&read.items), "more": read.more })
        }
        StepResult::Nested { succeeded, .. } => serde_json::json!({ "succeeded": succeeded }),
    }
}

fn parse(text: &str) -> Result<Transaction, String> {
    let mut parts = text.split("\n\n").map(|part| part.lines().map(str::trim));
    let mut lines = || parts.next().into_iter().flatten().filter(|line| !line.is_empty());
    let mut transaction = Transaction::new();
    for line in lines() {
        transaction = transaction.when(compare(line)?);
    }
    for line in lines() {
        transaction = transaction.then(step(line)?);
    }
    for line in lines() {
        transaction = transaction.otherwise(step(line)?);
    }
    Ok(transaction)
}

fn compare(line: &str) -> Result<Compare, String> {
    let wrong = || format!("`{line}` compares nothing");
    let (what, rest) = line.split_once('(').ok_or_else(wrong)?;
    let (key, rest) = rest.rsplit_once(')').ok_or_else(wrong)?;
    let words = words(rest)?;
    let [relation, target] = &words[..] else { return Err(wrong()) };
    let key = self::words(key)?.pop().ok_or_else(wrong)?;
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
    Ok(Compare::new(key.as_str(), relation, target))
}

fn step(line: &str) -> Result<Step, String> {
    let words = words(line)?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["put", key, value] => Ok(Step::put(key, value)),
        ["put", key, value, "--lease", lease] => {
            let lease = lease.parse().map_err(|_| format!("`{lease}` is no lease"))?;
            Ok(Step::Put(Put::new(key, value).under(LeaseId(lease))))
        }
        ["get", key] => Ok(Step::get(key)),
        ["get", prefix, "--prefix"] => Ok(Step::Read(Range::of(Keys::prefix(prefix)))),
        ["del", key] => Ok(Step::delete(key)),
        ["del", prefix, "--prefix"] => {
            Ok(Step::Delete { keys: Keys::prefix(prefix), previous: false })
        }
        _ => Err(format!(
            "`{line}` is none of: put KEY VALUE [--lease NUMBER], get KEY, del KEY, \
             get|del PREFIX --prefix"
        )),
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
        let text = "\n\nput a b --lease 7\nget p/ --prefix\ndel q/ --prefix\n";
        let wanted = Transaction::new()
            .then(Step::Put(Put::new("a", "b").under(LeaseId(7))))
            .then(Step::Read(Range::of(Keys::prefix("p/"))))
            .then(Step::Delete { keys: Keys::prefix("q/"), previous: false });
        assert_eq!(parse(text), Ok(wanted));
        assert_eq!(parse("\n\nput a b\n").unwrap().blocks[0].then.len(), 1, "nothing to compare");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("value lock = 1", "compares nothing"),
            ("version(a) = b", "`b` is no number"),
            ("\n\nput a", "put KEY VALUE"),
            ("\n\nput a \"b", "not closed"),
        ] {
            assert!(parse(text).unwrap_err().contains(named), "{text}");
        }
    }
}
