//! `cdb dev` as a user meets it: real processes, sockets and disks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use clusterdb::cli::dev::{DevFile, ProcessState};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Longest wait for anything; a loaded machine is slow, a hang is for ever.
const WAIT: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A development cluster that ends with the test.
struct Dev {
    child: Child,
    output: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

/// One development cluster at a time: a killed node's ports are free for a
/// moment, and another cluster that just chooses its own would take them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cdb() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cdb"));
    command.env_remove("RUST_LOG").env_remove("CDB_PROFILE").env("RUST_BACKTRACE", "0");
    command
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Tries until it succeeds; says what was waited for when it does not.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..WAIT.as_millis() / LOOK_EVERY.as_millis() {
        if let Some(found) = attempt() {
            return found;
        }
        thread::sleep(LOOK_EVERY);
    }
    panic!("waited {WAIT:?} for {what}");
}

impl Dev {
    fn start(nodes: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), nodes)
    }

    fn start_in(folder: tempfile::TempDir, nodes: &str) -> Self {
        let mut child = cdb()
            .args(["dev", "--nodes", nodes, "--data"])
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut dev = Self { child, output, folder };
        dev.read_until("ready in");
        dev
    }

    /// Reads what `cdb dev` prints up to a line with `words`.
    fn read_until(&mut self, words: &str) -> String {
        let mut read = String::new();
        while !read.lines().last().is_some_and(|line| line.contains(words)) {
            let bytes = self.output.read_line(&mut read).unwrap();
            assert!(bytes > 0, "`cdb dev` ended without `{words}`:\n{read}");
        }
        read
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self) -> DevFile {
        serde_json::from_slice(&fs::read(self.data().join("dev.json")).unwrap()).unwrap()
    }

    fn node_pid(&self, number: u64) -> Option<u32> {
        self.file().nodes.iter().find(|node| node.number == number).and_then(|node| node.pid)
    }

    fn run(&self, args: &[&str]) -> Output {
        cdb().arg("--profile").arg(self.data().join("client.yaml")).args(args).output().unwrap()
    }
}

impl Dev {
    fn run_with(&self, args: &[&str], input: &str) -> Output {
        let mut command = cdb();
        command.arg("--profile").arg(self.data().join("client.yaml")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            kill_process(pid(self.child.id()), Signal::TERM).unwrap();
            drop(self.child.wait());
        }
    }
}

fn is_running(number: u32) -> bool {
    // A zombie answers signals too; it runs nothing.
    let status = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    test_kill_process(pid(number)).is_ok() && !status.contains(") Z ")
}

