//! One node of a development cluster: a real process of this same binary.
//!
//! It has its own process group, so that Ctrl-C reaches `cdb dev` alone, which
//! stops its nodes in order; and it asks the kernel to be stopped should
//! `cdb dev` die without a word.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    num::NonZero,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::layout::{Addresses, DevNodeState, Layout, ProcessState};
use crate::{cli::start::TOKEN_VARIABLE, config::THREADS_MAX};

/// Longest wait for an answer of `/readyz` on loopback.
const READY_ANSWER_MAX: Duration = Duration::from_secs(1);
/// Bytes of the log's end looked at for its last line.
const LOG_TAIL_BYTES: u64 = 4 << 10;

/// A node and its process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) state: DevNodeState,
    child: Option<Child>,
}

/// Whom to join, on a first start.
pub(super) struct Joining {
    pub(super) address: SocketAddr,
    pub(super) token: String,
}

impl Node {
    pub(super) fn new(layout: &Layout, number: u64, addresses: Addresses) -> Self {
        let Addresses { quic, http, etcd } = addresses;
        let state = DevNodeState {
            number,
            state: ProcessState::Stopped,
            pid: None,
            quic,
            http,
            etcd: Some(etcd),
            dir: layout.data(number),
            log: layout.log(number),
            problem: None,
        };
        Self { state, child: None }
    }

    /// Writes its `node.yaml`: always anew, since ports may have changed. A
    /// volume that a door creates has `copies`; the machine's cores are shared by `nodes`.
    pub(super) fn configure(
        &self,
        layout: &Layout,
        memory: bool,
        copies: u64,
        nodes: usize,
    ) -> anyhow::Result<()> {
        let DevNodeState { number, quic, http, .. } = &self.state;
        let etcd = self.state.etcd.filter(|_| cfg!(feature = "etcd"));
        let doors = etcd.map_or_else(String::new, |etcd| {
            format!("doors:\n  etcd:\n    listen: {etcd}\n    replicas: {copies}\n")
        });
        let zone = char::from(b'a' + u8::try_from(number.saturating_sub(1)).unwrap_or_default());
        let engine = if memory { "memory" } else { "disk" };
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (cores / nodes.max(1)).clamp(1, THREADS_MAX);
        let text = format!(
            "# Written by `cdb dev` at each start; changes are lost.\ndata_dir: data\nlisten: \
             {quic}\nhttp: {http}\nzone: {zone}\nengine: {engine}\nlog:\n  format: text\nlimits:\n  open_files: 4096\n  \
             task_threads: {threads}\n{doors}"
        );
        let path = layout.config(*number);
        let folder = path.parent().context("a folder")?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Gives it other addresses; whether they are.
    pub(super) fn listen_on(&mut self, addresses: Addresses) -> bool {
        let Addresses { quic, http, etcd } = addresses;
        let state = &mut self.state;
        let before = (state.quic, state.http, state.etcd);
        (state.quic, state.http, state.etcd) = (quic, http, Some(etcd));
        before != (quic, http, Some(etcd))
    }

    /// Starts its process.
    pub(super) fn start(
        &mut self,
        layout: &Layout,
        log: Option<&str>,
        joining: Option<&Joining>,
    ) -> anyhow::Result<()> {
        let number = self.state.number;
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(layout.log(number))
            .with_context(|| format!("cannot open the log of n{number}"))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command
            .args(["start", "--dev-parent", &std::process::id().to_string(), "-c"])
            .arg(layout.config(number))
            .args(log.map(|filter| format!("--log={filter}")))
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share the log")?)
            .stderr(output)
            .process_group(0)
            .env_remove(TOKEN_VARIABLE);
        if let Some(Joining { address, token }) = joining {
            command.args(["--join", &address.to_string()]).env(TOKEN_VARIABLE, token);
        }
        let child = command.spawn().with_context(|| format!("cannot start n{number}"))?;
        self.state.state = ProcessState::Starting;
        self.state.pid = Some(child.id());
        self.state.problem = None;
        self.child = Some(child);
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Notices the end of its process; says how it ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        self.state.pid = None;
        Some(status)
    }

    /// Its process ended without being told.
    pub(super) fn died(&mut self, status: ExitStatus) {
        let last = last_words(&self.state).unwrap_or_default();
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        self.state.state = ProcessState::Exited;
        self.state.problem =
            Some(if last.is_empty() { how } else { format!("{how}; its last words: {last}") });
    }

    pub(super) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = child.and_then(Pid::from_raw) {
            // It may just have ended; the next look will notice.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks its `/readyz`.
    pub(super) async fn is_ready(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(self.state.http).await?;
            stream
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: dev\r\nConnection: close\r\n\r\n")
                .await?;
            let mut status = [0; 12];
            stream.read_exact(&mut status).await?;
            std::io::Result::Ok(status)
        };
        matches!(timeout(READY_ANSWER_MAX, ask).await, Ok(Ok(status)) if status.ends_with(b" 200"))
    }
}

impl Drop for Node {
    /// Leaves no process behind when `cdb dev` fails half way.
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

/// The last words of a node: the cause of its error if it printed one, else
/// its last line.
pub(super) fn last_words(node: &DevNodeState) -> Option<String> {
    let mut file = fs::File::open(&node.log).ok()?;
    let bytes = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let mut end = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let last = end.next()?;
    // An error ends with three lines: cause, fix, docs.
    let cause = end.take(2).find_map(|line| line.strip_prefix("cause:"));
    Some(cause.filter(|_| last.starts_with("docs:")).unwrap_or(last).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_cause_of_an_error_or_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let addresses = Addresses { quic: address, http: address, etcd: address };
        let node = Node::new(&layout, 1, addresses);
        fs::write(
            &node.state.log,
            "INFO started\nerror[E1]: x\n  cause: port taken\n  fix: y\n  docs:  z\n",
        )
        .unwrap();
        assert_eq!(last_words(&node.state).unwrap(), "port taken");
        fs::write(&node.state.log, "INFO started\nINFO ready\n\n").unwrap();
        assert_eq!(last_words(&node.state).unwrap(), "INFO ready");
    }
}
