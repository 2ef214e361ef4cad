//! The taste of the house as a test: what compilers and lints do not see.
//!
//! Each rule is a pure function from sources to findings, so that the tests at
//! the end can show it a bad sample and hear it bark. Rules that clippy can
//! keep (length of functions, banned calls) are kept there, and only their
//! switches are checked here.
//!
//! Source: TigerBeetle's `tidy.zig`; the crate edges are the ones the root
//! README draws.
#![allow(clippy::expect_used, reason = "a test that cannot read the house fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A text file of the repository, its path relative to the root.
#[derive(Debug, Clone)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Code of ours; what a test generates and compares has no taste.
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|ext| ext == "rs")
            && !self.path.contains("/generated/")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.contains("/benches/")
    }

    /// The text before a trailing `#[cfg(test)] mod tests { … }`.
    fn without_inline_tests(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }
}

const FILE_LINES_MAX: usize = 800;
const FILE_LINES_WARN: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace root").to_owned()
}

/// What `.gitignore` names, and git's own folder.
fn ignored() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(".gitignore")).expect("a .gitignore");
    let mut names: BTreeSet<String> =
        text.lines().map(|line| line.trim_matches('/').to_owned()).collect();
    names.insert(".git".to_owned());
    names
}

fn collect(dir: &Path, ignored: &BTreeSet<String>, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ignored.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, ignored, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root()).expect("below the root");
            found.push(Source { path: relative.to_string_lossy().into_owned(), text });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &ignored(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Words that must not stand in the sources; in pieces, so that this file may.
fn banned_words() -> Vec<String> {
    [("to", "do!"), ("unimpl", "emented!"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("TO", "DO")]
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .collect()
}

/// Places that exist on somebody's machine only.
fn machine_paths() -> Vec<String> {
    [("/wo", "rk/"), ("/tmp/", "wt"), ("/ro", "ot/")]
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .collect()
}

fn words_in(sources: &[Source], words: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path != "Cargo.lock") {
        for (number, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| contains_word(line, word)) {
                findings.push(format!("{}:{}: `{word}`", source.path, number + 1));
            }
        }
    }
    findings
}

/// `word` in `line`, not as a part of a longer word.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !(joins(before) || word.chars().all(char::is_alphabetic) && joins(after))
    })
}

fn files_without_header(sources: &[Source]) -> Vec<String> {
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not open with `//!`", source.path))
        .collect()
}

fn long_files(sources: &[Source], lines_max: usize) -> Vec<String> {
    let rust = sources.iter().filter(|source| source.is_rust() && !source.is_test());
    rust.map(|source| (source, source.without_inline_tests().lines().count()))
        .filter(|(_, lines)| *lines > lines_max)
        .map(|(source, lines)| format!("{}: {lines} lines, over {lines_max}", source.path))
        .collect()
}

/// Names after `mod` in declarations without a body.
fn declared_modules(text: &str) -> Vec<(String, Option<String>)> {
    let mut path = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(str::to_owned);
            continue;
        }
        let bare = line.strip_prefix("pub ").unwrap_or(line);
        let bare = bare.split_once(") ").filter(|_| bare.starts_with("pub(")).map_or(bare, |p| p.1);
        if let Some(name) = bare.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            found.push((name.to_owned(), path.take()));
        }
    }
    found
}

/// Roots of programs that are no members of the workspace.
const OTHER_ROOTS: [&str; 2] =
    ["node/tests/clients/rust/src/main.rs", "node/tests/clients/rust/protoc/src/main.rs"];

/// Rust files that no `mod` reaches from the roots of any crate.
fn dead_files(sources: &[Source], roots: &[String]) -> Vec<String> {
    let files: BTreeMap<&str, &Source> =
        sources.iter().filter(|s| s.is_rust()).map(|s| (s.path.as_str(), s)).collect();
    let mut alive: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<(String, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
    while let Some((path, is_root)) = open.pop() {
        let Some(source) = files.get(path.as_str()) else { continue };
        if !alive.insert(path.clone()) {
            continue;
        }
        let parent = Path::new(&path).parent().unwrap_or_else(|| Path::new("")).to_owned();
        let owns_folder = is_root || path.ends_with("/mod.rs");
        let below = if owns_folder { parent.clone() } else { Path::new(&path).with_extension("") };
        for (name, explicit) in declared_modules(&source.text) {
            let candidates = match explicit {
                Some(file) => vec![parent.join(file)],
                None => vec![below.join(format!("{name}.rs")), below.join(&name).join("mod.rs")],
            };
            open.extend(candidates.iter().map(|p| (p.to_string_lossy().into_owned(), false)));
        }
    }
    files
        .keys()
        .filter(|path| !alive.contains(**path))
        .map(|path| format!("{path}: no `mod` reaches it"))
        .collect()
}

/// Links of the documents that lead to no file of the repository.
fn broken_links(sources: &[Source], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| Path::new(&source.path).extension().is_some_and(|kind| kind == "md"))
    {
        let folder = Path::new(&source.path).parent().unwrap_or_else(|| Path::new(""));
        for target in source.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = file.is_empty() || file.contains(':') || file.contains(' ');
            if !elsewhere && !exists(&folder.join(file)) {
                findings.push(format!("{}: no file at {target}", source.path));
            }
        }
    }
    findings
}