fn logs(data: &Path) -> String {
    let folder = fs::read_dir(data.join("logs")).unwrap();
    folder.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_killed_node_is_named_and_started_again_and_no_secret_is_logged() {
    let _alone = alone();
    let mut dev = Dev::start("3");
    assert!(dev.file().nodes.iter().all(|node| node.state == ProcessState::Ready));

    let second = cdb().args(["dev", "--data"]).arg(dev.data()).output().unwrap();
    assert!(!second.status.success());
    let said = text(&second.stderr);
    assert!(said.contains("already") && said.contains(&dev.child.id().to_string()), "{said}");

    let same = cdb().args(["start", "-c"]).arg(dev.data().join("n1/node.yaml")).output().unwrap();
    let said = text(&same.stderr);
    let owner = dev.node_pid(1).unwrap().to_string();
    assert!(!same.status.success() && said.contains(&owner), "{said}");

    let victim = dev.node_pid(2).unwrap();
    kill_process(pid(victim), Signal::KILL).unwrap();
    dev.read_until("n2 was killed by signal 9");
    let started = dev.run(&["node", "start", "2"]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    assert!(dev.node_pid(2).is_some_and(|again| again != victim));
    let stopped = dev.run(&["node", "stop", "3"]);
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    assert_eq!(dev.node_pid(3), None);

    let logs = logs(&dev.data());
    assert!(logs.contains("node started"), "logs are written:\n{logs}");
    for number in 1..=3 {
        let key = fs::read_to_string(dev.data().join(format!("n{number}/data/node.key"))).unwrap();
        let secret = key.lines().nth(1).unwrap();
        assert!(!logs.contains(secret), "the key of n{number} is in a log");
    }
    assert!(!logs.contains("cdb1-") && !logs.contains("PRIVATE KEY"), "a secret is in a log");
}

#[test]
fn no_node_outlives_its_parent_and_the_data_outlives_both() {
    let _alone = alone();
    let mut dev = Dev::start("1");
    let node = dev.node_pid(1).unwrap();
    let created = dev.run(&["volume", "create", "kept", "--replicas", "1", "--shards", "2"]);
    assert!(created.status.success(), "{}", text(&created.stderr));
    kill_process(pid(dev.child.id()), Signal::KILL).unwrap();
    dev.child.wait().unwrap();
    eventually("the node's end", || (!is_running(node)).then_some(()));

    let folder = std::mem::replace(&mut dev.folder, tempfile::tempdir().unwrap());
    let dev = Dev::start_in(folder, "1");
    let listed = dev.run(&["volume", "ls", "-o", "json"]);
    assert!(text(&listed.stdout).contains("kept"), "{}", text(&listed.stderr));
}

#[test]
fn a_node_that_keeps_nothing_says_so_and_leaves_nothing() {
    let _alone = alone();
    let mut child =
        cdb().args(["dev", "--memory", "--nodes", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut read = String::new();
    while !read.contains("credentials") {
        assert!(output.read_line(&mut read).unwrap() > 0, "{read}");
    }
    let root = read.split("data ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    assert!(Path::new(root).join("client.yaml").exists());
    kill_process(pid(child.id()), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!Path::new(root).exists(), "{root} is left");
}

#[test]
fn an_empty_directory_and_a_misspelt_key_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("node.yaml");
    let start = || cdb().args(["start", "-c"]).arg(&config).output().unwrap();

    fs::write(&config, "data_dir: data\n").unwrap();
    let said = text(&start().stderr);
    assert!(said.contains("cdb cluster init") && said.contains("--join"), "{said}");
    assert!(!folder.path().join("data").exists(), "refusing leaves no trace");

    fs::write(&config, "data_dir: data\nzome: a\n").unwrap();
    let said = text(&start().stderr);
    assert!(
        said.contains("node.yaml") && said.contains("line 2") && said.contains("zone"),
        "{said}"
    );

    fs::write(&config, "data_dir: data\n").unwrap();
    let joined = cdb()
        .args(["start", "-c"])
        .arg(&config)
        .args(["--join", "127.0.0.1:9", "--token", "cdb1-wrong"])
        .output()
        .unwrap();
    let said = text(&joined.stderr);
    assert!(!joined.status.success() && said.contains("token"), "{said}");
    assert!(!said.contains("cdb1-wrong") || said.contains("invalid value"), "{said}");
}

#[test]
fn keys_have_a_past_leases_and_watchers_on_the_command_line() {
    let _alone = alone();
    let dev = Dev::start("1");
    let ok = |args: &[&str]| {
        let done = dev.run(args);
        assert!(done.status.success(), "{args:?}: {}", text(&done.stderr));
        text(&done.stdout)
    };
    ok(&["volume", "create", "kv", "--kind", "single", "--replicas", "1"]);
    let put = ok(&["kv", "put", "kv/a", "one", "-o", "json"]);
    assert!(put.contains("\"version\": 2"), "a new volume begins at version 1: {put}");
    assert_eq!(ok(&["kv", "put", "kv/a", "two", "--prev"]), "one\n");
    assert_eq!(ok(&["kv", "get", "kv/a", "--rev", "2"]), "a\tone\t2\t2\t1\t0\n");
    let future = dev.run(&["kv", "get", "kv/a", "--rev", "99"]);
    assert!(future.status.code() == Some(3) && text(&future.stderr).contains("E0104"));

    let lease = ok(&["kv", "lease", "grant", "kv", "60"]);
    let lease = lease.trim();
    ok(&["kv", "put", "kv/b", "three", "--lease", lease]);
    let shown = ok(&["kv", "lease", "ttl", "kv", lease, "--keys"]);
    assert!(shown.contains("of 60 s left\nb\n"), "{shown}");
    assert_eq!(ok(&["kv", "lease", "revoke", "kv", lease]), "1\n");
    assert_eq!(ok(&["kv", "get", "kv", "--prefix", "--count-only"]), "1\n");

    let events = ok(&["watch", "kv", "--rev", "3", "--prev", "--count", "3"]);
    assert_eq!(events, "put\ta\t3\ttwo\tone\nput\tb\t4\tthree\ndelete\tb\t5\t\tthree\n");

    assert_eq!(ok(&["kv", "watch", "kv", "--rev", "3", "--count", "1"]), "put\ta\t3\ttwo\n");

    let txn = "value(a) = two\n\nput a four\nget a\n\nget a\n";
    let done = dev.run_with(&["kv", "txn", "kv", "-o", "json"], txn);
    let said = text(&done.stdout);
    assert!(said.contains("\"succeeded\": true") && said.contains("\"value\": \"four\""), "{said}");
    let again = text(&dev.run_with(&["kv", "txn", "kv"], txn).stdout);
    assert!(again.starts_with("failed\n"), "{again}");
    // Nothing was there below `new/`, so both are, and the one inside says what it did.
    let nested = "version(new/ --prefix) = 0\n\nput new/a 1\ntxn {\n  value(a) = four\n\n  put new/b 2\n  get new/c --to new/d\n}\n\nget new/ --prefix\n";
    let done = text(&dev.run_with(&["kv", "txn", "kv"], nested).stdout);
    let inside = r#"{"results":[{"put":true},{"items":[],"more":false}],"succeeded":true}"#;
    assert_eq!(done, format!("succeeded\n{{\"put\":true}}\n{inside}\n"));
    let again = text(&dev.run_with(&["kv", "txn", "kv"], nested).stdout);
    assert!(again.starts_with("failed\n") && again.contains("new/b"), "{again}");
    ok(&["kv", "del", "kv/new/", "--prefix"]);

    ok(&["kv", "compact", "kv", "8"]);
    let gone = dev.run(&["watch", "kv", "--rev", "3", "--count", "1"]);
    assert!(gone.status.code() == Some(3) && text(&gone.stderr).contains("E0105"));
    let del = dev.run(&["kv", "del", "kv/", "--from-key"]);
    assert_eq!((text(&del.stdout), text(&del.stderr)), ("1\n".to_owned(), String::new()));
    more_keys_than_one_change_takes_go_in_parts(&dev);
}

fn more_keys_than_one_change_takes_go_in_parts(dev: &Dev) {
    let puts = |part: u32| {
        let puts = (0..1_000).map(|n| format!("put many/{part:02}{n:03} v\n"));
        let input = ["\n".to_owned()].into_iter().chain(puts).collect::<Vec<_>>().concat();
        let done = dev.run_with(&["kv", "txn", "kv"], &input);
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    (0..11).for_each(puts);
    let del = dev.run(&["kv", "del", "kv/many/", "--prefix", "-o", "json"]);
    let (said, told) = (text(&del.stdout), text(&del.stderr));
    assert!(del.status.success() && said.contains("\"deleted\": 11000"), "{said} {told}");
    assert!(said.contains("\"parts\": 6") && told.contains("in 6 parts"), "{said} {told}");
    let left = dev.run(&["kv", "get", "kv", "--prefix", "--count-only"]);
    assert_eq!(text(&left.stdout), "0\n");
}
