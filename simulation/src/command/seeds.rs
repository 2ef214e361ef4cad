//! Kept runs: those that once failed, each with what it found.
//!
//! `simulation/seeds/kept.txt` names runs that are drawn, one a line: a
//! scenario (or none, for the swarm), a seed, a sentence. Every other text file
//! of that folder is one [`Case`], as `shrink` and a failing `run` write them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use simulation::{
    case::Case,
    scenario::{self, SWARM},
};

use super::tree;

const FOLDER: &str = "simulation/seeds";
const LIST: &str = "kept.txt";

/// All kept runs.
pub(crate) fn kept() -> io::Result<Vec<Case>> {
    let folder = tree::root()?.join(FOLDER);
    let mut cases = list(&fs::read_to_string(folder.join(LIST))?)?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "txt")) {
        if file.file_name().is_some_and(|name| name != LIST) {
            let fault = |error| io::Error::other(format!("{}: {error}", file.display()));
            cases.push(fs::read_to_string(file)?.parse().map_err(fault)?);
        }
    }
    Ok(cases)
}

fn list(text: &str) -> io::Result<Vec<Case>> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(line_case).collect()
}

fn line_case(line: &str) -> io::Result<Case> {
    let bad = || io::Error::other(format!("{LIST} has a line that names no run: {line}"));
    let (first, rest) = line.split_once(' ').ok_or_else(bad)?;
    if let Ok(seed) = first.parse() {
        return Ok(Case::drawn(&SWARM, seed).found(rest));
    }
    let (seed, found) = rest.split_once(' ').ok_or_else(bad)?;
    let scenario = scenario::find(first).ok_or_else(bad)?;
    Ok(Case::drawn(scenario, seed.parse().map_err(|_| bad())?).found(found))
}

/// Writes a run down that failed, under a name nobody has yet; where to. What
/// it found is for a person to say before it is kept.
pub(crate) fn write(case: &Case, name: &str, remark: &str) -> io::Result<PathBuf> {
    let folder = tree::root()?.join(FOLDER);
    let file = folder.join(format!("{name}.txt"));
    // One line, for it is a remark; the headline of a failure is one.
    let remark = remark.lines().next().unwrap_or_default();
    fs::write(&file, format!("# {remark}\n{case}"))?;
    Ok(relative(&file))
}

fn relative(file: &Path) -> PathBuf {
    let root = tree::root().unwrap_or_default();
    file.strip_prefix(root).unwrap_or(file).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kept_run_says_what_it_found() {
        let kept = kept().expect("kept runs");
        assert!(!kept.is_empty());
        for case in kept {
            assert!(case.found.split(' ').count() > 4, "say what it found:\n{case}");
        }
    }

    #[test]
    fn a_line_names_a_run_with_or_without_its_scenario() {
        let cases = list("# remark\n7 it broke\nswarm 8 it broke too\n").expect("a list");
        assert_eq!(cases.iter().map(|case| case.seed).collect::<Vec<_>>(), [7, 8]);
        assert!(list("nowhere 8 it broke").is_err());
        assert!(list("swarm").is_err());
    }
}
