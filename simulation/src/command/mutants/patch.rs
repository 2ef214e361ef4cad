//! A planted bug as a file: a few lines of what it is, then a patch.
//!
//! ```text
//! breaks: a record counts as durable when it is given to the log
//! row: D1
//! barks: durable: acknowledged writes are gone after power loss
//! scenario: all
//!
//! diff --git …
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where patches lie, from the root of the sources.
pub(super) const FOLDER: &str = "simulation/mutants";

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// The file's name without its ending.
    pub(super) name: String,
    /// Where it lies.
    pub(super) file: PathBuf,
    /// What it breaks, in a sentence.
    pub(super) breaks: String,
    /// Rows of the bug catalogue it stands for.
    pub(super) row: String,
    /// What should notice.
    pub(super) barks: String,
    /// The scenario whose seeds it must not survive, or `all`.
    pub(super) scenario: String,
}

impl Patch {
    /// All patches of a folder, by name.
    pub(super) fn all(folder: &Path) -> io::Result<Vec<Self>> {
        let mut patches = Vec::new();
        for entry in fs::read_dir(folder)? {
            let file = entry?.path();
            if file.extension().is_some_and(|kind| kind == "patch") {
                let text = fs::read_to_string(&file)?;
                let fault = |cause| io::Error::other(format!("{}: {cause}", file.display()));
                patches.push(Self::read(&file, &text).map_err(fault)?);
            }
        }
        patches.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(patches)
    }

    fn read(file: &Path, text: &str) -> Result<Self, String> {
        let (head, _) = text.split_once("\ndiff --git ").ok_or("no patch follows its head")?;
        let field = |name: &str| {
            let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).ok_or_else(|| format!("its head does not say `{name}: …`"))
        };
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            name,
            file: file.to_owned(),
            breaks: field("breaks")?,
            row: field("row")?,
            barks: field("barks")?,
            scenario: field("scenario")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tree;

    const TEXT: &str = "breaks: x\nrow: D1\nbarks: y\nscenario: all\n\ndiff --git a/f b/f\n";

    #[test]
    fn a_patch_says_what_it_breaks_and_who_barks() {
        let patch = Patch::read(Path::new("d/bug.patch"), TEXT).expect("a patch");
        assert_eq!((patch.name.as_str(), patch.row.as_str()), ("bug", "D1"));
        for missing in ["breaks: x\n", "row: D1\n", "scenario: all\n", "diff --git a/f b/f\n"] {
            let text = TEXT.replace(missing, "");
            assert!(Patch::read(Path::new("bug.patch"), &text).is_err(), "without {missing}");
        }
    }

    #[test]
    fn every_patch_still_applies_to_these_sources() {
        let root = tree::root().expect("tests run inside of the sources");
        let patches = Patch::all(&root.join(FOLDER)).expect("patches");
        assert!(patches.len() >= 20, "only {} mutants", patches.len());
        let broken: Vec<_> = patches
            .iter()
            .filter_map(|patch| tree::apply(&root, &patch.file, true).err())
            .map(|error| error.to_string())
            .collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}
