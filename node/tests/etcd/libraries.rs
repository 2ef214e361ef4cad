//! Libraries for etcd that others wrote: a program in the language of each
//! (`node/tests/clients`) asks, and prints each step and what it heard.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use crate::{
    peers::Peer,
    play::{Answers, anonymous},
};

/// Longest run of a program, in seconds.
const RUN_MAX: &str = "120";
/// The same of one that sees each member die and come again.
const SURVIVAL_MAX: &str = "240";

/// A library that is here.
pub(crate) struct Library {
    /// Its name in the table of the docs.
    pub(crate) name: &'static str,
    /// How its program is started: the address follows.
    words: Vec<PathBuf>,
    /// The same of the one that goes on while members die, if there is one.
    survives: Option<Vec<PathBuf>>,
}

/// What `CDB_NEED` calls a library that is not here.
type Missing = &'static str;

/// Each library of which there is a program.
pub(crate) fn all() -> [Result<Library, Missing>; 3] {
    let python = clients().join("python/drive.py");
    let node = clients().join("node/drive.mjs");
    let survives = clients().join("node/survive.mjs");
    [
        rust(),
        // It knows one member only.
        script("python", "etcd3 (Python)", "python3", ["-c", "import etcd3"], python),
        script("node", "etcd3 (Node)", "node", ["-e", "require('etcd3')"], node)
            .map(|node| Library { survives: Some(vec!["node".into(), survives]), ..node }),
    ]
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Builds the program of the crate `etcd-client`, which wants a `protoc` when it
/// is built: ours, built first.
fn rust() -> Result<Library, Missing> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drive");
    let cargo = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(words)
            .args(["--locked", "--quiet", "--manifest-path"])
            .arg(clients().join("rust/Cargo.toml"))
            .env("PROTOC", target.join("debug/protoc"))
            .env("CARGO_TARGET_DIR", &target);
        command.output().unwrap()
    };
    let fetched = cargo(&["fetch"]);
    if !fetched.status.success() {
        eprintln!("etcd-client cannot be fetched: {}", errors(&fetched));
        return Err("rust");
    }
    for words in [["build", "-p", "protoc"], ["build", "-p", "drive"]] {
        let built = cargo(&words);
        assert!(built.status.success(), "{}", errors(&built));
    }
    let program = target.join("debug/drive");
    let survives = Some(vec![program.clone(), "survive".into()]);
    Ok(Library { name: "etcd-client (Rust)", words: vec![program], survives })
}

fn script(
    missing: Missing,
    name: &'static str,
    interpreter: &str,
    import: [&str; 2],
    script: PathBuf,
) -> Result<Library, Missing> {
    let found = Command::new(interpreter).args(import).output();
    if !found.is_ok_and(|found| found.status.success()) {
        return Err(missing);
    }
    Ok(Library { name, words: vec![interpreter.into(), script], survives: None })
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Library {
    /// Starts its program that goes on while members die, if it has one.
    pub(crate) fn survive(&self, addresses: &str) -> Option<Child> {
        let mut command = Command::new("timeout");
        command.arg(SURVIVAL_MAX).args(self.survives.as_ref()?).arg(addresses);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Some(command.spawn().unwrap())
    }

    /// What it hears from somebody.
    pub(crate) fn ask(&self, peer: &impl Peer) -> Answers {
        let output = Command::new("timeout")
            .arg(RUN_MAX)
            .args(&self.words)
            .arg(peer.address())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {}\n{printed}", self.name, errors(&output));
        let steps = printed.lines().filter_map(|line| line.split_once('\t'));
        steps.map(|(step, answer)| (step.to_owned(), anonymous(answer))).collect()
    }
}
