//! `cdb dev`: a whole cluster on this machine, in one command.
//!
//! It gives birth to a cluster, starts each node as a real process of this same
//! binary (real QUIC, mutual TLS, real files) and stays as their parent: it
//! tells when one ends, stops and starts them on request (see `control`) and
//! stops all on Ctrl-C. The data stays for the next start.
//!
//! Decisions:
//! - Nodes are in process groups of their own and get SIGTERM from the kernel
//!   when this process ends in any way, so none is ever left behind.
//! - Nodes join one after the other, so that number, directory and port agree.
//! - A node that dies does not end the others; that is what one wants to see.
//! - Everything runs on the main thread: the kernel's signal at a parent's
//!   death is bound to the *thread* that started the child.

mod control;
mod layout;
mod process;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use cluster::ports::clock::Clock;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use self::{
    control::Wish,
    layout::{Layout, NODES_MAX, Ports},
    process::{Joining, Node},
};
use super::{init::create_cluster, operator, profile::Profile, start::stop_signal};
use crate::{
    config::NodeConfig,
    data_dir::is_born,
    devices::{
        clock::SystemClock,
        lock::{Lock, LockError},
    },
};

pub use control::{start_node, stop_node};
pub use layout::{DevFile, DevNodeState, ProcessState};

/// Nodes unless told otherwise: the fewest that outlive the loss of one.
const NODES_DEFAULT: u64 = 3;
/// Where a development cluster lies unless told otherwise.
const DATA_DEFAULT: &str = "cdb-data";
/// Longest wait until nodes are ready: they may replay long logs.
const READY_WAIT: Duration = Duration::from_mins(1);
/// Longest wait for a node to end by itself.
const STOP_WAIT: Duration = Duration::from_secs(20);
/// How often processes and requests are looked at once all is up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often nodes are asked whether they are ready while one waits for it.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What `cdb dev` takes.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many nodes [default: those in DIR, or 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    pub nodes: Option<u64>,
    /// Where everything lies
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    pub data: PathBuf,
    /// Keep data in memory; nothing stays after Ctrl-C
    #[arg(long, conflicts_with = "data")]
    pub memory: bool,
    /// What the nodes log, for example debug
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Runs `cdb dev` until Ctrl-C.
///
/// # Errors
/// If the directory is in use or of another shape, or no node gets ready.
pub fn run(args: &DevArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let turn = take_turn().await;
        Dev::open(args)?.run(turn).await
    })
}

/// Waits until no other `cdb dev` of this user is between choosing its ports
/// and listening on them: two that choose at once would choose the same.
async fn take_turn() -> Option<Lock> {
    let user = rustix::process::getuid().as_raw();
    let path = std::env::temp_dir().join(format!("cdb-dev-ports-{user}.lock"));
    let deadline = Instant::now() + READY_WAIT;
    while Instant::now() < deadline {
        match Lock::take(&path) {
            Ok(lock) => return Some(lock),
            Err(LockError::Held(_)) => sleep(LOOK_EVERY).await,
            Err(LockError::Io(_)) => break,
        }
    }
    // Better a port that may be taken than no cluster.
    None
}

struct Dev {
    layout: Layout,
    memory: bool,
    log: Option<String>,
    nodes: Vec<Node>,
    ports: Ports,
    /// Nodes told to stop, and since when.
    stopping: BTreeMap<u64, Instant>,
    _lock: Lock,
}

impl Dev {
    fn open(args: &DevArgs) -> anyhow::Result<Self> {
        let root = if args.memory { memory_root() } else { args.data.clone() };
        let root = std::path::absolute(&root).context("cannot find the current folder")?;
        let layout = Layout::new(&root);
        layout.create()?;
        let lock = Lock::take(&layout.lock()).map_err(|error| in_use(&root, error))?;
        let before = layout.load()?.unwrap_or_default();
        ensure!(!before.memory, "{} was in memory and is gone; remove it", root.display());
        let kept = u64::try_from(before.nodes.len())?;
        let count = args.nodes.unwrap_or(if kept > 0 { kept } else { NODES_DEFAULT });
        ensure!(
            count >= kept,
            "{} holds {kept} nodes, and {count} of them may not be a majority; leave out --nodes, \
             or name another --data",
            root.display()
        );
        let mut ports = Ports::new(count, &before);
        let mut nodes = Vec::new();
        for number in 1..=count {
            let addresses = ports.choose(number, &before)?;
            nodes.push(Node::new(&layout, number, addresses));
        }
        ports.tell();
        for (wish, number) in control::wishes(&layout) {
            control::done(&layout, wish, number);
        }
        let (memory, log) = (args.memory, args.log.clone());
        Ok(Self { layout, memory, log, nodes, ports, stopping: BTreeMap::new(), _lock: lock })
    }

