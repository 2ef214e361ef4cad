//! `etcdctl`, command by command: what it prints of etcd, and of us.
//!
//! Both are clusters of three. What names members, ports, times and sizes is made
//! alike; what is left must be equal to the letter, errors and exit codes too.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    peers::Peer,
    play::{Answers, anonymous, lettered},
};

/// Commands that need nothing, on a fresh store.
const KEYS: [&str; 27] = [
    "get nothing",
    "put a 1",
    "put a 2 --prev-kv",
    "put b 3",
    "put c 4",
    "get a",
    "get a --rev=2",
    "get a --rev=99",
    "get --prefix a -w fields",
    "get a c",
    "get --from-key b --order=DESCEND",
    "get a z --limit=2 -w json",
    "get a z --keys-only --sort-by=MODIFY",
    "get a z --print-value-only --consistency=s",
    "del nothing",
    "del a --prev-kv",
    "del --prefix b",
    "put \"\" empty",
    "put d 5 --lease=7b",
    "lease grant 0",
    "lease revoke 7b",
    "lease timetolive 7b",
    "watch c --rev=2",
    "compaction 5",
    "compaction 5",
    "get c --rev=4",
    "alarm list",
];

/// Transactions, as they are typed: what is compared, then what is done, then what else.
const TRANSACTIONS: [&str; 5] = [
    "value(\"c\") = \"4\"\n\nput c 5\nget c\n\nput c none\n\n",
    "version(\"c\") > \"9\"\nmod(\"c\") > \"0\"\n\nput c 6\n\nget c\ndel c\n\n",
    "create(\"none\") = \"0\"\n\nput e 1\nput f 2\nget e g\n\n\n",
    "\n\nput e 1\nput e 2\n\n\n",
    "\n\nput e 3 --lease=7b\n\n\n",
];

/// Commands whose words in braces are known only then: a lease, all addresses, a member
/// that follows, the file of a snapshot. What ends with `&` goes on while others are typed.
const OTHERS: [&str; 33] = [
    "lease list",
    "lease grant 600",
    "lease list",
    "lease timetolive {lease}",
    "put g 7 --lease={lease}",
    "lease timetolive {lease} --keys",
    "lease keep-alive --once {lease}",
    "lease keep-alive {lease}",
    "lease keep-alive --once 7b",
    "lease revoke {lease}",
    "lease keep-alive --once {lease}",
    "get g",
    "snapshot save {file}",
    "endpoint health",
    "endpoint health {all}",
    "endpoint health -w json",
    "endpoint status -w fields",
    "endpoint status -w json {all}",
    "endpoint hashkv -w fields",
    "endpoint hashkv --rev=99",
    "member list",
    "move-leader {follower} {all}",
    "move-leader 7b {all}",
    "defrag",
    "defrag {all}",
    "lock free true",
    "lock queue &",
    "lock queue echo in turn",
    "elect chair ann &",
    "elect -l chair",
    "elect chair bob",
    "alarm disarm",
    "get --prefix q",
];

/// What waits until somebody ends it.
const WAITS: [&str; 4] = ["watch", "lock queue", "elect", "lease keep-alive {"];

/// Who types.
struct Console<'p> {
    addresses: Vec<String>,
    lease: String,
    file: &'p Path,
    /// What still goes on.
    running: Vec<(String, Child)>,
}

/// Everything, in order.
pub(crate) fn play(peer: &impl Peer) -> Answers {
    let folder = tempfile::tempdir().unwrap();
    let file = &folder.path().join("snapshot");
    let addresses = peer.addresses().iter().map(ToString::to_string).collect();
    let mut console = Console { addresses, lease: String::new(), file, running: Vec::new() };
    let mut answers = Answers::new();
    for command in KEYS {
        answers.push((command.to_owned(), console.types(command, "")));
    }
    for typed in TRANSACTIONS {
        for command in ["txn", "txn -w fields"] {
            answers.push((format!("{command} {typed:?}"), console.types(command, typed)));
        }
    }
    for command in OTHERS {
        answers.push((command.to_owned(), console.types(command, "")));
    }
    assert!(std::fs::metadata(file).unwrap().len() > 0, "a snapshot was saved");
    for (command, child) in std::mem::take(&mut console.running) {
        let output = child.wait_with_output().unwrap();
        answers.push((command.clone(), console.told(&command, &output)));
    }
    answers
}