/// What a crate may use of ours, and what it may never use from outside.
struct Edges {
    name: &'static str,
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

/// The arrows of the README's picture.
const EDGES: [Edges; 6] = [
    Edges {
        name: "cluster",
        ours: &[],
        never: &["tokio", "ractor", "quinn", "heed", "rustls", "getrandom", "libc", "rustix"],
    },
    Edges { name: "transport", ours: &["cluster"], never: &["ractor", "heed"] },
    Edges {
        name: "actors",
        ours: &["cluster"],
        never: &["quinn", "rustls", "heed", "libc", "rustix"],
    },
    Edges { name: "clusterdb", ours: &["cluster", "transport", "actors"], never: &[] },
    Edges {
        name: "simulation",
        ours: &["cluster", "actors", "transport", "clusterdb"],
        never: &["getrandom"],
    },
    Edges { name: "examples", ours: &["clusterdb"], never: &["ractor", "quinn", "heed"] },
];

fn forbidden_edges(packages: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let ours: BTreeSet<&str> = EDGES.iter().map(|edges| edges.name).collect();
    let mut findings = Vec::new();
    for (package, dependencies) in packages {
        let Some(edges) = EDGES.iter().find(|edges| edges.name == package) else {
            findings.push(format!("{package}: a crate without a place in the picture"));
            continue;
        };
        for dependency in dependencies.iter().map(String::as_str) {
            let stranger = ours.contains(dependency) && !edges.ours.contains(&dependency);
            if stranger || edges.never.contains(&dependency) {
                findings.push(format!("{package} must not depend on {dependency}"));
            }
        }
    }
    findings
}

/// What the pure crates must not reach for in the standard library, and the
/// one home of raft-rs.
fn forbidden_paths(sources: &[Source]) -> Vec<String> {
    let world = ["std::fs", "std::env", "std::process", "TcpStream", "UdpSocket", "std::thread"];
    let raft = ["use raft::", "raft::prelude", "raft::RawNode", "raft::eraftpb", "raft::Storage"];
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
        let pure = ["cluster/src/", "actors/src/"].iter().any(|dir| source.path.starts_with(dir));
        let text = source.without_inline_tests();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for path in world.iter().filter(|path| pure && line.contains(**path)) {
                findings.push(format!("{}: `{path}` in a pure crate", source.path));
            }
            let at_home = source.path.starts_with("cluster/src/raft/");
            let foreign = |path: &&&str| {
                !at_home
                    && line.contains(**path)
                    && !line.contains(&format!("crate::{path}"))
                    && !line.contains(&format!("cluster::{path}"))
            };
            for path in raft.iter().filter(foreign) {
                findings.push(format!("{}: `{path}` outside cluster/src/raft", source.path));
            }
        }
    }
    findings
}

/// Locks outside devices and tests need a reason: a comment with the word.
fn locks_without_reason(sources: &[Source]) -> Vec<String> {
    let crates = ["cluster/src/", "transport/src/", "actors/src/", "node/src/"];
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
        let ours = crates.iter().any(|dir| source.path.starts_with(dir));
        if !ours || source.path.starts_with("node/src/devices/") {
            continue;
        }
        let text = source.without_inline_tests();
        let locks = ["Mutex<", "RwLock<", "DashMap<"].iter().any(|lock| text.contains(lock));
        let reason = text.lines().any(|line| {
            let words = line.split_once("//").map(|(_, words)| words.to_lowercase());
            words.is_some_and(|words| words.contains("lock") || words.contains("mutex"))
        });
        if locks && !reason {
            findings.push(format!("{}: a lock without a comment that says why", source.path));
        }
    }
    findings
}

