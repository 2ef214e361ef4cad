//! Real nodes for tests: processes of the built binary on free ports of
//! loopback, in a temporary directory.
//!
//! Idea: a test says what happens to which node; everything that must be
//! cleaned up hangs on values that are dropped, also in a panic. Nothing here
//! sleeps for a guessed time: it waits for a condition, for a limited time.
//!
//! Invariants: a child never outlives its [`Node`] (killed on drop; the kernel
//! ends it if the test process itself is killed). Ports lie below the range
//! from which the system draws, and a block of them is held by a listener, so
//! that tests which run at once never meet.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]
#![allow(dead_code, reason = "each test binary uses its share")]

use std::{
    fmt::Debug,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const CDB: &str = env!("CARGO_BIN_EXE_cdb");
/// Longest wait for anything; only a failing test waits so long.
pub(crate) const LONG: Duration = Duration::from_secs(45);
/// Time between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Settings of every test node: small segments, so that a start is quick.
pub(crate) const SMALL: &str = "limits:\n  open_files: 1024\n  log_segment: 16MiB\n";

/// Waits until `look` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A block of ten ports nobody else uses while it lives.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    _held: TcpListener,
}

impl Ports {
    /// Takes a free block.
    pub(crate) fn take() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let blocks = 1_000;
        let offset = u16::try_from(std::process::id() % 997).unwrap();
        for _ in 0..blocks {
            let block = (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % blocks;
            let first = 20_000 + block * 12;
            if let Ok(held) = TcpListener::bind(("127.0.0.1", first)) {
                // Another test's block is held by its first port; what else listens is not.
                if (first + 1..first + 10).all(is_free) {
                    return Self { first, _held: held };
                }
            }
        }
        panic!("no free block of ports");
    }

    /// Where node `number` listens for QUIC, and for HTTP.
    pub(crate) fn of(&self, number: u16) -> (SocketAddr, SocketAddr) {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        (at(self.first + number), at(self.first + 5 + number))
    }
}

/// Whether nobody listens at a port, be it for QUIC or for HTTP.
fn is_free(port: u16) -> bool {
    let at = ("127.0.0.1", port);
    TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its output.
    pub(crate) stdout: Vec<u8>,
    /// Its errors.
    pub(crate) stderr: String,
}

impl Ran {
    /// The output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Requires success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.text(), self.stderr);
        self
    }

    /// Requires an exit code, and words among the errors.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.text(), self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in:\n{}", self.stderr);
        }
        self
    }
}

/// Runs the binary.
pub(crate) fn run(args: &[&str]) -> Ran {
    run_with(args, b"")
}

/// Runs the binary with standard input.
pub(crate) fn run_with(args: &[&str], input: &[u8]) -> Ran {
    let mut command = command();
    command.args(args);
    finish(command, input)
}

fn command() -> Command {
    let mut command = Command::new(CDB);
    command.env_remove("CDB_PROFILE").env_remove("CDB_JOIN_TOKEN").env_remove("RUST_LOG");
    command
}

