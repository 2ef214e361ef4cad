//! Where we differ from etcd: each with its reason, in the table of the docs.

use std::{fmt::Write, fs, path::Path};

use crate::play::Answers;

/// Set to write the table instead of comparing it.
const WRITE: &str = "CDB_WRITE_DOCS";
/// Longest answer in a cell.
const CELL_CHARS_MAX: usize = 160;
/// What stands before and behind the table of one who asked.
const BEGIN: &str = "<!-- differences: ";
const END: &str = "<!-- end of differences -->\n";

/// Steps whose answers may differ, and why.
const REASONS: [(&str, &str); 17] = [
    (
        "lock it again under the same lease",
        "the place gets a new owner, so that who gave up before cannot give it up too",
    ),
    ("alarms", "etcd 3.4 leaves the header out, 3.5 does not"),
    ("raise an alarm", ALARMS),
    ("disarm it", ALARMS),
    ("grant it again", HTTP_400),
    ("switch accounts on without root", HTTP_400),
    ("a user again", HTTP_400),
    ("authenticate too early", HTTP_400),
    ("is it healthy", "etcd 3.5 and later say why not, here nothing"),
    ("its version", "the release whose API this is"),
    ("does it live", PROBES),
    ("is it ready", PROBES),
    ("promote nobody", "replicas are promoted by the cluster itself"),
    ("remove a member", "nodes leave by our own command"),
    ("update a member", "a node says itself where it is reached"),
    ("add a member", "nodes join by themselves, with a token"),
    ("downgrade", "there is no older release to go back to; etcd 3.4 does not know the request"),
];

/// Of alarms that somebody raises.
const ALARMS: &str = "alarms come and go with what they are of";
/// Of probes that etcd 3.4 does not know.
const PROBES: &str = "etcd 3.5.11 and later have this path";
/// Of a precondition that is not met, in JSON over HTTP.
const HTTP_400: &str = "etcd 3.5 and later say 400 too";

/// The release the table is made of: another one's answers may differ in more.
pub(crate) const RELEASE: &str = "3.4.";

/// Compares two plays of the same steps; `asker` is who asked.
pub(crate) fn check(asker: &str, version: &str, theirs: &Answers, ours: &Answers) {
    let (mut rows, mut unexplained) = (Rows::new(), String::new());
    for ((step, theirs), (same, ours)) in theirs.iter().zip(ours) {
        assert_eq!(step, same, "both were asked in the same order");
        if theirs == ours {
            continue;
        }
        let reason = REASONS.iter().find(|(of, _)| of == step).map(|(_, reason)| *reason);
        let reason = reason.or_else(|| of_refusal(theirs, ours));
        let Some(reason) = reason else {
            writeln!(unexplained, "\n{step}\n  etcd {theirs}\n  here {ours}").unwrap();
            continue;
        };
        let row = (cell(theirs), cell(ours), reason);
        // Steps that differ alike share a row.
        match rows.iter_mut().find(|(_, known)| *known == row) {
            Some((steps, _)) => steps.push(cell(step)),
            None => rows.push((vec![cell(step)], row)),
        }
    }
    assert!(unexplained.is_empty(), "{asker}: differences without a reason:\n{unexplained}");
    assert_eq!(theirs.len(), ours.len(), "{asker}: both were asked the same");
    if version.starts_with(RELEASE) {
        compare_page(asker, &table(asker, theirs.len(), &rows));
    } else {
        eprintln!("the table of the docs is of etcd {RELEASE}x, this is {version}: not compared");
    }
}

/// Steps, and what is said of them: by etcd, by us, and why.
type Rows = Vec<(Vec<String>, (String, String, &'static str))>;

/// Why we refuse somebody otherwise than etcd, or where it does not.
fn of_refusal(theirs: &str, ours: &str) -> Option<&'static str> {
    let refuses =
        |said: &str| said.contains("permission denied") || said.contains("user name is empty");
    let why = if theirs.contains("auth: ") {
        "etcd 3.4 loses the code and the text that clients look for on this way"
    } else if theirs == "ends" {
        "etcd ends the stream without a word"
    } else if !refuses(theirs) {
        "kept: etcd 3.4 does not ask here who may, or not first"
    } else {
        return None;
    };
    refuses(ours).then_some(why)
}

fn table(asker: &str, count: usize, rows: &Rows) -> String {
    if rows.is_empty() {
        return format!("{asker}: {count} answers were compared, all are the same.\n");
    }
    let head = "| step | etcd 3.4 | here | why |\n|---|---|---|---|";
    let mut table = format!("{asker}: {count} answers were compared; these differ.\n\n{head}\n");
    for (steps, (theirs, ours, why)) in rows {
        writeln!(table, "| {} | {theirs} | {ours} | {why} |", steps.join("; ")).unwrap();
    }
    table
}

fn cell(answer: &str) -> String {
    let whole: String = answer.chars().take(CELL_CHARS_MAX).collect();
    let rest = if whole.len() < answer.len() { "…" } else { "" };
    format!("{}{rest}", whole.trim_end().replace('|', "\\|").replace('\n', " / "))
}

/// Compares a table of the docs, or writes it.
pub(crate) fn compare_page(asker: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/etcd.md");
    let page = fs::read_to_string(&path).unwrap();
    let begin = format!("{BEGIN}{asker} -->\n");
    let (before, rest) = page.split_once(&begin).expect("a mark where the table begins");
    let (table, after) = rest.split_once(END).expect("a mark where the table ends");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, [before, &begin, wanted, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(table, wanted, "the table of node/docs/etcd.md is stale: run this with {WRITE}=1");
}