/// Longest `mod.rs` of an actor: its charter and its flat `handle`. What does
/// not fit moves to `messages.rs`, `state.rs` and `effects.rs` beside it.
const ACTOR_LINES_MAX: usize = 250;

/// The questions a charter answers, by a word each answer cannot avoid.
const CHARTER: [&str; 6] = ["owns", "talks", "supervised", "lose", "invariant", "limits"];

/// One actor, one folder, a charter, and no god in its `mod.rs`.
fn misshapen_actors(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("actors/src/")) {
        if source.is_test() || !source.text.contains("Actor for ") {
            continue;
        }
        if !source.path.ends_with("/mod.rs") {
            findings.push(format!("{}: an actor lives in the mod.rs of its folder", source.path));
        }
        if source.without_inline_tests().lines().count() > ACTOR_LINES_MAX {
            findings.push(format!("{}: over {ACTOR_LINES_MAX} lines", source.path));
        }
        let header = source.text.lines().take_while(|line| line.starts_with("//!"));
        let charter: String = header.map(str::to_lowercase).collect();
        for word in CHARTER.iter().filter(|word| !charter.contains(**word)) {
            findings.push(format!("{}: the charter does not say: {word}", source.path));
        }
    }
    findings
}

/// Files and folders that may lie in the root; it stays bare.
const ROOT_ENTRIES: [&str; 25] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".deny.toml",
    ".gitattributes",
    ".gitignore",
    ".justfile",
    ".rustfmt.toml",
    ".typos.toml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "NOTICE",
    "README.md",
    "SECURITY.md",
    "actors",
    "cluster",
    "examples",
    "node",
    "simulation",
    "transport",
];

fn strangers_in_root(entries: &[String]) -> Vec<String> {
    entries.iter().filter(|entry| !ROOT_ENTRIES.contains(&entry.as_str())).cloned().collect()
}

/// Name and version of each locked package.
fn locked(lock: &str) -> Vec<(String, String)> {
    let value = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let lines: Vec<&str> = lock.lines().collect();
    lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("name = ") && pair[1].starts_with("version = "))
        .map(|pair| (value(pair[0]), value(pair[1])))
        .collect()
}

fn unwanted_packages(lock: &str) -> Vec<String> {
    let banned = ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls", "serde_yaml"];
    let number = |version: &str| -> Vec<u64> {
        version.split('.').map(|part| part.parse().unwrap_or_default()).collect()
    };
    let mut findings = Vec::new();
    for (name, version) in locked(lock) {
        if banned.contains(&name.as_str()) {
            findings.push(format!("{name}: banned"));
        }
        // RUSTSEC-2026-0523: one frame makes accept_bi yield without end.
        if name == "quinn-proto" && number(&version) < vec![0, 11, 19] {
            findings.push(format!("quinn-proto {version}: older than 0.11.19"));
        }
    }
    findings
}

/// Clippy's switches that stand for rules of the house.
fn missing_switches(clippy: &str, workspace: &str) -> Vec<String> {
    let switches = [
        (clippy, "too-many-lines-threshold = 70"),
        (clippy, "std::time::Instant::now"),
        (clippy, "std::time::SystemTime::now"),
        (clippy, "std::thread::spawn"),
        (workspace, "missing_docs = \"deny\""),
        (workspace, "unsafe_code = \"deny\""),
        (workspace, "unwrap_used = \"deny\""),
        (workspace, "expect_used = \"deny\""),
        (workspace, "pedantic = { level = \"warn\", priority = -1 }"),
    ];
    let missing = switches.iter().filter(|(text, switch)| !text.contains(switch));
    missing.map(|(_, switch)| format!("switch is off: {switch}")).collect()
}

/// Of `cargo metadata`: dependencies per package, and the root file of each target.
fn metadata() -> (BTreeMap<String, BTreeSet<String>>, Vec<String>) {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let mut packages = BTreeMap::new();
    let mut roots = Vec::new();
    for package in list(&metadata["packages"]) {
        packages.insert(name(&package), list(&package["dependencies"]).iter().map(name).collect());
        for target in list(&package["targets"]) {
            let path = Path::new(target["src_path"].as_str().unwrap_or_default());
            let relative = path.strip_prefix(root()).unwrap_or(path);
            roots.push(relative.to_string_lossy().into_owned());
        }
    }
    (packages, roots)
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a readable file of the root")
}