fn finish(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses before it reads closes the pipe: no matter.
    drop(stdin.write_all(input));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One node: its files, and its process while it runs.
#[derive(Debug)]
pub(crate) struct Node {
    /// 1 for the first.
    pub(crate) number: u16,
    /// Its `node.yaml`.
    pub(crate) config: PathBuf,
    /// Its data directory.
    pub(crate) dir: PathBuf,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Its QUIC address.
    pub(crate) quic: SocketAddr,
    /// Its HTTP address.
    pub(crate) http: SocketAddr,
    child: Option<Child>,
}

impl Node {
    /// Writes its configuration below `root`; `extra` is added to it.
    pub(crate) fn new(root: &Path, ports: &Ports, number: u16, extra: &str) -> Self {
        let folder = root.join(format!("n{number}"));
        fs::create_dir_all(&folder).unwrap();
        let (quic, http) = ports.of(number);
        let config = folder.join("node.yaml");
        let zone = char::from(b'a' + u8::try_from(number - 1).unwrap());
        fs::write(
            &config,
            format!("data_dir: data\nlisten: {quic}\nhttp: {http}\nzone: {zone}\n{SMALL}{extra}"),
        )
        .unwrap();
        let (dir, log) = (folder.join("data"), folder.join("log.txt"));
        Self { number, config, dir, log, quic, http, child: None }
    }

    /// Starts it, without waiting.
    pub(crate) fn start(&mut self, args: &[&str]) {
        assert!(self.child.is_none(), "n{} runs", self.number);
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = command();
        command
            .args(["start", "--dev-parent", &std::process::id().to_string(), "-c"])
            .arg(&self.config)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running node").id()
    }

    /// Whether its process runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a running node");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.ended(LONG);
    }

    /// Waits for the end of its process; its exit code.
    #[track_caller]
    pub(crate) fn ended(&mut self, limit: Duration) -> i32 {
        let number = self.number;
        let child = self.child.as_mut().expect("a running node");
        let status = until(&format!("the end of n{number}"), limit, || child.try_wait().unwrap());
        self.child = None;
        status.code().unwrap_or(-1)
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let begin = Instant::now();
        while http_get(self.http, "/readyz").is_none_or(|(status, _)| status != 200) {
            assert!(self.is_running(), "n{} ended:\n{}", self.number, self.log_text());
            assert!(begin.elapsed() < LONG, "n{} is not ready:\n{}", self.number, self.log_text());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// All it wrote.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts it where it must refuse; its words.
    #[track_caller]
    pub(crate) fn start_refused(&mut self, args: &[&str]) -> String {
        let before = self.log_text().len();
        self.start(args);
        let code = self.ended(LONG);
        let words = self.log_text().split_off(before);
        assert_ne!(code, 0, "it did not refuse:\n{words}");
        words
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let text = self.log_text();
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            eprintln!("--- last words of n{}", self.number);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// One HTTP request: status and body; none if nobody answers.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((status, body))
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Its nodes, by number less one. Dropped before their directory.
    pub(crate) nodes: Vec<Node>,
    /// The operator's profile.
    pub(crate) profile: PathBuf,
    /// Where everything lies.
    pub(crate) root: PathBuf,
    ports: Ports,
    folder_kept: Option<TempDir>,
}

impl Cluster {
    /// Starts a cluster of `count` nodes and waits until it is healthy.
    #[track_caller]
    pub(crate) fn start(count: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self::prepare(folder.path(), count, "");
        cluster.folder_kept = Some(folder);
        cluster.found();
        cluster
    }

    /// A cluster below `root` that does not run yet.
    pub(crate) fn prepare(root: &Path, count: u16, extra: &str) -> Self {
        let ports = Ports::take();
        let nodes = (1..=count).map(|number| Node::new(root, &ports, number, extra)).collect();
        let profile = root.join("client.yaml");
        Self { nodes, profile, root: root.to_owned(), ports, folder_kept: None }
    }

    /// Gives birth to it and lets all nodes join.
    #[track_caller]
    pub(crate) fn found(&mut self) {
        let config = self.nodes[0].config.display().to_string();
        let profile = self.profile.display().to_string();
        run(&["cluster", "init", "-c", &config, "--write-profile", &profile]).ok();
        self.nodes[0].start(&[]);
        self.nodes[0].wait_ready();
        let first = self.nodes[0].quic.to_string();
        for at in 1..self.nodes.len() {
            let token = self.token();
            self.nodes[at].start(&["--join", &first, "--token", &token]);
            // One after the other: the cluster names them as they come.
            self.nodes[at].wait_ready();
        }
        self.name_endpoints();
        self.wait_healthy();
    }

    /// Puts all nodes into the profile: a client must outlive the first one.
    fn name_endpoints(&self) {
        let all: Vec<String> = self.nodes.iter().map(|node| format!("  - {}", node.quic)).collect();
        let text = fs::read_to_string(&self.profile).unwrap();
        let begin = text.find("endpoints:").expect("endpoints in the profile");
        let end = begin + text[begin..].find("\nca:").expect("the authority after them");
        let text = format!("{}endpoints:\n{}{}", &text[..begin], all.join("\n"), &text[end..]);
        fs::write(&self.profile, text).unwrap();
    }

    /// A new join token.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        let text = self.cdb(&["cluster", "token"]).ok().text();
        let token = text.split_whitespace().find(|word| word.starts_with("cdb1-"));
        token.expect("a token").to_owned()
    }

    /// Another node, not started.
    pub(crate) fn another(&self, number: u16) -> Node {
        Node::new(&self.root, &self.ports, number, "")
    }

    /// Runs a command with the operator's profile.
    pub(crate) fn cdb(&self, args: &[&str]) -> Ran {
        self.cdb_with(args, b"")
    }

    /// The same with standard input.
    pub(crate) fn cdb_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = command();
        command.arg("--profile").arg(&self.profile).args(args).current_dir(&self.root);
        finish(command, input)
    }

    /// Creates a volume.
    #[track_caller]
    pub(crate) fn volume(&self, name: &str, shards: u32) {
        self.cdb(&["volume", "create", name, "--shards", &shards.to_string()]).ok();
    }

    /// Writes a value.
    #[track_caller]
    pub(crate) fn put(&self, place: &str, value: &[u8]) {
        self.cdb_with(&["put", place, "-"], value).ok();
    }

    /// Requires a value.
    #[track_caller]
    pub(crate) fn holds(&self, place: &str, value: &[u8]) {
        let got = self.cdb(&["get", place]).ok().stdout;
        assert!(got == value, "{place}: {} bytes instead of {}", got.len(), value.len());
    }

    /// Waits until nothing is to be mended.
    #[track_caller]
    pub(crate) fn wait_healthy(&self) {
        self.cdb(&["status", "--wait", "healthy", "--timeout", "45s"]).ok();
    }

    /// What `cdb status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.cdb(&["status", "-o", "json"]).ok().json()
    }

    /// Starts a node that was stopped or killed, and waits until it is ready.
    #[track_caller]
    pub(crate) fn restart(&mut self, number: usize) {
        self.nodes[number - 1].start(&[]);
        self.nodes[number - 1].wait_ready();
    }

    /// Requires every node's process to be the one it was.
    #[track_caller]
    pub(crate) fn all_run(&mut self) {
        for node in &mut self.nodes {
            assert!(node.is_running(), "n{} went down:\n{}", node.number, node.log_text());
        }
    }
}

/// All files below `root` with their bytes, by relative path.
pub(crate) fn tree(root: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}
