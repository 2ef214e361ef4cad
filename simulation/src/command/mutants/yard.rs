//! The yard where mutants live: a copy of the sources with a target directory
//! of its own, so that only changed crates are built again.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::patch::Patch;
use crate::command::tree;

/// Our own crates, which a patch may change. They are built incrementally and
/// optimised little, so that a patch costs seconds; the crates of others stay
/// as a release has them.
const OWN_CRATES: [&str; 4] = ["cluster", "transport", "actors", "simulation"];
/// Lines of a compiler's complaint that are shown.
const COMPLAINT_LINES: usize = 12;

/// A copy of the sources.
#[derive(Debug)]
pub(super) struct Yard {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

/// Arguments that have one of our crates built in little time.
fn cheaply(name: &str) -> [String; 4] {
    let set = |what: &str| format!("profile.release.package.{name}.{what}");
    ["--config".into(), set("opt-level=1"), "--config".into(), set("debug=false")]
}

impl Yard {
    /// Opens the yard below the root's `target`. A new one begins with what
    /// was compiled there already: the crates of others are the same.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let yard = root.join("target/mutants");
        let (tree, target) = (yard.join("tree"), yard.join("target"));
        let compiled = root.join("target/release");
        if !target.exists() && compiled.exists() {
            fs::create_dir_all(&target)?;
            let copied = Command::new("cp").arg("-a").arg(&compiled).arg(&target).status()?;
            if !copied.success() {
                return Err(io::Error::other("what is compiled could not be copied"));
            }
        }
        fs::create_dir_all(&tree)?;
        Ok(Self { root: root.to_owned(), tree, target })
    }

    /// Plants a mutant and builds the simulator with it; its executable, or why
    /// there is none.
    pub(super) fn plant(&self, patch: &Patch) -> io::Result<Result<PathBuf, String>> {
        self.restore()?;
        if let Err(error) = tree::apply(&self.tree, &patch.file, false) {
            return Ok(Err(error.to_string()));
        }
        let output = Command::new("cargo")
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "1")
            .args(["build", "--release", "--locked", "--quiet", "-p", "simulation", "--bins"])
            .args(OWN_CRATES.iter().flat_map(|name| cheaply(name)))
            .output()?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let errors = complaint.lines().skip_while(|line| !line.starts_with("error"));
            let errors: Vec<&str> = errors.take(COMPLAINT_LINES).collect();
            return Ok(Err(format!("it does not build:\n{}", errors.join("\n"))));
        }
        Ok(Ok(self.target.join("release/simulation")))
    }

    /// Makes the copy equal to the sources again. What is equal is not touched:
    /// the time of a file is what decides whether its crate is built again.
    fn restore(&self) -> io::Result<()> {
        let listed = tree::git(
            &self.root,
            &["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        )?;
        let mut wanted = BTreeSet::new();
        for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = PathBuf::from(std::ffi::OsStr::from_bytes(name));
            // Listed and deleted: it is in the index only.
            let Ok(bytes) = fs::read(self.root.join(&name)) else { continue };
            let copy = self.tree.join(&name);
            if fs::read(&copy).ok().as_ref() != Some(&bytes) {
                fs::create_dir_all(copy.parent().unwrap_or(&self.tree))?;
                fs::write(&copy, bytes)?;
            }
            wanted.insert(name);
        }
        self.sweep(&self.tree, &wanted)
    }

    /// Removes what is not wanted.
    fn sweep(&self, folder: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.sweep(&path, wanted)?;
            } else if path.strip_prefix(&self.tree).is_ok_and(|name| !wanted.contains(name)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}