impl Console<'_> {
    /// Types a command, and what it reads; the exit code and what it printed.
    fn types(&mut self, command: &str, input: &str) -> String {
        if let Some(goes_on) = command.strip_suffix(" &") {
            let child = self.begin(goes_on, "12", "");
            self.running.push((command.to_owned(), child));
            // It has its turn before anybody else.
            std::thread::sleep(Duration::from_secs(1));
            return "begun".to_owned();
        }
        let waits = WAITS.iter().any(|waits| command.starts_with(waits));
        let child = self.begin(command, if waits { "4" } else { "20" }, input);
        let output = child.wait_with_output().unwrap();
        if command.starts_with("lease grant") {
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            self.lease = printed.split(' ').nth(1).map(str::to_owned).unwrap_or_default();
        }
        self.told(command, &output)
    }

    fn begin(&self, command: &str, seconds: &str, input: &str) -> Child {
        let all = self.addresses.join(",");
        let at = if command.contains("{all}") { &all } else { &self.addresses[0] };
        let mut words = command.replace(" {all}", "").replace("{lease}", &self.lease);
        words = words.replace("{file}", &self.file.display().to_string());
        if words.contains("{follower}") {
            words = words.replace("{follower}", &self.follower());
        }
        let words = words.split(' ').map(|word| if word == "\"\"" { "" } else { word });
        let mut child = Command::new("timeout")
            .args([seconds, "etcdctl", "--endpoints", at])
            .args(words)
            .env("ETCDCTL_API", "3")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever does not read it has ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    }

    /// A member that does not lead, as etcdctl names it.
    fn follower(&self) -> String {
        let status = self.begin("endpoint status -w json {all}", "20", "");
        let output = status.wait_with_output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let id = |of: &Value| of.as_u64().unwrap();
        let mut members = told.as_array().unwrap().iter().map(|of| &of["Status"]);
        let follows = |of: &&Value| id(&of["header"]["member_id"]) != id(&of["leader"]);
        let follower = members.find(follows).unwrap();
        format!("{:x}", id(&follower["header"]["member_id"]))
    }

    /// The exit code and what was printed, without what differs between any two clusters.
    fn told(&self, command: &str, output: &Output) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut printed, complained) = (text(&output.stdout), text(&output.stderr));
        // Its log lines carry times and ports.
        let complained = complained.lines().filter(|line| !line.starts_with('{'));
        printed.extend(complained.flat_map(|line| [line, "\n"]));
        for (at, address) in self.addresses.iter().enumerate() {
            printed = printed.replace(address, &format!("ADDRESS{}", at + 1));
        }
        printed = anonymous(&printed.replace(&self.file.display().to_string(), "FILE"));
        if command == "member list" {
            printed = printed.lines().map(member).collect();
        }
        if command.starts_with("endpoint health") || command == "member list" {
            let mut lines: Vec<&str> = printed.lines().collect();
            lines.sort_unstable();
            printed = lines.join("\n");
        }
        format!("{} {}", output.status.code().unwrap_or(-1), blurred(&printed))
    }
}

/// What is not a name in a line about a member.
fn member(line: &str) -> String {
    let fields: Vec<&str> = line.split(", ").collect();
    let [id, state, name, peer, client, learner] = fields[..] else { return line.to_owned() };
    assert!(![id, name, peer].contains(&""), "{line}");
    format!("{client} {state} {learner}\n")
}

/// Without times, sizes, places in a log, releases and long numbers.
fn blurred(printed: &str) -> String {
    let labels = [
        "remaining(",
        "\"DBSize\" : ",
        "\"Leader\" : ",
        "Index\" : ",
        "\"Hash\" : ",
        "\"dbSize\":",
        "\"dbSizeInUse\":",
        "\"leader\":",
        "Index\":",
        "\"raftTerm\":",
    ];
    let mut printed = printed.to_owned();
    for label in labels {
        printed = lettered(&printed, label);
    }
    for label in ["took = ", "\"took\":\"", "\"Version\" : \"", "\"version\":\""] {
        let mut parts = printed.split(label);
        let mut rest = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let kept = part.trim_start_matches(|c: char| c.is_alphanumeric() || ".µ".contains(c));
            rest.push_str(label);
            rest.push_str(kept);
        }
        printed = rest;
    }
    // Members, leases and clusters, in decimal or hexadecimal digits.
    let words = printed.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    let named = |word: &str| {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        if digits.len() > NUMBER_MAX { word.replace(digits, "ID") } else { word.to_owned() }
    };
    words.map(named).collect()
}

/// Digits of a number that is no name.
const NUMBER_MAX: usize = 11;
