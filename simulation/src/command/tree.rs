//! The tree of sources the command was built from, as git sees it.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Runs git in a folder; its output if it succeeded.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> io::Result<Output> {
    let output = Command::new("git").current_dir(folder).args(arguments).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("git {}: {complaint}", arguments.join(" "))))
}

/// The root of the sources: the folder that holds `simulation/`, here or above.
///
/// # Errors
/// If the command runs outside of the sources.
pub(crate) fn root() -> io::Result<PathBuf> {
    let here = std::env::current_dir()?;
    let found = here.ancestors().find(|folder| folder.join("simulation/Cargo.toml").is_file());
    found.map(Path::to_owned).ok_or_else(|| io::Error::other("run this inside of the sources"))
}

/// Short name of the commit, and whether the sources differ from it.
pub(crate) fn commit() -> String {
    let here = Path::new(".");
    let Ok(name) = git(here, &["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(here, &["status", "--porcelain"]).is_ok_and(|out| !out.stdout.is_empty());
    let name = String::from_utf8_lossy(&name.stdout).trim().to_owned();
    if changed { format!("{name} (dirty)") } else { name }
}

/// Applies a patch to the sources in a folder, or only looks whether it would.
///
/// Lines around a change may have changed too, but for one: patches stay usable
/// while the code around them grows.
///
/// # Errors
/// If it does not fit.
pub(crate) fn apply(folder: &Path, patch: &Path, only_look: bool) -> io::Result<()> {
    let look: &[&str] = if only_look { &["--check"] } else { &[] };
    // A copy below `target` is no repository and must not find the one above:
    // there, git would read the patch's paths from its root.
    let output = Command::new("git")
        .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder))
        .current_dir(folder)
        .args(["apply", "-C1"])
        .args(look)
        .arg(patch)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{} does not apply: {complaint}", patch.display())))
}