#[track_caller]
fn assert_clean(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), findings.join("\n  "));
}

mod the_house {
    //! The rules, applied to the repository.
    use super::*;

    #[test]
    fn crate_edges_are_those_of_the_picture() {
        let (packages, _) = metadata();
        assert_eq!(packages.len(), EDGES.len(), "every crate of the picture exists");
        assert_clean(&forbidden_edges(&packages));
    }

    #[test]
    fn pure_crates_do_not_reach_for_the_world() {
        assert_clean(&forbidden_paths(&sources()));
    }

    #[test]
    fn every_rust_file_says_what_it_is() {
        assert_clean(&files_without_header(&sources()));
    }

    #[test]
    fn no_file_grows_into_a_god() {
        for warning in long_files(&sources(), FILE_LINES_WARN) {
            println!("warning: {warning}");
        }
        assert_clean(&long_files(&sources(), FILE_LINES_MAX));
    }

    #[test]
    fn nothing_is_left_to_be_done_in_words() {
        let rust: Vec<Source> = sources().into_iter().filter(Source::is_rust).collect();
        assert_clean(&words_in(&rust, &banned_words()));
    }

    #[test]
    fn no_path_of_a_machine_is_named() {
        assert_clean(&words_in(&sources(), &machine_paths()));
    }

    #[test]
    fn every_rust_file_is_reached() {
        let (_, mut roots) = metadata();
        roots.extend(OTHER_ROOTS.map(str::to_owned));
        assert_clean(&dead_files(&sources(), &roots));
    }

    #[test]
    fn every_lock_has_a_reason() {
        assert_clean(&locks_without_reason(&sources()));
    }

    #[test]
    fn every_actor_has_a_folder_and_a_charter() {
        assert_clean(&misshapen_actors(&sources()));
    }

    #[test]
    fn the_root_is_bare() {
        let ignored = ignored();
        let entries: Vec<String> = fs::read_dir(root())
            .expect("a readable root")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| !ignored.contains(name))
            .collect();
        assert_clean(&strangers_in_root(&entries));
    }

    #[test]
    fn no_unwanted_package_is_locked() {
        let lock = read("Cargo.lock");
        assert!(locked(&lock).iter().any(|(name, _)| name == "quinn-proto"), "lock file is read");
        assert_clean(&unwanted_packages(&lock));
    }

    #[test]
    fn the_lints_of_the_house_are_on() {
        assert_clean(&missing_switches(&read(".clippy.toml"), &read("Cargo.toml")));
    }

    #[test]
    fn every_link_leads_somewhere() {
        assert_clean(&broken_links(&sources(), |file| root().join(file).exists()));
    }

    #[test]
    fn the_front_page_is_one_page() {
        let lines = read("README.md").lines().count();
        assert!(lines <= 150, "README.md has {lines} lines; 150 are enough");
    }
}

mod each_rule_barks {
    //! Every rule is shown a bad sample and a good one.
    use super::*;

    fn bad(path: &str, text: &str) -> Vec<Source> {
        vec![Source::new(path, text)]
    }

    fn package(name: &str, uses: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
        BTreeMap::from([(name.to_owned(), uses.iter().map(|&u| u.to_owned()).collect())])
    }

    #[test]
    fn at_a_wrong_edge() {
        assert_eq!(forbidden_edges(&package("cluster", &["tokio"])).len(), 1);
        assert_eq!(forbidden_edges(&package("actors", &["transport"])).len(), 1);
        assert_eq!(forbidden_edges(&package("transport", &["actors"])).len(), 1);
        assert_eq!(forbidden_edges(&package("examples", &["cluster"])).len(), 1);
        assert_eq!(forbidden_edges(&package("stranger", &[])).len(), 1);
        assert_clean(&forbidden_edges(&package("actors", &["cluster", "ractor"])));
    }

    #[test]
    fn at_the_world_in_a_pure_crate_and_raft_outside_its_home() {
        assert_eq!(forbidden_paths(&bad("cluster/src/a.rs", "use std::fs::File;")).len(), 1);
        assert_eq!(forbidden_paths(&bad("actors/src/a.rs", "use raft::RawNode;")).len(), 2);
        assert_clean(&forbidden_paths(&bad("cluster/src/raft/a.rs", "use raft::RawNode;")));
        assert_clean(&forbidden_paths(&bad("node/src/a.rs", "use std::fs;")));
        assert_clean(&forbidden_paths(&bad("actors/src/a.rs", "use cluster::raft::prelude;")));
    }