    async fn run(mut self, turn: Option<Lock>) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut stop = pin!(stop_signal());
        let up = tokio::select! {
            up = self.bring_up() => Some(up),
            _ = &mut stop => None,
        };
        drop(turn);
        let result = up.unwrap_or(Ok(()));
        if result.is_ok() && self.nodes.iter().any(Node::is_running) {
            self.banner(begin.elapsed());
            loop {
                tokio::select! {
                    _ = &mut stop => break,
                    () = sleep(LOOK_EVERY) => self.look().await?,
                }
            }
        }
        self.shut_down().await?;
        result
    }

    /// Starts everything there is, then lets the missing nodes join.
    async fn bring_up(&mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.configure(&self.layout, self.memory, self.copies(), self.nodes.len())?;
        }
        if !is_born(&self.layout.data(1)) {
            let config = NodeConfig::load(&self.layout.config(1))?;
            create_cluster(&config, "dev", Some(&self.layout.profile()))?;
        }
        self.save_profile()?;
        for node in self.nodes.iter_mut().filter(|node| is_born(&node.state.dir)) {
            node.start(&self.layout, self.log.as_deref(), None)?;
        }
        self.save()?;
        self.wait_ready().await?;
        let missing: Vec<usize> =
            (0..self.nodes.len()).filter(|at| !is_born(&self.nodes[*at].state.dir)).collect();
        for at in missing {
            self.join(at).await?;
        }
        self.wait_ready().await?;
        let ready = self.nodes.iter().any(|node| node.state.state == ProcessState::Ready);
        if !ready {
            let first = self.nodes.first().map(|node| &node.state).context("a node")?;
            let words = process::last_words(first).unwrap_or_default();
            bail!(
                "no node got ready within {} s: {words}\n  log: {}",
                READY_WAIT.as_secs(),
                first.log.display()
            );
        }
        Ok(())
    }

    /// Lets one node join, and waits until it is a member.
    async fn join(&mut self, at: usize) -> anyhow::Result<()> {
        let token = self.token()?;
        let ready = self.nodes.iter().find(|node| node.state.state == ProcessState::Ready);
        let address = ready.context("no node is ready to be joined")?.state.quic;
        let node = &mut self.nodes[at];
        node.start(&self.layout, self.log.as_deref(), Some(&Joining { address, token }))?;
        let deadline = Instant::now() + READY_WAIT;
        while !is_born(&node.state.dir) && Instant::now() < deadline {
            if let Some(status) = node.ended() {
                node.died(status);
                println!("n{}: {}", node.state.number, node.state.problem.as_deref().unwrap_or(""));
                break;
            }
            sleep(ASK_EVERY).await;
        }
        self.save()
    }

    /// A join token, by the same command an operator would use.
    fn token(&self) -> anyhow::Result<String> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let output = Command::new(program)
            .args(["cluster", "token", "--profile"])
            .arg(self.layout.profile())
            .output()
            .context("cannot run `cdb cluster token`")?;
        ensure!(
            output.status.success(),
            "no join token: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let token = text.split_whitespace().find(|word| word.starts_with("cdb1-"));
        token.map(str::to_owned).context("`cdb cluster token` printed no token")
    }

    /// Waits until every running node is ready, or the time is up. A node that
    /// ends meanwhile is named and left.
    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WAIT;
        while Instant::now() < deadline {
            self.look_at_processes().await;
            if self.nodes.iter().all(|node| node.state.state != ProcessState::Starting) {
                break;
            }
            sleep(ASK_EVERY).await;
        }
        self.save()
    }

    /// One look at everything that may have changed.
    async fn look(&mut self) -> anyhow::Result<()> {
        let before = self.file();
        let ready_before: Vec<u64> = self.ready().collect();
        self.look_at_processes().await;
        for number in self.ready().filter(|number| !ready_before.contains(number)) {
            println!("n{number} is ready");
        }
        let wishes = control::wishes(&self.layout);
        let done: Vec<_> =
            wishes.into_iter().filter(|(wish, number)| self.grant(*wish, *number)).collect();
        if self.file() != before {
            self.save()?;
        }
        // The answer is in dev.json before the request goes.
        for (wish, number) in done {
            control::done(&self.layout, wish, number);
        }
        Ok(())
    }

    fn ready(&self) -> impl Iterator<Item = u64> {
        let ready = self.nodes.iter().filter(|node| node.state.state == ProcessState::Ready);
        ready.map(|node| node.state.number)
    }

    async fn look_at_processes(&mut self) {
        for node in &mut self.nodes {
            let number = node.state.number;
            if let Some(status) = node.ended() {
                if self.stopping.remove(&number).is_some() {
                    node.state.state = ProcessState::Stopped;
                    node.state.problem = None;
                } else {
                    node.died(status);
                    let problem = node.state.problem.as_deref().unwrap_or("ended");
                    println!("n{number} {problem}\n  again: cdb node start {number}");
                }
            }
            if node.state.state == ProcessState::Starting && node.is_ready().await {
                node.state.state = ProcessState::Ready;
            }
            let overdue = self.stopping.get(&number).is_some_and(|at| at.elapsed() > STOP_WAIT);
            if overdue {
                node.signal(Signal::KILL);
            }
        }
    }

    /// Does what a request asks; `true` once there is nothing more to do for it.
    fn grant(&mut self, wish: Wish, number: u64) -> bool {
        let Some(node) = self.nodes.iter_mut().find(|node| node.state.number == number) else {
            return true;
        };
        match wish {
            Wish::Stop if node.is_running() => {
                self.stopping.entry(number).or_insert_with(|| {
                    println!("n{number} stops");
                    node.signal(Signal::TERM);
                    Instant::now()
                });
                false
            }
            Wish::Stop => {
                println!("n{number} is stopped; start it with: cdb node start {number}");
                true
            }
            Wish::Start if self.stopping.contains_key(&number) => false,
            Wish::Start if node.is_running() => true,
            Wish::Start => {
                println!("n{number} starts");
                if let Err(error) = self.start_again(number) {
                    self.note_problem(number, format!("{error:#}"));
                }
                true
            }
        }
    }

    /// Starts a node that was down; elsewhere, if its ports were taken meanwhile.
    fn start_again(&mut self, number: u64) -> anyhow::Result<()> {
        let addresses = self.ports.choose(number, &self.file())?;
        self.ports.tell();
        let (copies, nodes) = (self.copies(), self.nodes.len());
        let node = self.nodes.iter_mut().find(|node| node.state.number == number);
        let node = node.context("no such node")?;
        let moved = node.listen_on(addresses);
        node.configure(&self.layout, self.memory, copies, nodes)?;
        node.start(&self.layout, self.log.as_deref(), None)?;
        if moved { self.save_profile() } else { Ok(()) }
    }

    /// Copies of a volume that a door creates: three where there are as many nodes.
    fn copies(&self) -> u64 {
        u64::try_from(self.nodes.len()).map_or(3, |nodes| nodes.min(3))
    }

    fn note_problem(&mut self, number: u64, problem: String) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.state.number == number) {
            node.state.problem = Some(problem);
        }
    }

    /// Stops all nodes, and keeps their data.
    async fn shut_down(&mut self) -> anyhow::Result<()> {
        let running = self.nodes.iter().filter(|node| node.is_running()).count();
        println!("\nstopping {running} nodes");
        let now = Instant::now();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            self.stopping.insert(node.state.number, now);
            node.signal(Signal::TERM);
        }
        let mut again = pin!(stop_signal());
        while self.nodes.iter().any(Node::is_running) {
            tokio::select! {
                _ = &mut again => self.nodes.iter().for_each(|node| node.signal(Signal::KILL)),
                () = sleep(ASK_EVERY) => {}
            }
            self.look_at_processes().await;
        }
        if self.memory {
            println!("stopped; all data was in memory and is gone");
            return fs::remove_dir_all(self.layout.root()).context("cannot remove the folder");
        }
        self.layout.save(&DevFile { pid: None, ..self.file() })?;
        let root = self.layout.root().display();
        println!("stopped; data stays in {root}; again: cdb dev --data {root}");
        Ok(())
    }

    fn file(&self) -> DevFile {
        DevFile {
            pid: Some(std::process::id()),
            memory: self.memory,
            nodes: self.nodes.iter().map(|node| node.state.clone()).collect(),
        }
    }

    fn save(&self) -> anyhow::Result<()> {
        self.layout.save(&self.file())
    }

    /// The profile, made anew if its certificate is near its end.
    fn profile(&self, path: &Path) -> anyhow::Result<Profile> {
        let profile = Profile::load(path)?;
        let now = SystemClock::new().wall();
        let is_due = profile.credentials().is_ok_and(|credentials| credentials.is_due(now));
        let Some(node) = self.nodes.iter().find(|node| is_due && is_born(&node.state.dir)) else {
            return Ok(profile);
        };
        let config = NodeConfig::load(&self.layout.config(node.state.number))?;
        Ok(operator::write(&config, path).unwrap_or_else(|error| {
            println!("the profile stays as it is until its end: {error:#}");
            profile
        }))
    }

    /// Brings endpoints and nodes of the profile up to date.
    fn save_profile(&self) -> anyhow::Result<()> {
        let path = self.layout.profile();
        let mut profile = self.profile(&path)?;
        profile.endpoints = self.nodes.iter().map(|node| node.state.quic.to_string()).collect();
        profile.dev = Some(self.layout.describe(self.nodes.iter().map(|node| node.state.number)));
        Ok(profile.save(&path)?)
    }

    fn banner(&self, took: Duration) {
        let (all, ready) = (self.nodes.len(), self.ready().count());
        let of_all = if ready == all { String::new() } else { format!(" of {all}") };
        let root = self.layout.root().display();
        let seconds = took.as_secs_f64();
        let nodes = if all == 1 { "node" } else { "nodes" };
        println!("{ready}{of_all} {nodes} ready in {seconds:.1} s   data {root}   Ctrl-C to stop");
        for node in &self.nodes {
            let state = &node.state;
            println!(
                "  n{}  quic {}  metrics http://{}/metrics{}",
                state.number,
                state.quic,
                state.http,
                state.etcd.map_or_else(String::new, |etcd| format!("  etcd {etcd}"))
            );
        }
        println!("  logs         {root}/logs");
        println!("  credentials  {} (a private key, 0600)", self.layout.profile().display());
        println!("try, in another shell:");
        if let Some(program) = program_to_name() {
            println!("  alias cdb={}", program.display());
        }
        println!("  export CDB_PROFILE={}", self.layout.profile().display());
        println!("  cdb status");
        println!("  cdb volume create data --replicas {} --shards 8", all.min(3));
        println!("  echo hello | cdb put data/hello - ; cdb get data/hello");
        if let Some(etcd) = self.nodes.first().and_then(|node| node.state.etcd) {
            println!("  ETCDCTL_API=3 etcdctl --endpoints {etcd} put hello world");
        }
        if all > 2 {
            println!("  cdb node stop 2 ; cdb get data/hello      # still answers");
        }
    }
}

fn memory_root() -> PathBuf {
    std::env::temp_dir().join(format!("cdb-dev-{}", std::process::id()))
}

fn in_use(root: &Path, error: LockError) -> anyhow::Error {
    match error {
        LockError::Held(pid) => {
            let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            anyhow::anyhow!(
                "`cdb dev` runs in {} already{pid}; use it, or name another --data",
                root.display()
            )
        }
        LockError::Io(source) => anyhow::Error::new(source)
            .context(format!("cannot lock {}", root.join("lock").display())),
    }
}

/// This program's file, unless `cdb` already means it.
fn program_to_name() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("cdb"));
    let known = found.find(|file| file.is_file()).and_then(|file| fs::canonicalize(file).ok());
    (known != fs::canonicalize(&program).ok()).then_some(program)
}