    #[test]
    fn at_a_file_without_a_header() {
        assert_eq!(files_without_header(&bad("a/src/b.rs", "use x;")).len(), 1);
        assert_clean(&files_without_header(&bad("a/src/b.rs", "//! What it is.\n")));
    }

    #[test]
    fn at_a_long_file_but_not_at_long_tests() {
        let long = "x\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(long_files(&bad("a/src/b.rs", &long), FILE_LINES_MAX).len(), 1);
        assert_clean(&long_files(&bad("a/src/tests.rs", &long), FILE_LINES_MAX));
        let tested = format!("x\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_clean(&long_files(&bad("a/src/b.rs", &tested), FILE_LINES_MAX));
    }

    #[test]
    fn at_each_banned_word_and_machine_path() {
        for word in banned_words() {
            let found = words_in(&bad("a/src/b.rs", &format!("  {word} later")), &banned_words());
            assert!(!found.is_empty(), "{word}");
        }
        for path in machine_paths() {
            let found = words_in(&bad("README.md", &format!("see {path}x")), &machine_paths());
            assert_eq!(found.len(), 1, "{path}");
        }
        assert_clean(&words_in(&bad("a.md", "https://host/network/x"), &machine_paths()));
    }

    #[test]
    fn at_a_dead_file_but_not_at_a_nested_one() {
        let tree = [
            Source::new(
                "a/src/lib.rs",
                "pub mod b;\npub(crate) mod c;\n#[path = \"z.rs\"]\nmod d;",
            ),
            Source::new("a/src/b.rs", "mod e;"),
            Source::new("a/src/b/e.rs", ""),
            Source::new("a/src/c/mod.rs", "mod f;"),
            Source::new("a/src/c/f.rs", ""),
            Source::new("a/src/z.rs", ""),
            Source::new("a/src/dead.rs", ""),
        ];
        let found = dead_files(&tree, &["a/src/lib.rs".to_owned()]);
        assert_eq!(found, ["a/src/dead.rs: no `mod` reaches it"]);
    }

    #[test]
    fn at_a_lock_without_a_reason() {
        let text = "struct A { b: Mutex<u8> }";
        assert_eq!(locks_without_reason(&bad("actors/src/a.rs", text)).len(), 1);
        let reasoned = format!("// Lock: only its owner writes.\n{text}");
        assert_clean(&locks_without_reason(&bad("actors/src/a.rs", &reasoned)));
        assert_clean(&locks_without_reason(&bad("node/src/devices/a.rs", text)));
    }

    #[test]
    fn at_an_actor_without_folder_or_charter_and_at_a_long_one() {
        let charter = "//! Owns, talks, supervised, may lose, invariants, limits.\n";
        let actor = format!("{charter}impl Actor for A {{}}\n");
        assert_clean(&misshapen_actors(&bad("actors/src/a/mod.rs", &actor)));
        assert_eq!(misshapen_actors(&bad("actors/src/a.rs", &actor)).len(), 1);
        let silent = misshapen_actors(&bad("actors/src/a/mod.rs", "impl Actor for A {}"));
        assert_eq!(silent.len(), CHARTER.len());
        let long = actor + &"x\n".repeat(ACTOR_LINES_MAX);
        assert_eq!(misshapen_actors(&bad("actors/src/a/mod.rs", &long)).len(), 1);
    }

    #[test]
    fn at_a_stranger_in_the_root() {
        assert_eq!(strangers_in_root(&["notes.txt".to_owned()]), ["notes.txt"]);
    }

    #[test]
    fn at_an_unwanted_package() {
        let lock = "name = \"aws-lc-sys\"\nversion = \"0.1.0\"\n\nname = \"quinn-proto\"\nversion = \"0.11.9\"\n";
        assert_eq!(unwanted_packages(lock).len(), 2);
        assert_clean(&unwanted_packages("name = \"quinn-proto\"\nversion = \"0.12.0\"\n"));
    }

    #[test]
    fn at_a_link_that_leads_nowhere() {
        let text = "see [a](there.md#part), [b](gone.md) and [c](https://host/x)";
        let found =
            broken_links(&bad("docs/x.md", text), |file| file == Path::new("docs/there.md"));
        assert_eq!(found, ["docs/x.md: no file at gone.md"]);
    }

    #[test]
    fn at_a_switch_that_is_off() {
        assert!(missing_switches("", "").len() > 5);
    }
}
